"""What a VM asks of a host and what a host offers, and hosts while they are being filled. Memory in KiB."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tasks.cluster.model import Vm


@dataclass(frozen=True, slots=True)
class VmNeed:
    """What one VM asks of its new host.

    `needs` are features the host must have, `apart` the groups of which a host may hold one member only,
    `targets` the hosts it may go to (None: any), `barred` hosts it must not go to; its source always is.
    """

    vm: Vm
    source: str
    memory_kib: int
    needs: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()
    targets: frozenset[str] | None = None
    barred: frozenset[str] = frozenset()

    def may_use(self, room: HostRoom) -> bool:
        """Whether the VM could be on the host if the host had nothing else on it."""
        return (
            room.accepting
            and room.name != self.source
            and room.name not in self.barred
            and (self.targets is None or room.name in self.targets)
            and self.needs <= room.features
        )

    def fits(self, room: HostRoom) -> bool:
        """Whether memory and apart rules let the VM be on the host as it is filled now."""
        return self.memory_kib <= room.free_kib and self.apart.isdisjoint(room.apart)


@dataclass(frozen=True, slots=True)
class HostRoom:
    """What one host offers. `free_kib` is what may still be planned into it, and may be negative.

    `withheld_kib` is how much more there would be without the reserve; it is only told, never used.
    """

    name: str
    free_kib: int
    total_kib: int
    features: frozenset[str] = frozenset()
    apart: frozenset[str] = frozenset()
    accepting: bool = True
    withheld_kib: int = 0

    def with_vm(self, need: VmNeed) -> HostRoom:
        # Spelled out, because dataclasses.replace takes three times as long and this is the inner loop.
        return HostRoom(
            self.name,
            self.free_kib - need.memory_kib,
            self.total_kib,
            self.features,
            self.apart | need.apart if need.apart else self.apart,
            self.accepting,
            self.withheld_kib,
        )

    def evenness(self, need: VmNeed) -> float:
        """The share of its memory that stays free with the VM on it."""
        return (self.free_kib - need.memory_kib) / max(1, self.total_kib)


@dataclass(slots=True)
class Filling:
    """The hosts while they are being filled. `empty` is how they were at the beginning."""

    empty: Mapping[str, HostRoom]
    rooms: dict[str, HostRoom] = field(init=False)
    at: dict[Vm, str] = field(default_factory=dict)
    guests: dict[str, list[VmNeed]] = field(init=False)

    def __post_init__(self) -> None:
        self.rooms = dict(self.empty)
        self.guests = {name: [] for name in self.empty}

    def put(self, need: VmNeed, name: str) -> None:
        self.rooms[name] = self.rooms[name].with_vm(need)
        self.at[need.vm] = name
        self.guests[name].append(need)

    def take(self, need: VmNeed) -> None:
        name = self.at.pop(need.vm)
        self.guests[name].remove(need)
        room = self.empty[name]
        for guest in self.guests[name]:
            room = room.with_vm(guest)
        self.rooms[name] = room

    def candidates(self, need: VmNeed) -> Iterator[HostRoom]:
        """Hosts the VM may use, however full."""
        names = self.empty if need.targets is None else sorted(need.targets & self.empty.keys())
        return (self.rooms[name] for name in names if need.may_use(self.rooms[name]))

    def best(self, need: VmNeed) -> HostRoom | None:
        """The host that stays the emptiest with the VM, looking at all."""
        fitting = [r for r in self.candidates(need) if need.fits(r)]
        return min(fitting, key=lambda r: (-r.evenness(need), r.name), default=None)

    def hopeful(self, need: VmNeed) -> bool:
        """Whether some host could take the VM if it were planned first."""
        return any(need.fits(self.empty[r.name]) for r in self.candidates(need))
