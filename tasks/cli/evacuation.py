"""evacuate at the operator's surface: the proof, the plan, what was done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from tasks.cli import moves, reasons
from tasks.cli.context import Operator
from tasks.cli.progress import progress
from tasks.cli.text import Table
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Refused
from tasks.cluster.evacuate import evacuating, liveness
from tasks.cluster.evacuate.evacuation import Evacuation, Wish
from tasks.cluster.evacuate.fencing import MISSING, PROVED, Fence, Piece
from tasks.cluster.model import EVACUATED, Move, Plan, Refusal, Snapshot
from tasks.cluster.moving.relocate import Result
from tasks.cluster.planning import placement
from tasks.cluster.store import cordon
from tasks.cluster.store.locks import host_lock
from tasks.cluster.store.sharedstore import SharedStore

MEANING = {
    "moved": "runs there",
    "already-there": "runs there already",
    "left": "not touched",
    "failed": "FAILED",
    "unknown": "UNKNOWN",
}
_STYLE = {"moved": "green", "already-there": "green", "left": "yellow"}


# -- the proof -----------------------------------------------------------------------------------------


def show_proof(op: Operator, pieces: Sequence[Piece]) -> None:
    """Show every piece. Raises Refused, with all that is missing and how to get it, unless all are proved."""
    rows = [
        (p.name, "yes" if p.state == PROVED else "NO" if p.state == MISSING else "-", p.seen) for p in pieces
    ]
    styles = ["green" if p.state == PROVED else "bold red" if p.state == MISSING else "" for p in pieces]
    op.output.table(Table(("proof", "", "seen"), rows, title=f"Is {op.host} dead?", styles=styles))
    missing = [p for p in pieces if p.state != PROVED]
    if not missing:
        return
    for piece in missing:
        if piece.how:
            op.warn(f"Missing: {piece.name}.")
            op.say(f"  {piece.how}")
    if op.output.json:
        empty = Evacuation(Plan(()), {}, (), Snapshot({}), Snapshot({}), ())
        op.output.document(document(empty, pieces, None, Refused.code))
    raise Refused(
        f"{op.host} is not proved to be dead, so it may be running its VMs.",
        "Nothing was changed. A VM that is down is better than one that runs twice.",
    )


# -- the plan ------------------------------------------------------------------------------------------


def show_plan(op: Operator, todo: Evacuation, pieces: Sequence[Piece], wish: Wish) -> None:
    """Show it. Raises Refused, after all reasons, when a VM fits nowhere and not --partial."""
    if todo.moves:
        rows = []
        for move in todo.moves:
            vm = todo.vms[move.vm.uuid]
            since = liveness.moment(vm.since) if vm.since else "?"
            rows.append((move.vm.name, since, move.target, moves.mib(move.memory_kib), vm.origin))
        columns = ("VM", "owned since", "to", "memory", "definition")
        title = f"Plan to evacuate {op.host}"
        op.output.table(Table(columns, rows, title=title, right=frozenset({"memory"})))
        names = [name for name in todo.snapshot.hosts if name != op.host]
        op.say(f"None of them runs on {', '.join(names)}.")
    for note in todo.notes:
        op.say(note)
    reasons.show(op, todo.plan.refusals, "moved")
    stuck = sorted({refusal.vm for refusal in todo.plan.refusals})
    if not stuck or (wish.partial and todo.moves):
        return
    if op.output.json:
        op.output.document(document(todo, pieces, None, Refused.code))
    advice = "Nothing was changed." + (" --partial starts the others." if todo.moves else "")
    if cordoned := [name for name in todo.snapshot.cordons() if name != op.host]:
        advice += f" Room on a cordoned host: fab -H {','.join(cordoned)} undrain --stay"
    raise Refused(f"Cannot be started elsewhere: {', '.join(stuck)}.", advice)


# -- doing it ------------------------------------------------------------------------------------------


def carry(
    op: Operator, session: Session, fence: Fence, store: SharedStore, todo: Evacuation, wish: Wish
) -> Result:
    """Cordon the host and start its VMs elsewhere with live progress; show the verified table."""
    host, begun = op.host, op.begin()

    def recheck(snapshot: Snapshot, move: Move) -> Sequence[Refusal]:
        return placement.recheck(
            snapshot, op.inventory, move, overrides=wish.overrides, reservations=todo.moves
        )

    def first() -> None:
        present = todo.snapshot.cordons().get(host)
        if present is not None:
            present = replace(present, by=begun.by, at=begun.at, why=EVACUATED)
        cordon.place(store, host, begun, why=EVACUATED, present=present, drain=True)
        op.say(f"{host} is cordoned.")
        evacuating.close(session, store, todo.earlier, begun, op.clock)

    work = evacuating.Work(host, todo.moves, todo.vms, todo.planned_on, recheck)
    with (
        host_lock(session, host, fence.keeper, begun),
        progress(op.output, len(todo.moves), clock=op.clock) as notify,
    ):
        result = evacuating.carry_out(
            session,
            fence,
            store,
            begun,
            work,
            clock=op.clock,
            notify=notify,
            parallel=wish.parallel,
            interrupted=lambda: op.warn(
                "Interrupted: the VMs under way are finished, no more are begun. Ctrl-C again stops now."
            ),
            first=first,
        )
    _show_result(op, result)
    return result


def close_earlier(op: Operator, session: Session, fence: Fence, store: SharedStore, todo: Evacuation) -> None:
    """End the journals of interrupted evacuations of the host: nothing is left of them."""
    begun = op.begin()
    if any(not record.ended for record in todo.earlier):
        with host_lock(session, op.host, fence.keeper, begun):
            evacuating.close(session, store, todo.earlier, begun, op.clock)


def _show_result(op: Operator, result: Result) -> None:
    rows = [(o.move.vm.name, o.move.target, MEANING[o.result]) for o in result.outcomes]
    styles = [_STYLE.get(o.result, "bold red") for o in result.outcomes]
    op.output.table(Table(("VM", "to", "result"), rows, styles=styles))
    for o in result.outcomes:
        for text in filter(None, (o.detail, *o.warnings)):
            op.warn(f"{o.move.vm.name}: {text}")
    for warning in result.warnings:
        op.warn(warning)
    up = sum(o.ok for o in result.outcomes)
    op.say(
        f"{up} of {moves.count(len(result.outcomes))} of {op.host} run elsewhere, after {result.took:.1f} s."
    )
    if up < len(result.outcomes):
        op.warn("The same command goes on with the rest.")
    op.say(f"When {op.host} is back, it starts none of these. Then: fab -H {op.host} undrain")
    op.say(
        f"Until it answers, other starts are refused. If it stays away, take it out of {op.inventory.path}."
    )


def code_of(todo: Evacuation, result: Result | None) -> int:
    """The exit code: VMs that were refused, with --partial, are a failure at the end."""
    code = result.code if result else 0
    return code or (1 if result and todo.plan.refusals else 0)


def document(todo: Evacuation, pieces: Collection[Piece], result: Result | None, code: int) -> dict[str, Any]:
    """The document of --json: that of a move, and

    {"proof": [{piece, seen, state: "proved", "missing" or "not looked at", how}]}
    """
    proof = [{"piece": p.name, "seen": p.seen, "state": p.state, "how": p.how} for p in pieces]
    return moves.document(todo.plan, result, code) | {"proof": proof, "notes": list(todo.notes)}
