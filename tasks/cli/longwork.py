"""What a host tells while it is at long work, as lines that do not flood a log."""

from __future__ import annotations

import threading

from tasks.cli.output import Output
from tasks.cli.text import clean
from tasks.cluster.clock import Clock

#: Seconds between two lines about the same host.
EVERY = 10.0
#: Characters of a line that are shown.
_WIDTH = 100


class LongWork:
    """Called with (host, line) as often as there is news; prints the latest every EVERY seconds per host."""

    def __init__(self, output: Output, clock: Clock) -> None:
        self._output = output
        self._clock = clock
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def __call__(self, host: str, line: str) -> None:
        with self._lock:
            now = self._clock.monotonic()
            if now - self._said.setdefault(host, now - EVERY / 2) < EVERY:
                return
            self._said[host] = now
        text = clean(line)
        self._output.say(f"{host}: {text if len(text) <= _WIDTH else text[: _WIDTH - 3] + '...'}", "dim")
