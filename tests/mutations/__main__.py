"""Run the mutation check: `.venv/bin/python -m tests.mutations`, as root, in the project's folder."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.mutations.breakage import HOOK, TENDER, Breakage
from tests.mutations.breakages import ALL
from tests.mutations.workbench import Verdict, Workbench

DESCRIPTION = """\
Break vmfab on purpose, one safety rule at a time, in a temporary copy of the project, and see that a test
notices. Each line tells what was broken, the first test that failed with it (and passes without it), and the
seconds that took. Exit code 0: every breakage was noticed; 1: one was not, or no longer fits the source;
2: nothing was tried.
"""


def main() -> int:
    """Try what was asked for; the exit code."""
    asked = _parser().parse_args()
    known = {one.name: one for one in ALL}
    for name in asked.names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            print(
                f"No breakage is called {name}." + (f" Did you mean {near[0]}?" if near else ""),
                file=sys.stderr,
            )
            print("--list shows them all.", file=sys.stderr)
            return 2
    chosen = [known[name] for name in dict.fromkeys(asked.names)] or list(ALL)
    if asked.list:
        for one in chosen:
            print(f"{one.name:<{_WIDTH}}  {one.file}: {one.why}")
        return 0
    if os.geteuid() != 0 and any(set(HOOK + TENDER) & set(one.tests) for one in chosen):
        print("The tests of the hook need root, for mount namespaces of their own.", file=sys.stderr)
        print("Run it as root, or name other breakages (--list).", file=sys.stderr)
        return 2
    return _report(chosen)


_WIDTH = max(len(one.name) for one in ALL)


def _report(chosen: list[Breakage]) -> int:
    begin = time.monotonic()
    print(f"{'BREAKAGE':<{_WIDTH}}  {'FILE':<38}  SECONDS  CAUGHT BY")
    uncaught = 0
    for verdict in _verdicts(chosen):
        one = verdict.breakage
        caught = verdict.caught_by or verdict.problem or f"NOTHING. It means: {one.why}"
        uncaught += not verdict.caught_by
        print(f"{one.name:<{_WIDTH}}  {one.file:<38}  {verdict.seconds:7.1f}  {caught}", flush=True)
    print(f"{len(chosen) - uncaught} of {len(chosen)} breakages caught in {time.monotonic() - begin:.0f} s.")
    if uncaught:
        print(
            "A breakage that survives lacks a test; one that does not fit: mend tests/mutations/breakages.py."
        )
    return int(uncaught > 0)


def _verdicts(chosen: list[Breakage]) -> Iterator[Verdict]:
    with tempfile.TemporaryDirectory(prefix="vmfab-mutations-") as folder:
        bench = Workbench(Path(folder))
        for one in chosen:
            yield bench.judge(one)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutations",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these breakages")
    parser.add_argument("--list", action="store_true", help="show all breakages and why; try none")
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
