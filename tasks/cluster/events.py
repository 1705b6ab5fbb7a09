"""What long work tells whoever shows it: one event per change, never a printed line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Phase(Enum):
    """Where a VM is on its way; the values are the words an operator reads."""

    WAITING = "waiting for its turn"
    CHECKING = "checking"
    DEFINING = "defining on the target"
    SHUTTING_DOWN = "shutting down"
    DESTROYING = "destroying"
    PROVING = "proving that it is off everywhere"
    STARTING = "starting"
    WATCHING = "watching it stay up"
    RETURNING = "starting again on the source"
    MOVED = "moved"
    STARTED = "started"
    REBOOTED = "asked to reboot"
    STOPPED = "stopped"
    LEFT = "left where it is"
    FAILED = "failed"
    UNKNOWN = "outcome unknown"

    @property
    def final(self) -> bool:
        return self in _FINAL


_FINAL = frozenset(
    {
        Phase.MOVED,
        Phase.STARTED,
        Phase.REBOOTED,
        Phase.STOPPED,
        Phase.LEFT,
        Phase.FAILED,
        Phase.UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """A VM entered a phase, or is still in it (`waited` grows).

    `vm` is its name; `source` and `target` are empty where they make no sense; `waited` and `limit` are
    seconds, `limit` is None when the phase has none.
    """

    vm: str
    phase: Phase
    source: str = ""
    target: str = ""
    detail: str = ""
    waited: float = 0.0
    limit: float | None = None


#: Called from several threads at once.
Notify = Callable[[Event], None]


def ignore(event: Event) -> None:
    """For callers who watch nothing."""
