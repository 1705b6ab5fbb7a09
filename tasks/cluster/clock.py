"""Time as the domain sees it, so that a simulation can supply its own."""

from __future__ import annotations

import time


class Clock:
    """The real time. The simulated cluster passes a subclass whose time moves without waiting."""

    def now(self) -> float:
        """Seconds since the epoch, for what is shown and journaled."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never jump, for measuring and for time-outs."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait so many seconds."""
        time.sleep(seconds)
