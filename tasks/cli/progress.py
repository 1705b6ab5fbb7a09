"""Show work on many VMs at once: a live line for each on a terminal, else lines with the time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from tasks.cli.board import Board, sentence, still
from tasks.cli.output import Output
from tasks.cluster.clock import Clock
from tasks.cluster.events import Event, Notify, Phase

#: Seconds after which a log gets a sign of life of a VM that is still in the same phase.
HEARTBEAT = 12.0


@contextmanager
def progress(output: Output, total: int, *, clock: Clock | None = None) -> Iterator[Notify]:
    """Show the events given to what this yields, which may be called from several threads.

        with progress(op.output, len(moves)) as notify:
            carry_out(..., notify=notify)

    `total` is the number of VMs there will be. Messages said meanwhile appear above the live lines.
    """
    if output.live:
        from tasks.cli.livelines import live_lines

        with live_lines(output, total, clock or Clock()) as notify:
            yield notify
    else:
        log = Log(output, clock or Clock())
        stop = threading.Event()
        beat = threading.Thread(target=_beat, args=(log, stop), name="heartbeat", daemon=True)
        beat.start()
        try:
            yield log
        finally:
            stop.set()


def _beat(log: Log, stop: threading.Event) -> None:
    while not stop.wait(1.0):
        log.beat()


class Log:
    """Progress as lines: one when a VM enters a phase, and a sign of life now and then."""

    def __init__(self, output: Output, clock: Clock) -> None:
        self._output = output
        self._clock = clock
        self._board = Board()
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._board.update(event, self._clock.monotonic()) and event.phase is not Phase.WAITING:
                self._line(sentence(event))

    def beat(self) -> None:
        """Print the signs of life that are due."""
        with self._lock:
            now = self._clock.monotonic()
            for line in self._board.due(now, HEARTBEAT):
                self._line(still(line, now))

    def _line(self, text: str) -> None:
        moment = datetime.fromtimestamp(self._clock.now()).astimezone()
        self._output.say(f"{moment:%H:%M:%S} {text}")
