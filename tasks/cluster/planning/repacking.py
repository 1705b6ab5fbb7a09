"""Making room for VMs that were left over, by placing the others differently. Memory in KiB."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.cluster.model import Vm
from tasks.cluster.planning.rooms import Filling, HostRoom, VmNeed

#: Below so many pairs of VM and host an exact search is tried, for at most so many steps (about 20 us each).
EXACT_PAIRS = 2_000
EXACT_STEPS = 40_000
#: How many hosts and evictions the repair of larger clusters looks at; an eviction looks at every host.
EVICTIONS = 2_000


def search(movable: list[VmNeed], greedy: Filling, unplaced: int) -> Filling:
    """The filling with the fewest VMs left over that can be found within EXACT_STEPS.

    Tries to leave none over, then one, and so on, each first towards even and then towards tight packing.
    """
    steps = EXACT_STEPS
    for leave in range(unplaced):
        for tight in (False, True):
            search = _Search(movable, greedy.empty, leave, tight, max(1, steps // 4))
            found = search.run()
            steps -= search.taken
            if found is not None:
                filling = Filling(greedy.empty)
                for need in movable:
                    if need.vm in found:
                        filling.put(need, found[need.vm])
                return filling
            if not search.exhausted:
                break  # every possibility was seen: the other order sees no more
    return greedy


class _Search:
    """Depth-first search: always the VM with the fewest possible hosts next, and no state looked at twice."""

    def __init__(
        self, movable: list[VmNeed], rooms: Mapping[str, HostRoom], leave: int, tight: bool, steps: int
    ) -> None:
        self._needs = movable
        self._leave = leave
        self._sign = 1 if tight else -1
        self._steps = steps
        self.taken = 0
        self.exhausted = False
        self._rooms = dict(rooms)
        self._usable = [[name for name, room in rooms.items() if need.may_use(room)] for need in movable]
        # Hosts that the same VMs may use are interchangeable when they are equally full.
        columns = {name: tuple(name in usable for usable in self._usable) for name in rooms}
        self._alike = {name: list(columns.values()).index(column) for name, column in columns.items()}
        self._at: dict[Vm, str] = {}
        self._dead: set[object] = set()

    def run(self) -> dict[Vm, str] | None:
        return self._at if self._go(frozenset(range(len(self._needs))), self._leave) else None

    def _go(self, rest: frozenset[int], leave: int) -> bool:
        self.taken += 1
        if self.taken > self._steps:
            self.exhausted = True
            return False
        if len(rest) <= leave:
            return True
        state = (rest, leave, tuple(sorted(map(self._face, self._rooms))))
        if state in self._dead:
            return False
        if self._try_all(rest, leave):
            return True
        if not self.exhausted:
            self._dead.add(state)
        return False

    def _try_all(self, rest: frozenset[int], leave: int) -> bool:
        options = {i: [n for n in self._usable[i] if self._needs[i].fits(self._rooms[n])] for i in rest}
        if sum(not names for names in options.values()) > leave or not self._enough(rest, leave):
            return False
        chosen = min(rest, key=lambda i: (len(options[i]), i))
        need = self._needs[chosen]
        tried: set[object] = set()
        for name in sorted(options[chosen], key=lambda n: (self._sign * self._rooms[n].evenness(need), n)):
            face = self._face(name)
            if face in tried:
                continue
            tried.add(face)
            before = self._rooms[name]
            self._rooms[name] = before.with_vm(need)
            self._at[need.vm] = name
            if self._go(rest - {chosen}, leave):
                return True
            self._rooms[name] = before
            del self._at[need.vm]
        return leave > 0 and self._go(rest - {chosen}, leave - 1)

    def _enough(self, rest: frozenset[int], leave: int) -> bool:
        """Whether all hosts together have the memory for the rest, without the `leave` largest."""
        wanted = sorted(self._needs[i].memory_kib for i in rest)
        return sum(wanted[: len(wanted) - leave]) <= sum(max(0, r.free_kib) for r in self._rooms.values())

    def _face(self, name: str) -> tuple[int, int, tuple[str, ...]]:
        """All that makes a host different from others for the VMs still to be placed."""
        room = self._rooms[name]
        return self._alike[name], room.free_kib, tuple(sorted(room.apart))


def evict(left: list[VmNeed], filling: Filling) -> Filling:
    """Place VMs that are left over by letting one placed VM each give way to another host."""
    budget = EVICTIONS
    swapped = False
    for need in left:
        if _fill_gap(need, filling) or budget <= 0:
            continue
        for host in sorted(filling.candidates(need), key=lambda r: (-r.free_kib, r.name)):
            budget -= 1
            for guest in sorted(
                filling.guests[host.name], key=lambda g: (g.memory_kib, g.vm.name, g.vm.uuid)
            ):
                if budget > 0 and host.free_kib + guest.memory_kib >= need.memory_kib:
                    budget -= 1
                    if _swap(guest, need, filling):
                        swapped = True
                        break
            if need.vm in filling.at or budget <= 0:
                break
    if swapped:
        # A smaller VM in place of a larger one may have made room for those that came before it.
        for need in left:
            if need.vm not in filling.at:
                _fill_gap(need, filling)
    return filling


def _fill_gap(need: VmNeed, filling: Filling) -> bool:
    if need.memory_kib > max(r.free_kib for r in filling.rooms.values()):
        return False
    room = filling.best(need)
    if room is not None:
        filling.put(need, room.name)
    return room is not None


def _swap(guest: VmNeed, need: VmNeed, filling: Filling) -> bool:
    """Put `need` in place of `guest` if another host can have `guest`; otherwise leave all as it was."""
    name = filling.at[guest.vm]
    elsewhere = min(
        (r for r in filling.candidates(guest) if r.name != name and guest.fits(r)),
        key=lambda r: (-r.evenness(guest), r.name),
        default=None,
    )
    if elsewhere is None:
        return False
    filling.take(guest)
    if need.fits(filling.rooms[name]):
        filling.put(guest, elsewhere.name)
        filling.put(need, name)
        return True
    filling.put(guest, name)
    return False
