"""Go on with an operation that was interrupted: finish or undo the move of each of its VMs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from shlex import join

from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent, Refused
from tasks.cluster.events import Notify
from tasks.cluster.model import Move, Outcome, Refusal, Snapshot
from tasks.cluster.moving.move import Gate, MoveOptions
from tasks.cluster.moving.relocate import close, make
from tasks.cluster.planning import placement
from tasks.cluster.planning.overrides import IGNORE_CORDON, OF_A_MOVE
from tasks.cluster.resume.interrupted import Action, Case, Interrupted
from tasks.cluster.resume.takenup import TakenUp
from tasks.cluster.store import journal as journals
from tasks.cluster.store.journal import OPEN, Journal, Record, path_of
from tasks.cluster.store.locks import host_lock, take_after
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.oplock import OperationLock
from tasks.cluster.store.sharedstore import SharedStore


@dataclass(frozen=True, slots=True)
class Resumed:
    """How it ended: each VM that was worked on, and whether the operation has ended now."""

    outcomes: tuple[Outcome, ...]
    #: UUIDs of VMs whose end is known now and as it was shown
    settled: frozenset[str]
    ended: bool
    interrupted: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """3 if anything is unknown, 130 if interrupted, 1 if a VM is not as it was to be, else 0."""
        if any(o.result in OPEN for o in self.outcomes):
            return 3
        if self.interrupted:
            return 130
        return 0 if self.ended and all(o.move.vm.uuid in self.settled for o in self.outcomes) else 1


def resume(
    session: Session,
    store: SharedStore,
    operation: Operation,
    item: Interrupted,
    *,
    clock: Clock,
    notify: Notify,
    parallel: int,
    interrupted: Callable[[], None],
) -> Resumed:
    """Do for each VM what was shown, under the locks that the interrupted command held.

    Raises Locked when somebody works on the operation or its hosts, Refused when its journal has changed
    since it was shown, Failed when the store cannot be written, Interrupted at a second Ctrl-C.
    """
    record = item.record
    lock = OperationLock(session, store.hosts, record.id, operation, f"'{record.command}'")
    lock.take()
    try:
        with ExitStack() as held:
            for host in _hosts(record):
                held.enter_context(_locked(session, host, operation, record, clock))
            if store.read(path_of(record.id)) != item.text:
                raise Refused(
                    f"Somebody went on with '{record.command}' meanwhile.", "Run 'fab resume' again."
                )
            if not item.text.endswith("\n"):
                # What was cut short would spoil the next line.
                store.write(path_of(record.id), item.text[: item.text.rfind("\n") + 1])
            journal = Journal(store, operation, clock, id=record.id, announced=lock.keep)
            journal.resumed()
            return _go_on(
                session,
                store,
                item,
                journal,
                lock,
                clock=clock,
                notify=notify,
                parallel=parallel,
                interrupted=interrupted,
            )
    finally:
        lock.release()


def _go_on(
    session: Session,
    store: SharedStore,
    item: Interrupted,
    journal: Journal,
    lock: OperationLock,
    *,
    clock: Clock,
    notify: Notify,
    parallel: int,
    interrupted: Callable[[], None],
) -> Resumed:
    record = item.record
    cases = {case.move: case for case in item.changing}
    taken: dict[str, TakenUp] = {}

    def made(move: Move, told: Notify, gate: Gate) -> TakenUp:
        taken[move.vm.uuid] = made_for(session, record, cases[move], journal, clock, told, gate)
        return taken[move.vm.uuid]

    for case in item.cases:
        if case.step is not None and case.action in _CLOSED:
            detail = case.words[0].upper() + case.words[1:] + "."
            journal.outcome(Outcome(case.move, "left", ", ".join(case.running_on), detail=detail))
    outcomes: tuple[Outcome, ...] = ()
    stopped = False
    if cases:
        result = make(
            session,
            tuple(cases),
            made,
            clock=clock,
            notify=notify,
            parallel=parallel,
            interrupted=interrupted,
        )
        outcomes, stopped = result.outcomes, result.interrupted
    settled = frozenset(uuid for uuid, one in taken.items() if _as_wished(one.case, _of(outcomes, uuid)))
    closed = all(case.move.vm.uuid in taken and taken[case.move.vm.uuid].closed for case in item.changing)
    looks = any(case.action in (Action.LOOK, Action.TWICE) for case in item.cases)
    if not closed or looks or any(o.result in OPEN for o in outcomes):
        return Resumed(outcomes, settled, False, stopped, lock.warnings)
    return Resumed(outcomes, settled, True, stopped, close(session, store, journal, lock, "resumed", clock))


def made_for(
    session: Session,
    record: Record,
    case: Case,
    journal: Journal,
    clock: Clock,
    told: Notify,
    gate: Gate,
) -> TakenUp:
    """The move of one VM, with what the operator had chosen for the interrupted command."""
    chosen = [f"--{name.replace('_', '-')}" for name, on in record.options.items() if on]
    overrides = [flag for flag in chosen if flag in OF_A_MOVE]
    undrained = {m["target"] for m in record.moves} if record.kind == "undrain" else set()

    def recheck(snapshot: Snapshot, move: Move) -> Sequence[Refusal]:
        cordoned = [host for host in snapshot.cordons() if host not in undrained]
        return placement.recheck(snapshot, session.inventory, move, cordoned=cordoned, overrides=overrides)

    return TakenUp(
        session,
        record,
        case,
        journal,
        clock=clock,
        notify=told,
        recheck=recheck,
        options=MoveOptions(
            destroy=record.options.get("destroy", True),
            undefine_source=record.options.get("undefine_source", False),
        ),
        gate=gate,
        overrides=[*overrides, IGNORE_CORDON] if undrained else overrides,
    )


#: What ends a VM's part in the operation without anything being done on a host.
_CLOSED = (Action.AS_IT_IS, Action.LEAVE_OFF)


def _of(outcomes: Sequence[Outcome], uuid: str) -> Outcome:
    return next(o for o in outcomes if o.move.vm.uuid == uuid)


def _as_wished(case: Case, outcome: Outcome) -> bool:
    if case.action in (Action.BACK, Action.RETURN):
        return outcome.result == "back"
    if case.action is Action.ADOPT:
        return outcome.result == "left" and bool(outcome.running_on)
    return outcome.ok


def _hosts(record: Record) -> tuple[str, ...]:
    """The hosts that the interrupted command had locked for itself."""
    end = {"drain": "source", "undrain": "target"}.get(record.kind)
    return tuple(sorted({str(move[end]) for move in record.moves})) if end else ()


def _locked(session: Session, host: str, operation: Operation, record: Record, clock: Clock) -> ExitStack:
    """The lock of a host. Raises Locked, and Refused when the host cannot take it."""
    held = ExitStack()

    def take() -> None:
        held.enter_context(host_lock(session, host, host, operation))

    try:
        take_after(take, record.operations, clock, lambda: None)
    except (HostSilent, HostError) as error:
        raise Refused(f"The lock of {host} cannot be taken: {error}", "Nothing was changed.") from error
    return held


def clear_away(session: Session, store: SharedStore, operation: Operation, operation_id: str) -> None:
    """Remove what is left of an operation that has nothing to do any more. Raises Locked, Failed."""
    lock = OperationLock(session, store.hosts, operation_id, operation)
    lock.take()
    try:
        text = store.read(path_of(operation_id))
        if text is not None and "\n" not in text:
            store.remove(path_of(operation_id))
            text = None
        if text is None or journals.ended(text):
            lock.end()
    finally:
        lock.release()


def next_command(record: Record, cases: Sequence[Case]) -> str:
    """What to type to go on with what the interrupted command had not begun; empty if nothing is left."""
    untouched = (Action.NOT_BEGUN, Action.AS_IT_IS)
    left = [c for c in cases if c.action in untouched and c.running_on == (c.move.source,)]
    if record.kind == "undrain":
        # Even with every VM back, its cordon is still to be lifted.
        return join(["fab", "-H", ",".join(_hosts(record)), "undrain"])
    if not left:
        return ""
    if record.kind == "drain":
        return join(["fab", "-H", ",".join(sorted({c.move.source for c in left})), "drain"])
    names = ",".join(c.move.vm.name for c in left)
    targets = ",".join(sorted({c.move.target for c in left}))
    return join(["fab", "migrate", names, "--to", targets])
