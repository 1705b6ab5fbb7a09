"""Where VMs are to start, and every reason against it. Read off a snapshot; nothing is changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tasks.cluster import domainxml
from tasks.cluster.errors import Refused
from tasks.cluster.model import Domain, Evidence, HostFacts, Inventory, Refusal, Snapshot, Vm, evidence_of
from tasks.cluster.planning.census import ApartRules, Census
from tasks.cluster.planning.eligibility import media_left_behind, ties
from tasks.cluster.planning.overrides import (
    ALLOW_MACVTAP,
    IGNORE_APART,
    IGNORE_CORDON,
    IGNORE_RESERVE,
)
from tasks.cluster.planning.subject import Subject, kept, store_problem, subject, unanswered
from tasks.cluster.planning.targets import features_of, free_memory_kib, needs_of, size
from tasks.cluster.vm.home import Home, definitions, home_of, ran_later_elsewhere


@dataclass(frozen=True, slots=True)
class Start:
    """One VM to start on `host`, and why there.

    `images` are all that any of its definitions may write. `xml` is the definition that the host lacks, empty
    when it has its own; `source` is where that comes from. `noted` are (host, name) of the entries in
    running_vms that would start it, or another VM that writes one of its images, after a reboot.
    """

    vm: Vm
    host: str
    why: str
    images: frozenset[str]
    xml: str = field(default="", repr=False)
    source: str = ""
    noted: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StartPlan:
    """Each VM is in `starts`, in `already` (with its host), or in `refusals`."""

    starts: tuple[Start, ...]
    already: tuple[tuple[Vm, str], ...]
    refusals: tuple[Refusal, ...]


def plan_starts(
    snapshot: Snapshot,
    inventory: Inventory,
    vms: Sequence[Vm],
    hosts: Sequence[str] = (),
    overrides: Collection[str] = (),
) -> StartPlan:
    """Choose the host for each VM; `hosts` limits the choice, and one host alone is the choice.

    A VM that a single named host does not define takes its definition along from its home. The snapshot must
    have been made for planning, of all hosts.
    """
    planner = _Planner(snapshot, inventory, tuple(hosts), frozenset(overrides))
    for vm in vms:
        planner.add(vm)
    return StartPlan(tuple(planner.starts), tuple(planner.already), tuple(dict.fromkeys(planner.refusals)))


class _Planner:
    def __init__(
        self, snapshot: Snapshot, inventory: Inventory, hosts: tuple[str, ...], overrides: frozenset[str]
    ) -> None:
        self._snapshot = snapshot
        self._inventory = inventory
        self._hosts = hosts
        self._overrides = overrides
        self._census = Census(snapshot)
        self._cordons = snapshot.cordons()
        self._apart = ApartRules(inventory.apart)
        self._promised: dict[str, int] = defaultdict(int)
        self._joined: dict[str, set[str]] = defaultdict(set)
        self._images: dict[str, str] = {}
        self.starts: list[Start] = []
        self.already: list[tuple[Vm, str]] = []
        self.refusals: list[Refusal] = []

    def add(self, vm: Vm) -> None:
        """Put the VM in one of the three lists."""
        images = self._snapshot.images_of(vm)
        seen = self._evidence(vm, images)
        where = self._snapshot.where_running(vm)
        if where and {e.host for e in seen} == {where[0].host} and len(where) == 1:
            self._runs(vm, where[0])
            return
        found = [Refusal(vm.name, e.host, f"it is not off: {e.what}") for e in seen]
        found += [Refusal(vm.name, s.host, unanswered(s.reason)) for s in self._census.unsure.values()]
        chosen: Start | None = None
        if not seen:
            try:
                chosen = self._choose(vm, images, found)
            except Refused as error:
                found.append(Refusal(vm.name, "", str(error)))
        reasons = kept(found, self._overrides)
        self.refusals += reasons
        if chosen is not None and not reasons:
            self.starts.append(chosen)
            self._images.update(dict.fromkeys(images, vm.name))

    def _evidence(self, vm: Vm, images: frozenset[str]) -> list[Evidence]:
        unsure = self._census.unsure
        return [e for f in self._snapshot.facts() if f.host not in unsure for e in evidence_of(vm, images, f)]

    def _runs(self, vm: Vm, domain: Domain) -> None:
        """It runs on exactly one host: fine there, and a refusal when another one was wished."""
        if self._hosts and domain.host not in self._hosts:
            reason = f"it runs there, not on {' or '.join(self._hosts)} (fab migrate moves it)"
            self.refusals.append(Refusal(vm.name, domain.host, reason))
        elif domain.state not in ("running", "idle"):
            self.refusals.append(Refusal(vm.name, domain.host, f"it is {domain.state} there, not off"))
        else:
            self.already.append((vm, domain.host))

    def _choose(self, vm: Vm, images: frozenset[str], found: list[Refusal]) -> Start | None:
        """The start that is meant; what is against it goes into `found`. Raises Refused without a home."""
        only = self._hosts[0] if len(self._hosts) == 1 else ""
        if only in self._census.unsure:
            return None
        taken_along = bool(only) and not definitions(self._snapshot, vm, (only,))
        home = home_of(self._snapshot, vm, () if taken_along else self._hosts)
        host = only if taken_along else home.host
        source = next(d for d in definitions(self._snapshot, vm) if d.host == home.host)
        this = subject(self._census, source)
        found += self._against_host(vm, this, host)
        found += self._against_images(vm, images)
        xml = ""
        if taken_along:
            found += ties(self._census, this, self._overrides)
            if this.xml is not None:
                xml = domainxml.for_target(source.xml, media_left_behind(this))
            why = f"chosen; takes its definition along from {home.host}"
        else:
            found += _missing(this)
            why = "chosen" if only else home.why
        self._promised[host] += this.memory_kib
        self._joined[host].add(vm.name)
        return Start(
            vm,
            host,
            why,
            images,
            xml,
            source=home.host if taken_along else "",
            noted=self._noted(vm, images, host),
            warnings=tuple(self._warnings(vm, Home(host, why), source)),
        )

    def _noted(self, vm: Vm, images: frozenset[str], host: str) -> tuple[tuple[str, str], ...]:
        """What running_vms of any host names and must not start while the VM runs on `host`."""
        users = {vm.name, *(other.vm.name for other in self._census.sharers(vm, images))}
        return tuple(
            (facts.host, name)
            for facts in self._snapshot.facts()
            for name in facts.running_vms or ()
            if name in users and (facts.host, name) != (host, vm.name)
        )

    def _against_host(self, vm: Vm, this: Subject, host: str) -> Iterator[Refusal]:
        facts = self._census.facts[host]
        if host in self._cordons:
            cordon = self._cordons[host]
            because = f": {cordon.why}" if cordon.why else ""
            yield Refusal(vm.name, host, f"is cordoned by {cordon.by}{because}", IGNORE_CORDON)
        if problem := store_problem(facts.store):
            yield Refusal(vm.name, host, problem)
        if this.xml is None:
            yield Refusal(vm.name, this.domain.host, f"its definition cannot be read: {this.why}")
        # libvirt itself says, without harm, whether a network device for macvtap is there.
        for feature in sorted(needs_of(this, (ALLOW_MACVTAP,)) - features_of(facts)):
            if not feature.startswith("store "):
                yield Refusal(vm.name, host, f"has no {feature}")
            elif not store_problem(facts.store) and this.facts.store.store_id:
                yield Refusal(vm.name, host, f"has another store mounted than {this.domain.host}")
        for other in self._census.definitions(vm):
            if other.host == host and other.vm != vm:
                reason = f"defines another VM, {other.vm.name!r} with UUID {other.vm.uuid}"
                yield Refusal(vm.name, host, reason)
        yield from self._against_saved(vm, host)
        yield from self._against_room(vm, this.memory_kib, facts)

    def _against_saved(self, vm: Vm, host: str) -> Iterator[Refusal]:
        """A start from a managed save is right only where the VM was saved, and when nothing ran since."""
        for domain in definitions(self._snapshot, vm):
            if not domain.managed_save:
                continue
            if domain.host != host:
                reason = "has a managed save of it: its memory is there (virsh managedsave-remove drops it)"
                yield Refusal(vm.name, domain.host, reason)
            elif later := ran_later_elsewhere(self._snapshot, domain):
                reason = (
                    f"has a managed save of it, but it ran later on {later}: old memory over a newer disk "
                    "(virsh managedsave-remove drops it)"
                )
                yield Refusal(vm.name, host, reason)

    def _against_room(self, vm: Vm, memory_kib: int, facts: HostFacts) -> Iterator[Refusal]:
        host = facts.host
        reserve = self._inventory.hosts[host].reserve_kib
        without = free_memory_kib(facts, 0, self._promised[host])
        kept_free = free_memory_kib(facts, reserve, self._promised[host])
        free = without if IGNORE_RESERVE in self._overrides else kept_free
        if memory_kib > free:
            flag = IGNORE_RESERVE if memory_kib <= without else ""
            reason = f"has {size(max(0, free))} of memory left for VMs, it needs {size(memory_kib)}"
            yield Refusal(vm.name, host, reason, flag)
        there = {d.vm.name for d in facts.domains if d.running} | self._joined[host]
        for rule in sorted(self._apart.of(vm.name)):
            for name in sorted(there - {vm.name}):
                if rule in self._apart.of(name):
                    yield Refusal(vm.name, host, f"has {name}, which rule {rule!r} keeps apart", IGNORE_APART)

    def _against_images(self, vm: Vm, images: Iterable[str]) -> Iterator[Refusal]:
        for name in sorted({self._images[key] for key in images if key in self._images}):
            yield Refusal(vm.name, "", f"it writes an image of {name}, which is to start as well")

    def _warnings(self, vm: Vm, home: Home, source: Domain) -> Iterator[str]:
        for other in definitions(self._snapshot, vm):
            if other.host == home.host:
                continue
            if other.autostart:
                yield f"libvirt on {other.host} starts it by itself at boot (virsh autostart --disable)"
            if other.xml and source.xml and home.host == source.host and _differ(other.xml, source.xml):
                yield f"its definitions on {home.host} and {other.host} differ; that of {home.host} is used"


def _missing(this: Subject) -> Iterator[Refusal]:
    """Images that are not there; libvirt would say so one at a time."""
    if this.xml is None or store_problem(this.facts.store):
        return
    for disk in this.xml.disks:
        if disk.source is None or not disk.source.path or disk.removable:
            continue
        file = this.facts.files.get(disk.source.path)
        if file is not None and not file.exists:
            yield this.refusal(f"{disk} does not exist")


def _differ(one: str, two: str) -> bool:
    try:
        return domainxml.canonical(one) != domainxml.canonical(two)
    except ValueError:
        return True
