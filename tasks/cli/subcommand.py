"""Run a command on the operator's own terminal, and share Ctrl-C with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

#: Seconds that an interrupted command gets before it is interrupted again, again, and then killed.
#: The terminal has told it of Ctrl-C already; another signal did not reach it.
PATIENCE = (2.0, 5.0, 5.0)


def run(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end with `environment` added, and return its exit code.

    Raises KeyboardInterrupt like any other code, but only when the command has ended.
    """
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, **environment})
    try:
        return child.wait()
    except KeyboardInterrupt:
        _stop(child)
        raise


def _stop(child: subprocess.Popen[bytes]) -> None:
    for seconds in PATIENCE:
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
        else:
            return
    child.kill()
    child.wait()
