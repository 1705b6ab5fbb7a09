"""What the tasks that set hosts up share: look, show, ask, change, look again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tasks.cli.context import Operator
from tasks.cli.text import DRY
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostSilent, Interrupted, Refused, Unknown, VmfabError
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.steps import Change, Plan, Step

#: Lines of a difference above which a new file is counted and not shown before the question.
LONG = 6


def set_up(op: Operator, step_of: Callable[[str], Step], *, dry_run: bool) -> None:
    """As `set_up_with`, for a step that concerns one host only."""
    set_up_with(op, lambda session, host: step_of(host), dry_run=dry_run)


def set_up_with(op: Operator, step_of: Callable[[Session, str], Step], *, dry_run: bool) -> None:
    """Take one step, as it is for each of them, on the hosts of -H.

    All hosts are looked at first: one that is silent or refuses ends it before anything is changed. Then
    host after host is changed and verified; the first failure ends it, and the hosts behind it are named.
    """
    with op.session(unhurried=True) as session:
        steps = {name: step_of(session, name) for name in op.hosts}
        plans = [hostsetup.plan(session.host(name), step) for name, step in steps.items()]
        for planned in plans:
            show(op, planned, whole=dry_run)
        todo = [planned for planned in plans if planned.changes]
        if dry_run:
            op.say(DRY)
        if dry_run or not todo:
            return
        op.confirm(f"Change {', '.join(planned.host for planned in todo)}?")
        for done, planned in enumerate(todo):
            host = planned.host
            try:
                hostsetup.apply(
                    session.host(host), planned, partial(tell, op, host), current=partial(session.host, host)
                )
            except KeyboardInterrupt:
                raise Interrupted(f"Interrupted: {host} may be half set up.", hostsetup.AGAIN) from None
            except VmfabError as error:
                untouched = [left.host for left in todo[done + 1 :]]
                if untouched:
                    op.warn(f"Not touched: {', '.join(untouched)}")
                raise (after_changes(error) if done else error) from error
            op.say(f"{host}: {planned.step.name} is set up", "green")


def after_changes(error: VmfabError) -> VmfabError:
    """The error as it counts after changes were made: neither refused nor merely unanswered."""
    if isinstance(error, HostSilent):
        return Unknown(f"{error.message} It may be half set up.", hostsetup.AGAIN)
    if isinstance(error, Refused):
        return Failed(error.message, error.hint)
    return error


def show(op: Operator, planned: Plan, *, whole: bool = False) -> None:
    """Print what is there already and what would be changed, with the differences.

    A long file that is new is only counted unless `whole`: a question below 2,000 lines is not read.
    """
    for finding in planned.findings:
        if isinstance(finding, Change):
            lines = finding.diff.rstrip("\n").split("\n")
            counted = not whole and lines[0] == "--- /dev/null" and len(lines) > LONG
            more = f" ({len(lines) - 3} lines; --dry-run shows them)" if counted else ""
            op.say(f"{planned.host}: {finding.what}: to be {finding.why}{more}", "bold")
            if finding.diff and not counted:
                op.say("\n".join(lines), as_is=True)
        else:
            op.say(f"{planned.host}: {finding.what}: already so, {finding.why}")


def tell(op: Operator, host: str, made: str) -> None:
    """Print what was changed."""
    op.say(f"{host}: {made}")
