"""host.guard at the operator's surface: plans, questions, what was done."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.cli.context import Operator
from tasks.cli.text import clean
from tasks.cluster import adoption, guard
from tasks.cluster.adoption import Adoption
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, Refused, Unknown
from tasks.cluster.guard import GuardPlan
from tasks.cluster.model import Silent, Snapshot
from tasks.cluster.session import Session


def install(op: Operator, *, dry_run: bool) -> int:
    """Install the guard on the operator's hosts, and adopt the VMs that run there."""
    with op.session() as session:
        adoptions = _adoptions(op, session)
        plans = [_planned(session, host) for host in op.hosts]
        for plan in plans:
            show(op, plan)
        _show_adoptions(op, adoptions)
        todo = [plan for plan in plans if not plan.same]
        wanted = [one for one in adoptions if one.result == "adopt"]
        if dry_run or not (todo or wanted):
            return _code(adoptions)
        where = f"Change {', '.join(plan.host for plan in todo)}" if todo else "Write owner files"
        op.confirm(f"{where}?")
        for plan in todo:
            guard.carry_out(session, plan, clock=Clock())
            op.say(f"{plan.host}: changed")
        for one in _adoptions(op, session, acted=True) if todo else adoptions:
            _adopt(op, session, one)
        left = [host for host in op.hosts if not _planned(session, host).same]
        if left:
            raise Failed(f"The guard is still not as it should be on {', '.join(left)}.", "Run it again.")
        after = _adoptions(op, session, acted=True)
        _show_adoptions(op, [one for one in after if one.result != "owned"])
        return 1 if any(one.result != "owned" for one in after) else 0


def remove(op: Operator, *, dry_run: bool) -> int:
    """Take the guard away from the operator's hosts."""
    with op.session() as session:
        plans = []
        for host in op.hosts:
            with session.using(host) as ops:
                plans.append(guard.plan_removal(ops, op.inventory))
        for plan in plans:
            show(op, plan)
        todo = [plan for plan in plans if not plan.same]
        if dry_run or not todo:
            return 0
        names = ", ".join(plan.host for plan in todo)
        op.confirm(f"Remove the guard from {names}? Nothing keeps its VMs from being started elsewhere then.")
        for plan in todo:
            guard.carry_out(session, plan, clock=Clock())
            with session.using(plan.host) as ops:
                if not guard.plan_removal(ops, op.inventory).same:
                    raise Failed(f"The guard is not gone from {plan.host}.", "Run it again.")
            op.say(f"{plan.host}: removed")
        return 0


def show(op: Operator, plan: GuardPlan) -> None:
    """Show what is to be done on a host: diffs, then the other steps."""
    if plan.same:
        op.say(f"{plan.host}: already so")
        return
    for change in plan.files:
        if change.diff:
            op.say(f"{plan.host}: {change.path}")
            for line in change.diff.splitlines():
                op.say("    " + clean(line))
        if change.modes:
            op.say(f"{plan.host}: {change.modes}")
    for step in plan.steps():
        op.say(f"{plan.host}: {step}")


def note_unguarded(op: Operator, snapshot: Snapshot) -> None:
    """Say that there are hosts on which nothing keeps a hand-typed start from being a second one."""
    names = snapshot.unguarded()
    if names:
        everywhere = len(names) > 1 and len(names) == len(snapshot.hosts)
        op.say(f"! No guard on {'any host' if everywhere else ', '.join(names)}.", "yellow")
        op.say("  A virsh start typed there asks nobody. fab -H HOST host.guard")


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


def _planned(session: Session, host: str) -> GuardPlan:
    with session.using(host) as ops:
        return guard.plan(ops, session.inventory)


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
