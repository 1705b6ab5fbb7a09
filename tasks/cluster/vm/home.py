"""Where a VM that is off belongs: the host that ran it last, or the only one that defines it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.cluster.errors import Refused
from tasks.cluster.model import Domain, HostFacts, Snapshot, Vm

#: Traces of two hosts that are nearer to each other than this do not tell which is the newer one, seconds.
CLOSE = 1.0


@dataclass(frozen=True, slots=True)
class Home:
    """A host, and in words why it is this one."""

    host: str
    why: str


def definitions(snapshot: Snapshot, vm: Vm, hosts: Collection[str] = ()) -> tuple[Domain, ...]:
    """The VM's definitions by its UUID, in the inventory's order; with `hosts` only theirs."""
    return tuple(d for d in snapshot.domains() if d.vm.uuid == vm.uuid and (not hosts or d.host in hosts))


def home_of(snapshot: Snapshot, vm: Vm, hosts: Collection[str] = ()) -> Home:
    """The host on which the VM is to start, among `hosts` if any are given.

    In this order: the only host that defines it; of several the only one whose /root/running_vms names it;
    the one with the newest trace of it. Raises Refused, naming the candidates, when none of these tells.
    """
    found = definitions(snapshot, vm, hosts)
    if not found:
        where = f" on {', '.join(hosts)}" if hosts else ""
        raise Refused(f"{vm.name} is not defined{where}.")
    if len(found) == 1:
        return Home(found[0].host, "the only host that defines it")
    noted = [d.host for d in found if vm.name in (_facts(snapshot, d.host).running_vms or ())]
    if len(noted) == 1:
        return Home(noted[0], "its /root/running_vms names it")
    newest = _newest([d for d in found if d.host in noted] or found, snapshot)
    if newest:
        return Home(newest, "it ran there last")
    names = ", ".join(d.host for d in found)
    raise Refused(
        f"{vm.name} is defined on {names}, and nothing tells where it ran last.",
        f"Choose one: fab -H {found[0].host} ...",
    )


def ran_later_elsewhere(snapshot: Snapshot, domain: Domain) -> str:
    """A host with a newer trace of the VM than `domain`'s own host has; empty when there is none."""
    others = [d for d in definitions(snapshot, domain.vm) if d.host != domain.host]
    newest = _newest([domain, *others], snapshot)
    return newest if newest != domain.host else ""


def _newest(found: Iterable[Domain], snapshot: Snapshot) -> str:
    """The host with the newest trace by a clear margin. Ages are taken by each host's own clock."""
    ages = sorted((_facts(snapshot, d.host).at - d.last_ran, d.host) for d in found if d.last_ran is not None)
    if not ages or (len(ages) > 1 and ages[1][0] - ages[0][0] < CLOSE):
        return ""
    return ages[0][1]


def _facts(snapshot: Snapshot, host: str) -> HostFacts:
    facts = snapshot.hosts[host]
    if not isinstance(facts, HostFacts):
        raise ValueError(f"{host} did not answer")
    return facts
