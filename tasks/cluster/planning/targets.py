"""Whether one host may take one VM: every reason against it, as full as the host is with the plan so far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from tasks.cluster.model import HostFacts, Refusal
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.overrides import ALLOW_MACVTAP, IGNORE_APART, IGNORE_RESERVE
from tasks.cluster.planning.rooms import HostRoom, VmNeed
from tasks.cluster.planning.subject import Subject, Terms, kept, store_problem, unanswered


def free_memory_kib(facts: HostFacts, reserve_kib: int, reserved_kib: int = 0) -> int:
    """Memory of a host that VMs may still be planned into, KiB; negative when it is overcommitted already.

    The smaller of two answers, less what is promised to moves that have not arrived (`reserved_kib`):

    - what is not promised: the host's memory less the reserve and the full memory of all active VMs.
      A balloon that is inflated, or pages a guest has not yet touched, do not count as free, because the
      guest may want them back at any time. Hosts are never overcommitted by a plan.
    - what is there: MemAvailable. It is smaller when the host itself uses more than its reserve. The reserve
      is not taken off again, as the host's own use is already out of it.

    QEMU's own overhead (some 100 MiB a VM) has to come out of the reserve.
    """
    promised = sum(d.memory_kib for d in facts.domains if d.running)
    unpromised = facts.memory_total_kib - reserve_kib - promised
    return min(unpromised, facts.memory_available_kib) - reserved_kib


def features_of(facts: HostFacts) -> frozenset[str]:
    """What a host has that a VM may need. Names are such that "has no NAME" is a sentence."""
    found = {f"machine type {m}" for m in facts.machines}
    found |= {f"bridge {b}" for b in facts.bridges} | {f"network {n}" for n in facts.networks}
    found |= {f"network device {b}" for b in facts.bridges}
    if not store_problem(facts.store):
        found.add(f"store {facts.store.store_id}")
    return frozenset(found)


def needs_of(vm: Subject, overrides: Collection[str]) -> frozenset[str]:
    """The features that a VM's target must have."""
    found = {f"store {vm.facts.store.store_id}"}
    if vm.xml is not None:
        found |= {f"bridge {b}" for b in vm.xml.bridges} | {f"network {n}" for n in vm.xml.networks}
        if vm.xml.machine:
            found.add(f"machine type {vm.xml.arch}/{vm.xml.machine}")
        if ALLOW_MACVTAP not in overrides:
            found |= {f"network device {d}" for d in vm.xml.direct}
    return frozenset(found)


@dataclass(frozen=True, slots=True)
class Trial:
    """One VM at one target. `need` and `room` are what the packing sees; None for a host that is unsure."""

    vm: Subject
    target: str
    need: VmNeed
    room: HostRoom | None
    terms: Terms

    def refusal(self, reason: str, flag: str = "") -> Refusal:
        return Refusal(self.vm.domain.vm.name, self.target, reason, flag)


def _known(census: Census, trial: Trial) -> Iterator[Refusal]:
    if trial.target not in census.snapshot.hosts:
        yield trial.refusal("is not a host of the inventory")
    elif trial.target in census.unsure:
        yield trial.refusal(unanswered(census.unsure[trial.target].reason))


def _open(census: Census, trial: Trial) -> Iterator[Refusal]:
    if trial.target == trial.vm.domain.host:
        yield trial.refusal("runs it already")
    elif trial.target in trial.terms.sources:
        yield trial.refusal("is to be emptied by the same command")
    if trial.target in trial.terms.cordoned:
        yield trial.refusal("is cordoned")


def _features(census: Census, trial: Trial) -> Iterator[Refusal]:
    facts = census.facts.get(trial.target)
    if facts is None or trial.room is None:
        return
    for feature in sorted(trial.need.needs - trial.room.features):
        if not feature.startswith("store "):
            flag = ALLOW_MACVTAP if feature.startswith("network device ") else ""
            yield trial.refusal(f"has no {feature}", flag)
        elif problem := store_problem(facts.store):
            yield trial.refusal(problem)
        elif trial.vm.facts.store.store_id:
            source = trial.vm.domain.host
            yield trial.refusal(f"{facts.store.mount} is another store than the one on {source}")


def _conflict(census: Census, trial: Trial) -> Iterator[Refusal]:
    vm = trial.vm.domain.vm
    for other in census.definitions(vm):
        if other.host != trial.target or other.vm == vm:
            continue
        if other.vm.name == vm.name:
            yield trial.refusal(f"defines another VM of this name (UUID {other.vm.uuid})")
        else:
            yield trial.refusal(f"defines the same UUID as {other.vm.name!r}")


def _memory(census: Census, trial: Trial) -> Iterator[Refusal]:
    room, needed = trial.room, trial.need.memory_kib
    if room is None or needed <= room.free_kib:
        return
    fits_without_reserve = needed <= room.free_kib + room.withheld_kib
    yield trial.refusal(
        f"has {size(max(0, room.free_kib))} of memory left for VMs, it needs {size(needed)}",
        IGNORE_RESERVE if fits_without_reserve else "",
    )


def _apart(census: Census, trial: Trial) -> Iterator[Refusal]:
    for rule in sorted(trial.need.apart & trial.room.apart) if trial.room else ():
        yield trial.refusal(f"has or gets another VM that rule {rule!r} keeps apart from it", IGNORE_APART)


TargetFilter = Callable[[Census, Trial], Iterable[Refusal]]
TARGET_FILTERS: tuple[TargetFilter, ...] = (_known, _open, _features, _conflict, _memory, _apart)


def refusals_for_target(census: Census, trial: Trial) -> tuple[Refusal, ...]:
    """Every reason why this host cannot take the VM, as the host is filled in `trial.room`."""
    found = (r for target_filter in TARGET_FILTERS for r in target_filter(census, trial))
    return kept(found, trial.terms.overrides)


def barred_hosts(census: Census, vm: Subject) -> frozenset[str]:
    """Hosts that hold a definition in conflict with the VM's."""
    mine = vm.domain.vm
    return frozenset(d.host for d in census.definitions(mine) if d.vm != mine)


def size(kib: int) -> str:
    """Memory as an operator reads it."""
    return f"{kib / (1 << 20):.1f} GiB" if kib >= 10 << 20 else f"{kib / 1024:.0f} MiB"
