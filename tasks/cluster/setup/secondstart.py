"""What a host's next boot would start although it runs elsewhere: refused before it can come to that."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostSilent, Refused
from tasks.cluster.model import Domain, HostFacts, Silent, Snapshot
from tasks.cluster.setup import adoption
from tasks.cluster.setup.guard import RUNNING_VMS
from tasks.cluster.setup.steps import AlreadySo, Finding


def refuse(session: Session, host: str) -> None:
    """Raise Refused when a boot of the host would start a VM that another host runs, with nothing in its way.

    That happens to a list that was kept by hand, with a VM that was moved by hand to a host without the
    guard: no owner file tells this host's guard of it. Raises HostSilent when the host does not answer.
    """
    snapshot = session.observe()
    elsewhere = _elsewhere(_facts(snapshot, host), snapshot)
    if not elsewhere:
        return
    snapshot = session.observe(plan=True)
    mine = _facts(snapshot, host)
    elsewhere = _elsewhere(mine, snapshot)
    owned = _owned(session, snapshot, {domain.host for domain in elsewhere}) if mine.guarded else set()
    for domain in elsewhere:
        if (domain.host, domain.vm.uuid) not in owned:
            raise Refused(
                f"{RUNNING_VMS} on {host} names {domain.vm.name}, which runs on {domain.host}: a reboot"
                f" of {host} would start it a second time.",
                f"fab -H {host} host.save-running makes the file true.",
            )


@dataclass(frozen=True, slots=True)
class StartsNothingElsewhere:
    """No VM that runs on another host is started by the host's next boot."""

    session: Session

    def look(self, ops: HostOps) -> Finding:
        refuse(self.session, ops.host)
        return AlreadySo(RUNNING_VMS, "names nothing that another host runs")


def _facts(snapshot: Snapshot, host: str) -> HostFacts:
    seen = snapshot.hosts[host]
    if isinstance(seen, Silent):
        raise HostSilent(seen.host, seen.reason, seen.hint, alive=seen.alive)
    return seen


def _elsewhere(mine: HostFacts, snapshot: Snapshot) -> tuple[Domain, ...]:
    """What other hosts run of that which the host notes and does not run, by name or by its definition."""
    running = {domain.vm.name for domain in mine.domains if domain.running}
    noted = set(mine.running_vms or ()) - running
    uuids = {domain.vm.uuid for domain in mine.domains if domain.vm.name in noted}
    return tuple(
        domain
        for domain in snapshot.running()
        if domain.host != mine.host and (domain.vm.name in noted or domain.vm.uuid in uuids)
    )


def _owned(session: Session, snapshot: Snapshot, hosts: set[str]) -> set[tuple[str, str]]:
    """The VMs whose owner files name the host that runs them: the guard refuses them everywhere else."""
    found = adoption.plan(snapshot, adoption.look(session, snapshot), sorted(hosts))
    return {(one.running.host, one.running.vm.uuid) for one in found if one.result == "owned"}
