"""What migrate, drain and undrain share once they have a plan: show it, carry it out, report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from tasks.cli import moves
from tasks.cli.context import Operator
from tasks.cli.progress import progress
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Refused
from tasks.cluster.inventory import inventory as inventories
from tasks.cluster.model import Move, Plan, Refusal, Snapshot
from tasks.cluster.moving.move import MoveOptions
from tasks.cluster.moving.relocate import Result, carry_out
from tasks.cluster.planning import placement
from tasks.cluster.store import sharedstore
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.sharedstore import SharedStore

FIRST_CTRL_C = "Interrupted: the moves under way are finished, no more are begun. Ctrl-C again stops now."


def targets(op: Operator, to: str) -> tuple[str, ...]:
    """Aliases of the hosts after --to; empty when it was not given. Raises Refused for an unknown one."""
    if not to:
        return ()
    return tuple(host.name for host in inventories.resolve(op.inventory, [to]))


def observe(session: Session, what: str, *, dry_run: bool, needed: Collection[str] | None = None) -> Snapshot:
    """The cluster, to plan on. Raises Refused unless every host answered: unknown is not off.

    `needed` are the hosts that have to answer when nothing is to be started.
    """
    snapshot = sharedstore.observe(session, dry_run=dry_run)
    unsure = [s for s in snapshot.unsure() if needed is None or s.host in needed]
    if unsure:
        who = "; ".join(f"{s.host} does not answer ({s.reason})" for s in unsure)
        raise Refused(f"{who}.", f"It may be running anything, so {what} is refused; nothing was changed.")
    return snapshot


@dataclass(frozen=True, slots=True)
class Relocation:
    """A plan and how it is to be carried out."""

    plan: Plan
    options: MoveOptions
    overrides: Collection[str]
    parallel: int
    partial: bool = False
    #: the command, as the journal tells it
    kind: str = "migrate"
    #: hosts that take no VM; None: those that the snapshot says
    cordoned: Collection[str] | None = None


def show(op: Operator, r: Relocation, title: str) -> None:
    """Show the plan. Raises Refused, after showing every reason, when a VM cannot move and not --partial."""
    moves.show_plan(op, r.plan, title)
    stuck = sorted({refusal.vm for refusal in r.plan.refusals})
    if not stuck or (r.partial and r.plan.moves):
        return
    if op.output.json:
        op.output.document(moves.document(r.plan, None, Refused.code))
    advice = "Nothing was changed."
    if r.plan.moves:
        advice += " --partial moves the others."
    raise Refused(f"Cannot be moved: {', '.join(stuck)}.", advice)


def carry(
    op: Operator,
    session: Session,
    store: SharedStore,
    operation: Operation,
    r: Relocation,
    first: Callable[[], None] = lambda: None,
) -> Result:
    """Make the moves with live progress, and show the verified table.

    `first` is done when the plan is journaled, before the first move.
    """

    def recheck(snapshot: Snapshot, move: Move) -> Sequence[Refusal]:
        return placement.recheck(
            snapshot,
            op.inventory,
            move,
            cordoned=r.cordoned,
            overrides=r.overrides,
            reservations=r.plan.moves,
        )

    with progress(op.output, len(r.plan.moves), clock=op.clock) as notify:
        result = carry_out(
            session,
            store,
            operation,
            r.plan.moves,
            kind=r.kind,
            clock=op.clock,
            notify=notify,
            recheck=recheck,
            options=r.options,
            parallel=r.parallel,
            interrupted=lambda: op.warn(FIRST_CTRL_C),
            overrides=r.overrides,
            first=first,
        )
    moves.show_result(op, result)
    op.say(moves.summary(result))
    if not_known := [o.move.vm.name for o in result.outcomes if o.result == "unknown"]:
        op.warn(
            f"Not known how it ended: {', '.join(not_known)}. When every host answers again, "
            "'fab resume' finishes it."
        )
    return result
