"""Plans: which VM would go where, and every reason why one cannot. Read off a snapshot, changing nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.cluster.inventory.mistakes import nearest
from tasks.cluster.model import Domain, Inventory, Move, Plan, Refusal, Snapshot, Vm
from tasks.cluster.planning.census import ApartRules, Census, named
from tasks.cluster.planning.eligibility import refusals_for_vm
from tasks.cluster.planning.overrides import IGNORE_APART, IGNORE_RESERVE
from tasks.cluster.planning.packing import place
from tasks.cluster.planning.rooms import HostRoom, VmNeed
from tasks.cluster.planning.subject import Subject, Terms, subject, unanswered
from tasks.cluster.planning.targets import (
    Trial,
    barred_hosts,
    features_of,
    free_memory_kib,
    needs_of,
    refusals_for_target,
)


def plan_drain(
    snapshot: Snapshot,
    inventory: Inventory,
    sources: Collection[str],
    *,
    only: Collection[str] = (),
    exclude: Collection[str] = (),
    to: Collection[str] = (),
    cordoned: Collection[str] | None = None,
    overrides: Collection[str] = (),
    reservations: Sequence[Move] = (),
    shutdown_timeout: float | None = None,
) -> Plan:
    """Plan to move every running VM off the hosts `sources`, none of which is a target.

    `only` and `exclude` are VM names or glob patterns; a pattern that means no VM of the cluster is refused,
    as it is more likely mistyped than meant. `to` limits the targets. `cordoned` is what the snapshot says
    unless given. `overrides` are some of `overrides.OF_A_MOVE`. `reservations` are moves of other commands
    that may be under way: their memory and their apart rules are kept free on their targets.
    `shutdown_timeout` (seconds) takes the place of what the inventory says for each VM.

    Every running VM concerned is in exactly one of the plan's moves and refusals. A source that cannot be
    asked, and a qemu process there that libvirt does not know, are refusals too.
    """
    planner = _Planner(snapshot, inventory, sources, cordoned, overrides, reservations)
    refusals = planner.mistyped(only, exclude)
    domains: list[Domain] = []
    for source in sorted(set(sources)):
        if source not in snapshot.hosts:
            refusals.append(Refusal(f"the VMs of {source}", source, "is not a host of the inventory"))
        elif source in planner.census.unsure:
            reason = unanswered(planner.census.unsure[source].reason)
            refusals.append(Refusal(f"the VMs of {source}", source, reason))
        else:
            domains += planner.census.facts[source].domains
            refusals += planner.strays(source, only, exclude)
    chosen = [d for d in domains if d.running and _chosen(d.vm.name, only, exclude)]
    return planner.plan(chosen, to, refusals, shutdown_timeout)


def plan_migrate(
    snapshot: Snapshot,
    inventory: Inventory,
    vms: Iterable[Vm],
    to: Collection[str] = (),
    *,
    cordoned: Collection[str] | None = None,
    overrides: Collection[str] = (),
    reservations: Sequence[Move] = (),
    shutdown_timeout: float | None = None,
) -> Plan:
    """Plan to move these VMs to the hosts `to`, or to the best ones; other arguments as for `plan_drain`.

    A host that one of the VMs leaves is no target for the others, unless `to` names it. A VM that runs
    nowhere is refused: there is nothing to move.
    """
    domains: list[Domain] = []
    refusals: list[Refusal] = []
    for vm in sorted(set(vms), key=lambda v: (v.name, v.uuid)):
        running = snapshot.where_running(vm)
        domains += running
        if not running:
            unsure = [Refusal(vm.name, s.host, unanswered(s.reason)) for s in snapshot.unsure()]
            refusals += unsure or [Refusal(vm.name, "", "it is not running (vm.start starts it)")]
    sources = {d.host for d in domains} - set(to)
    planner = _Planner(snapshot, inventory, sources, cordoned, overrides, reservations)
    unique = {(d.host, d.vm): d for d in domains}
    return planner.plan(unique.values(), to, refusals, shutdown_timeout)


def recheck(
    snapshot: Snapshot,
    inventory: Inventory,
    move: Move,
    *,
    cordoned: Collection[str] | None = None,
    overrides: Collection[str] = (),
    reservations: Sequence[Move] = (),
) -> tuple[Refusal, ...]:
    """Every reason why a planned move must not be made any more, right before it is begun.

    The snapshot may be of the source and the target alone; what runs elsewhere is then asked by others.
    `reservations` may hold the whole plan: this move is left out, and so is what has arrived.
    """
    others = [r for r in reservations if r.vm != move.vm]
    planner = _Planner(snapshot, inventory, {move.source}, cordoned, overrides, others)
    facts = planner.census.facts.get(move.source)
    domain = None if facts is None else facts.domain(move.vm)
    if domain is None or not domain.running:
        return (Refusal(move.vm.name, move.source, "does not run it any more"),)
    vm = subject(planner.census, domain)
    need = planner.needs_from([vm], (move.target,))[domain]
    found = refusals_for_vm(planner.census, vm, planner.terms.overrides)
    return tuple(dict.fromkeys((*found, *planner.against(vm, need, move.target, planner.rooms()))))


def _or_rather(near: str) -> str:
    return f"; did you mean {near}?" if near else ""


def _chosen(name: str, only: Collection[str], exclude: Collection[str]) -> bool:
    return (not only or named(name, only)) and not named(name, exclude)


@dataclass
class _Planner:
    """What planning needs to look at, read from one snapshot for one command."""

    snapshot: Snapshot
    inventory: Inventory
    sources: Collection[str]
    cordoned: Collection[str] | None
    overrides: Collection[str]
    reservations: Sequence[Move]

    def __post_init__(self) -> None:
        self.census = Census(self.snapshot)
        self.apart = ApartRules({} if IGNORE_APART in self.overrides else self.inventory.apart)
        self.terms = Terms(
            cordoned=frozenset(self.snapshot.cordons() if self.cordoned is None else self.cordoned),
            sources=frozenset(self.sources),
            overrides=frozenset(self.overrides),
        )

    def plan(
        self, domains: Iterable[Domain], to: Collection[str], refusals: list[Refusal], timeout: float | None
    ) -> Plan:
        vms = [subject(self.census, d) for d in sorted(domains, key=lambda d: (d.host, d.vm.name, d.vm.uuid))]
        needs = self.needs_from(vms, to)
        against = {vm.domain: refusals_for_vm(self.census, vm, self.terms.overrides) for vm in vms}
        placement = place([needs[vm.domain] for vm in vms if not against[vm.domain]], self.rooms().values())
        moves = []
        for vm in vms:
            domain = vm.domain
            target = "" if against[domain] else placement.placed.get(domain.vm, "")
            if target:
                seconds = self.inventory.timeout_of(domain.vm.name) if timeout is None else timeout
                moves.append(Move(domain.vm, domain.host, target, vm.memory_kib, seconds))
                continue
            refusals += against[domain]
            # A VM that may not move at all is still told what is wrong with targets that were asked for.
            if to or not against[domain]:
                refusals += self._no_target(vm, needs[domain], to, placement.rooms, bool(against[domain]))
        return Plan(tuple(moves), tuple(dict.fromkeys(refusals)))

    def _no_target(
        self,
        vm: Subject,
        need: VmNeed,
        to: Collection[str],
        rooms: Mapping[str, HostRoom],
        refused_anyway: bool,
    ) -> list[Refusal]:
        candidates = sorted(set(to) or self.snapshot.hosts.keys() - {vm.domain.host})
        found = [self.against(vm, need, target, rooms) for target in candidates]
        if not candidates:
            return [vm.refusal("there is no other host")]
        if refused_anyway and not all(found):
            return []
        return [refusal for refusals in found for refusal in refusals]

    def against(
        self, vm: Subject, need: VmNeed, target: str, rooms: Mapping[str, HostRoom]
    ) -> tuple[Refusal, ...]:
        return refusals_for_target(self.census, Trial(vm, target, need, rooms.get(target), self.terms))

    def needs_from(self, vms: Iterable[Subject], to: Collection[str]) -> dict[Domain, VmNeed]:
        """What each VM asks of its target; `to` limits the targets unless it is empty."""
        return {
            vm.domain: VmNeed(
                vm=vm.domain.vm,
                source=vm.domain.host,
                memory_kib=vm.memory_kib,
                needs=needs_of(vm, self.terms.overrides),
                apart=self.apart.of(vm.domain.vm.name),
                targets=frozenset(to) or None,
                barred=barred_hosts(self.census, vm),
            )
            for vm in vms
        }

    def rooms(self) -> dict[str, HostRoom]:
        """What each host that answered offers, less what `reservations` keep."""
        rooms = {}
        arriving: dict[str, list[Move]] = {}
        for move in self.reservations:
            arriving.setdefault(move.target, []).append(move)
        for name, facts in self.census.facts.items():
            if name in self.census.unsure:
                continue
            active = [d for d in facts.domains if d.running]
            there = {d.vm.uuid for d in active}
            coming = [m for m in arriving.get(name, ()) if m.vm.uuid not in there]
            names = {d.vm.name for d in active} | {p.name for p in facts.processes}
            host = self.inventory.hosts.get(name)
            reserve = 0 if host is None else host.reserve_kib
            reserved = sum(m.memory_kib for m in coming)
            without = free_memory_kib(facts, 0, reserved)
            free = without if IGNORE_RESERVE in self.overrides else free_memory_kib(facts, reserve, reserved)
            rooms[name] = HostRoom(
                name=name,
                free_kib=free,
                total_kib=facts.memory_total_kib,
                features=features_of(facts),
                apart=frozenset().union(*(self.apart.of(n) for n in names | {m.vm.name for m in coming})),
                accepting=name not in self.terms.cordoned and name not in self.terms.sources,
                withheld_kib=without - free,
            )
        return rooms

    def mistyped(self, *patterns: Collection[str]) -> list[Refusal]:
        """Names and patterns that mean no VM of the cluster."""
        names = {d.vm.name for d in self.snapshot.domains()}
        return [
            Refusal(pattern, "", "no host defines a VM of this name" + _or_rather(nearest(pattern, names)))
            for pattern in sorted({p for group in patterns for p in group})
            if pattern not in names and not any(named(n, (pattern,)) for n in names)
        ]

    def strays(self, source: str, only: Collection[str], exclude: Collection[str]) -> list[Refusal]:
        """qemu processes on a source that libvirt cannot shut down, as it does not list them."""
        return [
            Refusal(
                p.name or f"qemu process {p.pid}",
                source,
                f"qemu process {p.pid} runs, but libvirt does not list it as active: end it by hand",
            )
            for p in self.census.stray_processes(source)
            if _chosen(p.name, only, exclude)
        ]
