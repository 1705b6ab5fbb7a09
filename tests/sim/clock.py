"""The simulated clock that domain code is given."""

from __future__ import annotations

from tasks.cluster.clock import Clock
from tests.sim.scheduler import Scheduler

#: The epoch second at which every simulation begins: 2030-01-01 00:00 UTC.
BEGINNING = 1_893_456_000.0


class SimClock(Clock):
    """Time of a scheduler; sleeping takes none of ours."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def now(self) -> float:
        return BEGINNING + self._scheduler.time

    def monotonic(self) -> float:
        return self._scheduler.time

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)
