"""Say the steps of long work as they begin, with the seconds since its start and a sign of life."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tasks.cli.output import Output
from tasks.cluster.clock import Clock

#: Seconds after which a step that still lasts is named again.
HEARTBEAT = 12.0


@contextmanager
def steps(output: Output, clock: Clock | None = None) -> Iterator[Callable[[str], None]]:
    """Give a function that says a step: "  3 s  Switching on 4 hosts".

        with steps(op.output) as say:
            lab.up(4, 8, say=say)

    A step that lasts is named again every HEARTBEAT seconds. May be called from several threads.
    """
    spoken = Steps(output, clock or Clock())
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(spoken, stop), name="steps", daemon=True)
    beat.start()
    try:
        yield spoken.say
    finally:
        stop.set()


def _beat(spoken: Steps, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        spoken.beat()


class Steps:
    """The latest step, and when it was last named."""

    def __init__(self, output: Output, clock: Clock) -> None:
        self._output = output
        self._clock = clock
        self._lock = threading.Lock()
        self._began = self._told = clock.monotonic()
        self._latest = ""

    def say(self, text: str) -> None:
        """Begin a step."""
        with self._lock:
            self._latest = text
            self._line(text)

    def beat(self) -> None:
        """Name the step again when it is time."""
        with self._lock:
            if self._latest and self._clock.monotonic() - self._told >= HEARTBEAT:
                self._line(f"still: {self._latest}")

    def _line(self, text: str) -> None:
        self._told = self._clock.monotonic()
        self._output.say(f"{self._told - self._began:4.0f} s  {text}")
