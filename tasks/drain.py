"""drain and undrain: empty hosts for maintenance, and bring their VMs back."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from tasks.cli import Hosts, Operator, vmtask
from tasks.cli.text import DRY
from tasks.cluster.planning.overrides import OF_A_MOVE

if TYPE_CHECKING:
    from tasks.cluster.model import Snapshot
    from tasks.cluster.moving.relocate import Result


@vmtask(Hosts.SEVERAL, overrides=OF_A_MOVE)
def drain(
    op: Operator,
    to: str = "",
    only: list[str] | None = None,
    exclude: list[str] | None = None,
    parallel: int = 4,
    timeout: float | None = None,
    partial: bool = False,
    no_destroy: bool = False,
    undefine_source: bool = False,
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Empty a host: cordon it, move every running VM away.

    Every VM is planned before the first one is shut down: if one fits nowhere, the drain is refused with the
    reason for every host (--partial moves the others and says so). Then the host is cordoned, so that nothing
    is placed there any more, and the VMs are moved by shutdown and start, --parallel at a time. At the end
    the cluster is asked again, and the host has to be empty. The cordon stays until 'undrain'.

    With several hosts (-H vmhost1,vmhost2) none of them is a target. VMs that are off stay where they are.
    A second drain of an empty host finds nothing to do. The first Ctrl-C finishes the moves under way, the
    second stops at once: then 'fab resume', on any laptop, finishes or undoes what was in the middle, and the
    same drain goes on with the rest.

    Exit codes: 0 empty and verified, 1 a VM could not be moved (the table says where each is), 2 refused,
    3 the outcome of a move is unknown, or the host has just booted and may still start VMs; 130 interrupted.

    Examples:
        fab -H vmhost1 drain --dry-run
        fab -H vmhost1 drain --yes
        fab -H vmhost1,vmhost2 drain --to vmhost3 --exclude 'test-*'
    """
    from tasks.cli import guarding, moves, relocation
    from tasks.cluster.moving.move import MoveOptions
    from tasks.cluster.planning import placement
    from tasks.cluster.store import cordon, locks
    from tasks.cluster.store.sharedstore import store_of

    wanted = relocation.targets(op, to)
    with op.session() as session, ExitStack() as held:
        snapshot = relocation.observe(session, "a drain", dry_run=dry_run)
        plan = placement.plan_drain(
            snapshot,
            op.inventory,
            op.hosts,
            only=moves.patterns(only),
            exclude=moves.patterns(exclude),
            to=wanted,
            overrides=overrides,
            shutdown_timeout=timeout,
        )
        options = MoveOptions(destroy=not no_destroy, undefine_source=undefine_source)
        todo = relocation.Relocation(plan, options, overrides, parallel, partial, kind="drain")
        which = ", ".join(op.hosts)
        relocation.show(op, todo, f"Plan to drain {which}")
        guarding.note_unguarded(op, snapshot)
        if not plan.moves:
            which_vm = "None of the chosen VMs" if only or exclude else "No VM"
            op.say(f"{which_vm} has to leave {which}.")
        if dry_run:
            op.say(DRY)
            if json:
                op.output.document(moves.document(plan, None, 0))
            return 0
        present = snapshot.cordons()
        if plan.moves or any(name not in present for name in op.hosts):
            op.confirm(f"Cordon {which} and move {moves.count(len(plan.moves))}?")
        store = store_of(session, snapshot, last=op.hosts)
        begun = op.begin()
        for name in op.hosts:
            held.enter_context(locks.host_lock(session, name, name, begun))

        def cordon_all() -> None:
            for name in op.hosts:
                moving = any(m.source == name for m in plan.moves)
                if moving or name not in present:
                    cordon.place(store, name, begun, why="drain", present=present.get(name), drain=moving)
                    op.say(f"{name} is cordoned.")

        result = None
        if plan.moves:
            # The journal is there before a cordon names it.
            result = relocation.carry(op, session, store, begun, todo, first=cordon_all)
        else:
            cordon_all()
        code = _verify(op, result.after if result else session.observe(), result, bool(only or exclude))
        if json:
            op.output.document(moves.document(plan, result, code))
        return code


