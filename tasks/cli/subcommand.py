"""Run a command on the operator's own terminal, and share Ctrl-C with it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import FrameType

#: Seconds that an interrupted command gets before it is interrupted again, again, and then killed.
#: The terminal has told it of Ctrl-C already; another signal did not reach it.
PATIENCE = (2.0, 5.0, 5.0)


def run(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a command to its end with `environment` added, and return its exit code.

    Raises KeyboardInterrupt like any other code, but only when the command has ended.
    """
    with ExitStack() as held:
        held.callback(_hold_signals())
        child = subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, **environment})
        try:
            held.close()
            return child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise


def _hold_signals() -> Callable[[], None]:
    """Keep signals from interrupting until the function that is returned is called, which delivers them.

    One that came while the command is being started would leave it behind.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    theirs = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in theirs:
        signal.signal(number, lambda number, frame: came.append((number, frame)))

    def deliver() -> None:
        for number, handler in theirs.items():
            signal.signal(number, handler)
        for late, frame in came:
            theirs[signal.Signals(late)](late, frame)

    return deliver


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
