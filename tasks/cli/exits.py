"""How a command ends: one sentence for everything foreseeable, and the exit code that goes with it.

0 done and verified, 1 tried and failed, 2 refused or bad usage, 3 outcome unknown, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from invoke.exceptions import Exit, Failure, ParseError

from tasks.cli.output import Output
from tasks.cluster.errors import Refused, VmfabError

BUG = """\
This is a fault in vmfab itself, and what it was doing may be half done: type "fab status" to see where
things stand. Please report it with the lines above and the command that you typed."""


def need_streams() -> None:
    """Refuse a closed standard output: a report that nobody can read is none.

    Opens /dev/null in place of a closed standard input, so that no connection gets its number.
    Raises Refused.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    if sys.stdout is None:
        raise Refused("Standard output is closed, so there is nowhere to report to.")


def ending(run: Callable[[], int], output: Output) -> int:
    """Call `run` and give the exit code; whatever it raised has been told on standard error by then.

    ParseError and Failure of Invoke are passed on: fab itself knows what to do with them.
    """
    try:
        code = run()
    except Exit as end:
        if end.message:
            output.error(end.message)
        code = end.code
    except (ParseError, Failure):
        raise
    except VmfabError as error:
        output.error(f"fab: {error.message}" + (f"\n{error.hint}" if error.hint else ""))
        code = error.code
    except KeyboardInterrupt:
        output.error("fab: interrupted.")
        code = 130
    except BrokenPipeError:
        output.error("fab: a program that was to read the output has ended.")
        code = 1
    except Exception:
        output.error(traceback.format_exc() + BUG)
        code = 3
    output.out.flush()
    output.err.flush()
    if output.out.lost and not output.out.broken:
        output.error(f"fab: the report could not be written: {output.out.lost.strerror}.")
        code = code or 1
    return code