def _verify(op: Operator, after: Snapshot, result: Result | None, chosen: bool) -> int:
    """Say how empty the hosts are; the exit code of the drain."""
    from tasks.cluster.model import HostFacts
    from tasks.cluster.planning.afterboot import about_to_start

    code = result.code if result else 0
    for name in op.hosts:
        facts = after.hosts[name]
        if not isinstance(facts, HostFacts) or facts.libvirt_problem:
            op.warn(f"{name} did not answer at the end: whether it is empty is not known. Run 'fab status'.")
            code = code or 3
            continue
        running = sorted(d.vm.name for d in facts.domains if d.running)
        if not running and (waiting := about_to_start(after, name)):
            op.warn(
                f"{name} is cordoned and runs nothing yet, but it booted {facts.uptime:.0f} s ago, and its "
                f"restart script may still start: {', '.join(waiting)}. Run the same drain again in a few "
                "minutes."
            )
            code = code or 3
        elif not running:
            op.say(f"{name} is empty and cordoned. When the work is done: fab -H {name} undrain", "green")
        else:
            op.warn(f"{name} is not empty; there still run: {', '.join(running)}.")
            op.say(f"To go on: the same command. To bring back what was moved: fab -H {name} undrain")
            # What was left out on purpose is no failure.
            code = code or (0 if chosen else 1)
    return code


@vmtask(Hosts.SEVERAL, overrides=OF_A_MOVE, help={"stay": "Only lift the cordon; bring nothing back."})
def undrain(
    op: Operator,
    parallel: int = 4,
    timeout: float | None = None,
    partial: bool = False,
    no_destroy: bool = False,
    stay: bool = False,
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Let a host take VMs again, and bring back its own.

    Exactly what its drains moved away is moved back by shutdown and start, then the cordon is lifted. A VM
    that somebody moved or shut down since stays as it is, and is named. --stay only lifts the cordon, also
    while other hosts do not answer. The same goes for a host that was evacuated and is back; it also forgets
    what it ran when it died. When a move fails, the cordon stays, and the same command goes on. A host that
    is not cordoned has nothing to bring back: exit code 0.

    Exit codes: 0 done and verified, 1 a move failed, 2 refused, 3 the outcome of a move is unknown,
    130 interrupted.

    Examples:
        fab -H vmhost1 undrain
        fab -H vmhost1 undrain --stay
    """
    from tasks.cli import guarding, moves, relocation
    from tasks.cluster.evacuate import comeback
    from tasks.cluster.model import Plan
    from tasks.cluster.moving.move import MoveOptions
    from tasks.cluster.moving.undrain import records_of, way_back
    from tasks.cluster.planning import placement
    from tasks.cluster.store import cordon, locks
    from tasks.cluster.store.sharedstore import store_of

    with op.session() as session, ExitStack() as held:
        needed = op.hosts if stay else None
        snapshot = relocation.observe(session, "an undrain", dry_run=dry_run, needed=needed)
        present = snapshot.cordons()
        cordoned = [name for name in op.hosts if name in present]
        for name in op.hosts:
            if name not in present:
                op.say(f"{name} is not cordoned: nothing to undo.")
        store = store_of(session, snapshot)
        others = [name for name in present if name not in cordoned]
        plan = Plan(())
        for name in [] if stay else cordoned:
            way = way_back(snapshot, name, records_of(store, present[name]))
            for left in way.stays:
                op.say(f"{left.vm.name} stays: it {left.why}.")
            found = placement.plan_migrate(
                snapshot,
                op.inventory,
                way.vms,
                (name,),
                cordoned=others,
                overrides=overrides,
                reservations=plan.moves,
                shutdown_timeout=timeout,
            )
            plan = Plan(plan.moves + found.moves, plan.refusals + found.refusals)
        options = MoveOptions(destroy=not no_destroy)
        todo = relocation.Relocation(
            plan, options, overrides, parallel, partial, kind="undrain", cordoned=others
        )
        which = ", ".join(cordoned)
        relocation.show(op, todo, f"Plan to undrain {which}")
        guarding.note_unguarded(op, snapshot)
        taken = {name: comeback.taken_from(store, name) for name in cordoned}
        for name, vms in taken.items():
            if vms:
                op.say(f"{name} no longer restarts after a boot: {', '.join(vm.name for vm in vms)}")
        result = None
        if dry_run:
            op.say(DRY)
        elif cordoned:
            op.confirm(f"Bring back {moves.count(len(plan.moves))} and uncordon {which}?")
            begun = op.begin()
            for name in cordoned:
                held.enter_context(locks.host_lock(session, name, name, begun))
                if taken[name]:
                    comeback.forget(session, store, snapshot, name, taken[name])
            result = relocation.carry(op, session, store, begun, todo) if plan.moves else None
            if result is None or result.code == 0:
                for name in cordoned:
                    cordon.lift(store, name)
                    op.say(f"{name} takes VMs again.", "green")
            else:
                op.warn(
                    f"{which} stays cordoned. Run the same again to go on, or with --stay to uncordon it."
                )
        code = result.code if result else 0
        if json:
            op.output.document(moves.document(plan, result, code))
        return code
