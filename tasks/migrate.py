"""migrate: move VMs to another host by shutdown and start."""

from __future__ import annotations

from tasks.cli import Hosts, Operator, vmtask
from tasks.cluster.planning.overrides import OF_A_MOVE


@vmtask(Hosts.FILTER, overrides=OF_A_MOVE)
def migrate(
    op: Operator,
    vm: str,
    to: str = "",
    timeout: float | None = None,
    no_destroy: bool = False,
    undefine_source: bool = False,
    parallel: int = 4,
    partial: bool = False,
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Move VMs to another host: shut down, prove off, start.

    A VM is shut down where it runs, proved to be off on every host, and started on the target with its
    definition from the source. Without --to the best host is picked. A VM that does not shut down in time is
    destroyed, unless --no-destroy is given. With -H only VMs that run on these hosts are meant.

    Refused before anything is stopped when any host does not answer, when the VM runs on two hosts, or when
    the target cannot take it; all reasons are shown at once, each with the flag that overrides it if one may.
    A VM that runs on its target already is refused, as there is nothing to move.

    Exit codes: 0 moved and verified, 1 a move failed (the table says where each VM is), 2 refused, 3 the
    outcome of a move is unknown, 130 interrupted.

    Examples:
        fab migrate web --to vmhost2
        fab migrate 'web*,db' --dry-run
        fab -H vmhost1 migrate '*' --to vmhost2,vmhost3
    """
    from tasks.cli import guarding, moves, relocation
    from tasks.cli.select import select
    from tasks.cluster.moving.move import MoveOptions
    from tasks.cluster.planning import placement
    from tasks.cluster.store.sharedstore import store_of

    wanted = relocation.targets(op, to)
    with op.session() as session:
        snapshot = relocation.observe(session, "a move", dry_run=dry_run)
        chosen = select(snapshot, vm, hosts=op.hosts)
        plan = placement.plan_migrate(
            snapshot, op.inventory, chosen, wanted, overrides=overrides, shutdown_timeout=timeout
        )
        options = MoveOptions(destroy=not no_destroy, undefine_source=undefine_source)
        todo = relocation.Relocation(plan, options, overrides, parallel, partial)
        relocation.show(op, todo, "Planned moves")
        guarding.note_unguarded(op, snapshot)
        result = None
        if dry_run:
            op.say(relocation.DRY)
        else:
            op.confirm(f"Move {moves.count(len(plan.moves))}?")
            begun = op.begin()
            result = relocation.carry(op, session, store_of(session, snapshot), begun, todo)
        code = result.code if result else 0
        if json:
            op.output.document(moves.document(plan, result, code))
        return code
