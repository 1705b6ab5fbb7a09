"""Simulated guests: how they behave, and a running one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.sim.domains import Definition
from tests.sim.store import Image

if TYPE_CHECKING:
    from tests.sim.host import SimHost


@dataclass(slots=True)
class Behaviour:
    """How a VM's guest acts, on whichever host it runs. Times in seconds."""

    #: from the request to the end of the guest; None: it never reacts
    off_after: float | None = 2.0
    #: how many requests it ignores before it reacts
    ignores: int = 0
    #: how many starts fail before one works, by host; the key "" is for every host
    failing_starts: dict[str, int] = field(default_factory=dict)
    #: qemu ends so long after its start, by host; the key "" is for every host
    crash_after: dict[str, float] = field(default_factory=dict)
    #: "works", "fails" (still running afterwards), "lies" (an error, though it is gone)
    destroy: str = "works"
    #: SIGTERM (destroy --graceful) has no effect on qemu
    ignores_sigterm: bool = False
    #: the guest answers a request to shut down by rebooting
    reboots_instead: bool = False


@dataclass(eq=False, slots=True)
class Guest:
    """A qemu process. It has its writable images open from its start to its end."""

    host: SimHost
    definition: Definition
    live: Definition
    pid: int
    number: int
    boot_id: str
    since: float
    behaviour: Behaviour
    images: tuple[Image, ...]
    #: paths of the images as the process opened them
    paths: tuple[str, ...]
    state: str = "running"
    reason: str = "booted"
    asked: int = 0
    alive: bool = True
    going_down: bool = False
    #: False: a process that libvirt has lost track of
    listed: bool = True
    #: whether it may write its images: not before and not after its part in a live migration
    writes: bool = True
    #: the guest of the same VM on the other side of a live migration
    peer: Guest | None = None

    @property
    def uuid(self) -> str:
        return self.live.uuid

    @property
    def name(self) -> str:
        return self.live.name
