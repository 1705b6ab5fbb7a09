"""The law, watched from outside: no VM on two hosts, no image written by two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.guests import Guest


class LawBroken(BaseException):
    """A second writer has started. No `except Exception` of the code under test may swallow this."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What was broken, by whom ("vmfab", "hand", "boot"), and everything that led to it."""

    what: str
    by: str
    history: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.what} (started by {self.by})", *self.history[-60:]])


class Law:
    """Sees every start and end of a qemu process."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self.violations: list[Violation] = []
        self._forgiven: set[int] = set()

    def started(self, guest: Guest, by: str) -> None:
        """Open its images. Raises LawBroken for the second of a VM or the second writer of an image."""
        broken = self._broken_by(guest)
        for image in guest.images:
            image.opened(guest, self._cluster.clock.now())
        if broken:
            violation = Violation(broken, by, tuple(self._cluster.history))
            self.violations.append(violation)
            self._cluster.note(guest.host, f"THE LAW IS BROKEN: {broken}")
            raise LawBroken(str(violation))

    def ended(self, guest: Guest) -> None:
        for image in guest.images:
            image.closed(guest, self._cluster.clock.now())

    def _broken_by(self, guest: Guest) -> str:
        for host in self._cluster.hosts.values():
            for other in host.guests:
                if other is guest or not other.writes:
                    continue
                shared = [i.path for i in guest.images if i in other.images]
                if shared:
                    return (
                        f"{shared[0]} is written by {guest.name} on {guest.host.name} "
                        f"and {other.name} on {other.host.name}"
                    )
                if guest.uuid == other.uuid or guest.name == other.name:
                    return f"{guest.name} runs on {guest.host.name} and on {other.host.name}"
        return ""

    def forgive(self) -> None:
        """Forget what was seen, and what the images that were written until now prove."""
        self.violations.clear()
        images = [*self._cluster.store.images.values()]
        self._forgiven |= {image.ino for image in images if image.faults()}

    def check(self) -> None:
        """Raise LawBroken if it was ever broken: as seen at a start, or as the images' counters prove."""
        if self.violations:
            raise LawBroken(str(self.violations[0]))
        now = self._cluster.clock.now()
        images = list(self._cluster.store.images.values())
        for host in self._cluster.hosts.values():
            images += host.local.values()
        for image in images:
            image.settle(now)
            if image.ino in self._forgiven:
                continue
            if faults := image.faults():
                raise LawBroken("\n".join([*faults, *self._cluster.history[-60:]]))
