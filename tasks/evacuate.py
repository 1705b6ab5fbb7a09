"""evacuate: start the VMs of a dead host elsewhere."""

from __future__ import annotations

from contextlib import ExitStack

from tasks.cli import Hosts, Operator, vmtask
from tasks.cluster.planning.overrides import OF_A_MOVE


@vmtask(Hosts.ONE, overrides=OF_A_MOVE)
def evacuate(
    op: Operator,
    to: str = "",
    only: list[str] | None = None,
    exclude: list[str] | None = None,
    parallel: int = 4,
    partial: bool = False,
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    confirm: str = "",
    json: bool = False,
) -> int:
    """Start a dead host's VMs elsewhere, once proved dead.

    For a host that lost its power or burned out. A host that does not answer may still run its VMs, and a
    second start destroys their images. So every piece of the proof is shown: nothing answers at its address;
    all other hosts answer and see the same store; the lock that its guard holds for as long as it is up is
    free, and held by another host from now on; no sign of life comes from it meanwhile. If a piece is missing
    the evacuation is refused, and says how to get it. No flag overrides this.

    Then the VMs that ran there are planned onto the others, with their definitions from the store, and the
    name of the host has to be typed. It is cordoned, and each VM is given to its new host, proved to be off
    everywhere, and started once. When the host comes back, its guard lets it start none of them; 'undrain'
    takes it into the cluster again. The same command goes on where an interrupted one has stopped.

    --confirm HOST takes the place of the typing. --dry-run shows proof and plan; for that it holds the host's
    lock for some seconds.

    Exit codes: 0 all run elsewhere, 1 a VM could not be started (the table says which), 2 refused, 3 the
    outcome of a start is unknown, 130 interrupted.

    Examples:
        fab -H vmhost3 evacuate --dry-run
        fab -H vmhost3 evacuate
        fab -H vmhost3 evacuate --only 'mail*' --to vmhost1 --confirm vmhost3
    """
    from tasks.cli import evacuation as shown
    from tasks.cli import guarding, moves, relocation
    from tasks.cluster.evacuate import evacuation
    from tasks.cluster.evacuate.fencing import Fence
    from tasks.cluster.store import sharedstore

    wish = evacuation.Wish(
        to=relocation.targets(op, to),
        only=moves.patterns(only),
        exclude=moves.patterns(exclude),
        overrides=overrides,
        parallel=parallel,
        partial=partial,
    )
    with op.session() as session, ExitStack() as held:
        snapshot = sharedstore.observe(session, dry_run=dry_run)
        fence = Fence(session, op.host, op.clock)
        held.callback(fence.release)
        pieces = fence.examine(snapshot, op.say)
        shown.show_proof(op, pieces)
        held.enter_context(session.fence(op.host, fence.still))
        store = sharedstore.store_of(session, snapshot)
        todo = evacuation.plan(session, fence, store, snapshot, wish)
        shown.show_plan(op, todo, pieces, wish)
        guarding.note_unguarded(op, snapshot)
        result = None
        if dry_run:
            op.say(relocation.DRY)
        elif todo.moves:
            question = f"Start {moves.count(len(todo.moves))} of {op.host} on other hosts?"
            op.confirm_typed(question, op.host, confirm)
            result = shown.carry(op, session, fence, store, todo, wish)
        else:
            op.say(f"No VM of {op.host} has to be started elsewhere.")
            shown.close_earlier(op, session, fence, store, todo)
        code = shown.code_of(todo, result)
        if json:
            op.output.document(shown.document(todo, pieces, result, code))
        return code
