"""Follow the guests' counters while they grow, to tell how long each guest was away for its users.

Seen on the disks, without libvirt or vmfab: a guest that is being moved pauses from its last record on the
source to its first on the target, its shutdown and boot included.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from types import TracebackType

from tasks.lab import namespaces
from tasks.lab.guests import Guests
from tasks.lab.image import RECORD, RING, RING_AT


class Counter:
    """One guest's counter: how far it has come, when it last moved, its longest pause in seconds."""

    def __init__(self, lab: Guests, name: str) -> None:
        self._fd = os.open(lab.image(name), os.O_RDONLY)
        self.value = lab.testimony(name).counter
        self._moved = time.monotonic()
        self._longest = 0.0

    def look(self) -> None:
        """Go on to the newest record."""
        seen = self.value
        while self._written(seen + 1):
            seen += 1
        if seen != self.value:
            self._longest = self.pause
            self._moved = time.monotonic()
            self.value = seen

    @property
    def pause(self) -> float:
        """Seconds of the longest pause, one that still lasts included."""
        return max(self._longest, time.monotonic() - self._moved)

    def forget(self) -> None:
        """Begin a new measurement."""
        self._longest = 0.0
        self._moved = time.monotonic()

    def close(self) -> None:
        """Let go of the image."""
        os.close(self._fd)

    def _written(self, counter: int) -> bool:
        record = os.pread(self._fd, RECORD, RING_AT + counter % RING * RECORD)
        words = record.replace(b"\0", b"").split()
        return len(words) == 2 and words[0].isdigit() and int(words[0]) == counter


class Pulse(threading.Thread):
    """Looks at all counters ten times a second: `with Pulse(lab) as pulse: ...`."""

    def __init__(self, lab: Guests, pause: float = 0.1) -> None:
        super().__init__(name="pulse", daemon=True)
        self._pause = pause
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._counters = {name: Counter(lab, name) for name in lab.images()}

    def run(self) -> None:
        """Look until told to end."""
        while not self._end.wait(self._pause):
            with self._lock:
                for counter in self._counters.values():
                    counter.look()

    def restart(self) -> None:
        """Forget the pauses until now."""
        with self._lock:
            for counter in self._counters.values():
                counter.forget()

    def pauses(self) -> dict[str, float]:
        """Return each guest's longest pause since the last restart, in seconds."""
        with self._lock:
            return {name: counter.pause for name, counter in self._counters.items()}

    def wait(self, seconds: float) -> None:
        """Wait until every guest has counted on; raises LabError."""
        for name, counter in self._counters.items():
            before = counter.value
            namespaces.until(partial(_has_passed, counter, before), seconds, f"{name} to count", self._pause)

    def __enter__(self) -> Pulse:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self.join()
        for counter in self._counters.values():
            counter.close()


def _has_passed(counter: Counter, value: int) -> bool:
    return counter.value > value
