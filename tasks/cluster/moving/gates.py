"""How many VMs may start on one host at the same time."""

from __future__ import annotations

import threading
from collections import defaultdict

#: Starts at the same time on one target: more only makes each slower.
STARTS_PER_TARGET = 2


class StartGates:
    """At most `limit` starts at the same time on each host."""

    def __init__(self, limit: int = STARTS_PER_TARGET) -> None:
        self._lock = threading.Lock()
        self._gates: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limit))

    def __call__(self, host: str) -> threading.Semaphore:
        with self._lock:
            return self._gates[host]
