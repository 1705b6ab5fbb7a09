"""host.guard at the operator's surface: plans, questions, what was done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tasks.cli import settingup
from tasks.cli.context import Operator
from tasks.cli.text import DRY
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostError, Refused, Unknown
from tasks.cluster.inventory.check import VMHOSTS
from tasks.cluster.model import Inventory, Silent, Snapshot
from tasks.cluster.setup import adoption, guard
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.adoption import Adoption
from tasks.cluster.setup.steps import Plan


def install(op: Operator, *, dry_run: bool) -> int:
    """Install the guard on the operator's hosts, and adopt the VMs that run there."""
    with op.session() as session:
        adoptions = _adoptions(op, session)
        plans = _plans(op, session, guard.plan, whole=dry_run)
        _show_adoptions(op, adoptions)
        todo = [plan for plan in plans if plan.changes]
        wanted = [one for one in adoptions if one.result == "adopt"]
        if dry_run:
            op.say(DRY)
        if dry_run or not (todo or wanted):
            return _code(adoptions)
        where = f"Change {', '.join(plan.host for plan in todo)}" if todo else "Write owner files"
        op.confirm(f"{where}?")
        _apply(op, session, todo, "guarded")
        for one in _adoptions(op, session, acted=True) if todo else adoptions:
            _adopt(op, session, one)
        after = _adoptions(op, session, acted=True)
        _show_adoptions(op, [one for one in after if one.result != "owned"])
        return 1 if any(one.result != "owned" for one in after) else 0


def remove(op: Operator, *, dry_run: bool) -> int:
    """Take the guard away from the operator's hosts."""
    with op.session() as session:
        todo = [plan for plan in _plans(op, session, guard.plan_removal, whole=dry_run) if plan.changes]
        if dry_run:
            op.say(DRY)
        if dry_run or not todo:
            return 0
        names = ", ".join(plan.host for plan in todo)
        op.confirm(f"Remove the guard from {names}? Nothing keeps its VMs from being started elsewhere then.")
        _apply(op, session, todo, "without the guard")
        return 0


def _plans(
    op: Operator, session: Session, look: Callable[[HostOps, Inventory], Plan], *, whole: bool
) -> list[Plan]:
    """Look at all hosts of -H, and show what is to be done on each."""
    plans = []
    for host in op.hosts:
        with session.using(host) as ops:
            plans.append(look(ops, op.inventory))
    for plan in plans:
        if plan.changes:
            settingup.show(op, plan, whole=whole)
        else:
            op.say(f"{plan.host}: already so")
    return plans


def _apply(op: Operator, session: Session, plans: Sequence[Plan], outcome: str) -> None:
    for plan in plans:
        with session.using(plan.host) as ops:
            hostsetup.apply(ops, plan, partial(settingup.tell, op, plan.host))
        op.say(f"{plan.host}: {outcome}", "green")


def note_unguarded(op: Operator, snapshot: Snapshot) -> None:
    """Say that there are hosts on which nothing keeps a hand-typed start from being a second one."""
    names = snapshot.unguarded()
    if names:
        everywhere = len(names) > 1 and len(names) == len(snapshot.hosts)
        op.say(f"! No guard on {'any host' if everywhere else ', '.join(names)}.", "yellow")
        where = VMHOSTS if everywhere else ",".join(names)
        op.say(f"  A virsh start typed there asks nobody. To install it:\n    fab -H {where} host.guard")


def note_outdated(op: Operator, snapshot: Snapshot) -> None:
    """Say on which hosts another guard stands than host.guard would install now."""
    names = [f.host for f in snapshot.facts() if guard.state_on(f, op.inventory) == "outdated"]
    if names:
        op.say(f"! Another guard than this vmfab's on {', '.join(names)}.", "yellow")
        op.say(f"  It holds, but lacks what is new, or was edited: fab -H {','.join(names)} host.guard")


def _observe(op: Operator, session: Session, *, acted: bool = False) -> Snapshot:
    """The cluster. Raises Refused, or Unknown once something was changed, unless the hosts of -H are well."""
    snapshot = session.observe(plan=True)
    for host in op.hosts:
        seen = snapshot.hosts[host]
        if isinstance(seen, Silent):
            problem, hint = f"does not answer: {seen.reason}", seen.hint
        else:
            problem, hint = seen.libvirt_problem or seen.store.problem, ""
        if problem and acted:
            raise Unknown(f"{host}: {problem}.", "Run it again: what is done already is left alone.")
        if problem:
            raise Refused(f"{host}: {problem}.", hint or "Nothing was changed.")
    return snapshot


def _adoptions(op: Operator, session: Session, *, acted: bool = False) -> tuple[Adoption, ...]:
    snapshot = _observe(op, session, acted=acted)
    return adoption.plan(snapshot, adoption.look(session, snapshot), op.hosts)


def _show_adoptions(op: Operator, adoptions: Sequence[Adoption]) -> None:
    owned = 0
    for one in adoptions:
        vm, host = one.running.vm.name, one.running.host
        if one.result == "owned":
            owned += 1
        elif one.result == "adopt":
            op.say(f"{vm} runs on {host}: to be noted as its owner" + (f"; {one.why}" if one.why else ""))
        else:
            op.warn(f"{vm} runs on {host} and cannot be noted as owned by it: {one.why}.")
    if owned:
        op.say(f"{owned} running VM{'s have' if owned > 1 else ' has'} owner files already")


def _adopt(op: Operator, session: Session, one: Adoption) -> None:
    if one.result != "adopt":
        return
    try:
        adoption.carry_out(session, one)
    except HostError as error:
        op.warn(f"{one.running.vm.name}: {error.detail}")
    else:
        op.say(f"{one.running.vm.name}: {one.running.host} is noted as its owner")


def _code(adoptions: Sequence[Adoption]) -> int:
    return 1 if any(one.result == "conflict" for one in adoptions) else 0
