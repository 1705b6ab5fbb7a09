"""Which VMs are to be stopped or rebooted, where, and every reason against it. Nothing is changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tasks.cluster import domainxml
from tasks.cluster.model import Domain, HostFacts, Refusal, Snapshot, Vm, evidence_of
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.eligibility import REMEDIES
from tasks.cluster.planning.subject import unanswered


class Verb(Enum):
    """What is to be done with a running VM."""

    SHUTDOWN = "shutdown"
    DESTROY = "destroy"
    REBOOT = "reboot"


@dataclass(frozen=True, slots=True)
class Stop:
    """One running VM on one host.

    `proof` are the hosts that must show no trace of it afterwards; `noted_on` those whose running_vms names
    it; `transient` means that its definition is gone once it is off.
    """

    vm: Vm
    host: str
    state: str
    images: frozenset[str]
    proof: tuple[str, ...]
    noted_on: tuple[str, ...]
    transient: bool = False


@dataclass(frozen=True, slots=True)
class StopPlan:
    """Each VM is in `stops`, in `off` (nothing runs it), or in `refusals`."""

    stops: tuple[Stop, ...]
    off: tuple[Vm, ...]
    refusals: tuple[Refusal, ...]


def plan_stops(snapshot: Snapshot, vms: Sequence[Vm], verb: Verb, hosts: Sequence[str] = ()) -> StopPlan:
    """Find where each VM runs; `hosts` limits that, and what is then proved, to these hosts.

    The snapshot must have been made for planning, of all hosts.
    """
    stops: list[Stop] = []
    off: list[Vm] = []
    refusals: list[Refusal] = []
    concerned = tuple(hosts) or tuple(snapshot.hosts)
    for vm in vms:
        running = [d for d in snapshot.where_running(vm) if d.host in concerned]
        found = _against(snapshot, vm, running, verb, concerned)
        if found:
            refusals += found
        elif running:
            stops.append(_stop(snapshot, running[0], concerned))
        else:
            off.append(vm)
    return StopPlan(tuple(stops), tuple(off), tuple(refusals))


def _stop(snapshot: Snapshot, domain: Domain, concerned: Sequence[str]) -> Stop:
    noted = (f.host for f in snapshot.facts() if domain.vm.name in (f.running_vms or ()))
    return Stop(
        domain.vm,
        domain.host,
        domain.state,
        domain.images,
        proof=tuple(concerned),
        noted_on=tuple(name for name in noted if name in concerned),
        transient=not domain.persistent,
    )


def _against(
    snapshot: Snapshot, vm: Vm, running: Sequence[Domain], verb: Verb, concerned: Sequence[str]
) -> list[Refusal]:
    census = Census(snapshot)
    if len(running) > 1:
        return [
            Refusal(vm.name, d.host, f"it is {d.state} there, and on another host too: choose one with -H")
            for d in running
        ]
    if not running:
        # Off is a claim: every host that is concerned has to make it.
        unsure = [s for s in census.unsure.values() if s.host in concerned]
        found = [Refusal(vm.name, s.host, unanswered(s.reason)) for s in unsure]
        found += [
            Refusal(vm.name, e.host, f"{e.what}, yet libvirt does not list it as active: end it by hand")
            for host in concerned
            if isinstance(facts := snapshot.hosts[host], HostFacts) and host not in census.unsure
            for e in evidence_of(vm, frozenset(), facts)
        ]
        return found
    return [Refusal(vm.name, running[0].host, reason) for reason in _against_state(running[0], verb)]


def _against_state(domain: Domain, verb: Verb) -> list[str]:
    """What keeps a guest in this state, or with this configuration, from doing as it is asked."""
    if verb is Verb.DESTROY or (verb is Verb.SHUTDOWN and domain.state == "in shutdown"):
        return []
    reasons = []
    if domain.state not in ("running", "idle"):
        remedy = REMEDIES.get(domain.state, "bring it to a known state first")
        reasons.append(f"it is {domain.state} and does not react: {remedy}")
    if verb is Verb.REBOOT and domain.live_xml:
        action = domainxml.parse(domain.live_xml).on_reboot
        if action not in ("restart", "rename-restart"):
            reasons.append(f"on_reboot is {action}: a reboot would end it; use vm.shutdown and vm.start")
    return reasons
