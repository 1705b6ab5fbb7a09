"""Which VM goes to which host: the packing itself, without hosts, XML or libvirt. Memory in KiB."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.cluster.model import Vm
from tasks.cluster.planning.repacking import EXACT_PAIRS, evict, search
from tasks.cluster.planning.rooms import Filling, HostRoom, VmNeed

#: A VM whose combination of needs and apart rules occurs this often gets queues of its own (see _Queues).
COMMON = 32


@dataclass(frozen=True, slots=True)
class Placement:
    """Where each VM goes; every VM asked for is in exactly one of `placed` and `unplaced`.

    `rooms` are the hosts as they are once all of `placed` are there.
    """

    placed: Mapping[Vm, str]
    unplaced: tuple[VmNeed, ...]
    rooms: Mapping[str, HostRoom]


def place(needs: Iterable[VmNeed], rooms: Iterable[HostRoom]) -> Placement:
    """Give each VM a host, keeping the free share of the hosts' memory even.

    Largest VM first, each to the host that keeps the largest free share, as Ganeti's htools spread memory.
    The order of the arguments makes no difference. Where that leaves VMs over, small clusters are searched
    (up to EXACT_PAIRS pairs of VM and host, exhaustively within EXACT_STEPS: so many as can be placed are),
    larger ones get a bounded number of evictions: a placed VM gives way where another host can have it.
    VMs that already are on a host are never moved to make room.

    Takes n log n time for n VMs on many hosts as long as the hosts come in few kinds (features, rough size).
    Raises ValueError if a VM or a host occurs twice.
    """
    # Names decide between equals, so that the same cluster always gives the same plan.
    todo = sorted(needs, key=lambda n: (-n.memory_kib, n.vm.name, n.vm.uuid))
    hosts = sorted(rooms, key=lambda r: r.name)
    if len({n.vm for n in todo}) < len(todo) or len({r.name for r in hosts}) < len(hosts):
        raise ValueError("a VM or a host is to be placed twice")
    filling = Filling({r.name: r for r in hosts})
    left = _spread(todo, filling)
    if hopeful := [n for n in left if filling.hopeful(n)]:
        hoped = {n.vm for n in hopeful}
        movable = [n for n in todo if n.vm in filling.at or n.vm in hoped]
        filling = _without_largest(movable, filling)
        if len(movable) * len(hosts) <= EXACT_PAIRS:
            filling = search(movable, filling, len(movable) - len(filling.at))
        filling = evict([n for n in movable if n.vm not in filling.at], filling)
    return Placement(
        placed={n.vm: filling.at[n.vm] for n in todo if n.vm in filling.at},
        unplaced=tuple(n for n in todo if n.vm not in filling.at),
        rooms=filling.rooms,
    )


class _Queues:
    """Hosts by free memory, in one queue for each kind of host, where a kind is features and rough size.

    Within a kind the host with the most free memory also has, nearly enough, the largest free share, so the
    first of each queue tells whether any of them has room. Entries are corrected when they come to the front.
    With `forget` a host that holds a member of the VM's apart groups is dropped for good: right as long as
    only VMs of the same groups use these queues, and nothing leaves a host.
    """

    def __init__(self, filling: Filling, *, forget: bool) -> None:
        self._filling = filling
        self._forget = forget
        self._queues: dict[tuple[frozenset[str], int], list[tuple[int, str]]] = {}
        self._fitting: dict[frozenset[str], list[list[tuple[int, str]]]] = {}
        for room in filling.rooms.values():
            if room.accepting:
                kind = (room.features, round(12 * math.log2(max(1, room.total_kib))))
                self._queues.setdefault(kind, []).append((-room.free_kib, room.name))
        for queue in self._queues.values():
            heapq.heapify(queue)

    def best(self, need: VmNeed) -> HostRoom | None:
        fitting = self._fitting.get(need.needs)
        if fitting is None:
            fitting = [q for (features, _), q in self._queues.items() if need.needs <= features]
            self._fitting[need.needs] = fitting
        firsts = [r for q in fitting if (r := self._first(q, need)) is not None]
        return min(firsts, key=lambda r: (-r.evenness(need), r.name), default=None)

    def _first(self, queue: list[tuple[int, str]], need: VmNeed) -> HostRoom | None:
        aside: list[tuple[int, str]] = []
        found = None
        while queue:
            free, name = queue[0]
            room = self._filling.rooms[name]
            if -free != room.free_kib:
                heapq.heapreplace(queue, (-room.free_kib, name))
            elif room.free_kib < need.memory_kib:
                break
            elif not need.apart.isdisjoint(room.apart):
                heapq.heappop(queue)
                if not self._forget:
                    aside.append((free, name))
            elif need.may_use(room):
                found = room
                break
            else:
                aside.append(heapq.heappop(queue))
        for entry in aside:
            heapq.heappush(queue, entry)
        return found


def _spread(todo: list[VmNeed], filling: Filling) -> list[VmNeed]:
    """Place each VM where most stays free; those that fit nowhere are returned."""
    kinds = Counter((n.needs, n.apart) for n in todo if n.apart)
    shared = _Queues(filling, forget=False)
    own: dict[tuple[frozenset[str], frozenset[str]], _Queues] = {}
    left = []
    for need in todo:
        kind = (need.needs, need.apart)
        if need.targets is not None:
            room = filling.best(need)
        elif kinds[kind] >= COMMON:
            if kind not in own:
                own[kind] = _Queues(filling, forget=True)
            room = own[kind].best(need)
        else:
            room = shared.best(need)
        if room is None:
            left.append(need)
        else:
            filling.put(need, room.name)
    return left


def _without_largest(movable: list[VmNeed], filling: Filling) -> Filling:
    """Give up 1, 2, 4, 8 ... of the largest VMs as long as that leaves fewer over in all.

    Largest first leaves the small ones over when there is not enough room for all: many, where one would do.
    """
    give_up = 1
    while give_up < len(movable) - len(filling.at):
        trial = Filling(filling.empty)
        _spread(movable[give_up:], trial)
        if len(trial.at) <= len(filling.at):
            break
        filling = trial
        give_up *= 2
    return filling
