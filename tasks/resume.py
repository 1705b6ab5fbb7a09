"""resume: finish or undo what an interrupted command left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tasks.cli import Hosts, Operator, vmtask
from tasks.cli.text import DRY

if TYPE_CHECKING:
    from tasks.cluster.asking.session import Session
    from tasks.cluster.resume.interrupted import Found, Interrupted
    from tasks.cluster.resume.resume import Resumed
    from tasks.cluster.store.operation import Operation
    from tasks.cluster.store.sharedstore import SharedStore

#: VMs at the same time.
PARALLEL = 4


@vmtask(Hosts.NONE, may_name="operation", help={"operation": "Only this one; the start of its ID will do."})
def resume(
    op: Operator,
    operation: str = "",
    timeout: float | None = None,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Finish or undo what an interrupted command left.

    Reads the journals of migrate, drain and undrain that have no end, from any laptop. A command that still
    runs somewhere is shown and left alone. For the others every host is asked where each VM is now. From that
    and from the step that was announced last follows what is done; it is shown before it is begun:

    off everywhere, and its shutdown had been asked for: started on the target, else on the source
    runs on the target: watched; the books are done (running_vms, autostart, --undefine-source)
    runs on the source, and its shutdown had been asked for: the move is carried on with the same options, for
        it may go off at any moment; when the target cannot take it any more, it stays, or is started again
    runs on the source after its start elsewhere was tried, or was started there since: noted there
    runs on a third host: noted there, and stays
    was not stopped by the command: stays as it is

    VMs whose turn had not come are not touched; the last line says which command goes on with them. It may be
    interrupted and repeated itself. An interrupted evacuate goes on with the same evacuate command.

    Exit codes: 0 done and verified, or nothing was interrupted; 1 a VM could not be brought to its place (the
    table says where it is); 2 refused; 3 unknown, or a VM runs on two hosts (it is not touched; the
    others are gone on with); 130 interrupted.

    --json prints one document:
        schema: 1; code: the exit code
        under_way: [{id, command, by, at}], commands that somebody is running now
        operations: [{id, command, by, at, kind, ended, next: what goes on with the rest,
            vms: [{vm, uuid, source, target, step: the last announced or null, running_on: [host], action,
            words, result or null, detail}]}]; the actions are those of tasks.cluster.resume.interrupted
        damaged: [text], journals that cannot be read

    Examples:
        fab resume --dry-run
        fab resume
        fab resume 20261122T174407Z-1c9a2f --yes
    """
    from tasks.cli import guarding, interruptions, relocation
    from tasks.cluster.errors import Unknown
    from tasks.cluster.resume import interrupted
    from tasks.cluster.store.sharedstore import store_of

    with op.session() as session:
        snapshot = relocation.observe(session, "a resume", dry_run=dry_run)
        store = store_of(session, snapshot)
        found = interrupted.find(store, snapshot, op.inventory, now=op.clock.now(), timeout=timeout)
        todo = _chosen(found, operation)
        interruptions.show(op, found, todo, chosen=bool(operation))
        twice = [c for item in todo for c in item.cases if c.action is interrupted.Action.TWICE]
        able = tuple(i for i in todo if not i.cases or any(c not in twice for c in i.cases))
        results: dict[str, Resumed] = {}
        code = 0
        if dry_run:
            op.say(DRY)
        elif able or (found.leftovers and not operation):
            if able:
                guarding.note_unguarded(op, snapshot)
                op.confirm(interruptions.question(able))
            code = _carry_out(op, session, store, found, able, results)
        if twice:
            code = Unknown.code
        if json:
            op.output.document(interruptions.document(found, todo, results, code))
        if twice:
            where = "; ".join(f"{c.move.vm.name} on {' and '.join(c.running_on)}" for c in twice)
            raise Unknown(
                f"Two hosts run one VM: {where}. It was not touched.",
                "Decide at once which is the good one, stop the other (fab -H HOST vm.destroy NAME), "
                "then run 'fab resume' again.",
            )
        return code


def _chosen(found: Found, typed: str) -> tuple[Interrupted, ...]:
    """The operations to go on with. Raises Refused when what was typed fits none, or several."""
    from tasks.cluster.errors import Refused

    resumable = tuple(item for item in found.interrupted if item.resumable)
    if not typed:
        return resumable
    fitting = tuple(item for item in found.interrupted if item.record.id.startswith(typed))
    if any(one.id.startswith(typed) for one in found.under_way):
        raise Refused(f"Operation {typed} is under way: somebody is running it.", "'fab resume' shows who.")
    if not fitting:
        raise Refused(
            f"No interrupted operation is called {typed}.", "'fab resume --dry-run' shows them all."
        )
    if len(fitting) > 1:
        raise Refused(f"{typed} fits {len(fitting)} operations.", "Type more of its ID.")
    if not fitting[0].resumable:
        command = fitting[0].record.command
        raise Refused("An evacuation is not resumed.", f"The same command goes on with it: {command}")
    return fitting


def _carry_out(
    op: Operator,
    session: Session,
    store: SharedStore,
    found: Found,
    todo: Sequence[Interrupted],
    results: dict[str, Resumed],
) -> int:
    """Go on with one operation after the other; the exit code."""
    from tasks.cluster.errors import Interrupted as Stopped
    from tasks.cluster.errors import VmfabError
    from tasks.cluster.resume.resume import clear_away

    begun = op.begin()
    codes = [0]
    for leftover in found.leftovers:
        try:
            clear_away(session, store, begun, leftover)
        except VmfabError as error:
            op.warn(str(error))
    for item in todo:
        try:
            done = _one(op, session, store, begun, item)
        except Stopped:
            raise
        except VmfabError as error:
            op.warn(f"'{item.record.command}' is not resumed: {error}")
            codes.append(error.code)
            continue
        results[item.record.id] = done
        codes.append(done.code)
        if done.interrupted:
            break
    worst = max(code for code in codes if code != 130)
    return 130 if 130 in codes and worst < 3 else worst


def _one(op: Operator, session: Session, store: SharedStore, begun: Operation, item: Interrupted) -> Resumed:
    """Go on with one operation, show how it ended and what to type next."""
    from tasks.cli import moves, relocation
    from tasks.cli.progress import progress
    from tasks.cluster.resume import resume as resuming

    with progress(op.output, len(item.changing), clock=op.clock) as notify:
        done = resuming.resume(
            session,
            store,
            begun,
            item,
            clock=op.clock,
            notify=notify,
            parallel=PARALLEL,
            interrupted=lambda: op.warn(relocation.FIRST_CTRL_C),
        )
    if done.outcomes:
        moves.show_outcomes(op, done.outcomes)
    for warning in done.warnings:
        op.warn(warning)
    if done.ended:
        op.say(f"'{item.record.command}' has ended; nothing of it is open.", "green")
        if following := resuming.next_command(item.record, item.cases):
            op.say(f"To go on with what it had left to do: {following}")
        elif item.record.kind == "drain":
            which = ",".join(sorted({str(move["source"]) for move in item.record.moves}))
            op.say(f"When the work on {which} is done: fab -H {which} undrain")
    else:
        op.warn(
            f"'{item.record.command}' is still open: run 'fab resume' again when the reasons above are gone."
        )
    return done
