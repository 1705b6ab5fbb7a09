"""Carry out a confirmed plan of cold moves and verify the end, for migrate, drain and undrain alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import Move, Outcome, Snapshot
from tasks.cluster.moving.batch import Batch, Rest
from tasks.cluster.moving.gates import StartGates
from tasks.cluster.moving.move import ColdMove, Gate, MoveOptions, Recheck
from tasks.cluster.store.journal import OPEN, Journal
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.oplock import OperationLock
from tasks.cluster.store.pruning import prune
from tasks.cluster.store.sharedstore import SharedStore


@dataclass(frozen=True, slots=True)
class Result:
    """How a plan ended: each move's outcome, corrected by what was observed at the very end."""

    outcomes: tuple[Outcome, ...]
    after: Snapshot
    interrupted: bool
    #: seconds that the moves took together
    took: float
    warnings: tuple[str, ...] = ()

    @property
    def code(self) -> int:
        """The exit code: 3 if anything is unknown, 130 if interrupted, 1 if anything failed, else 0."""
        results = {o.result for o in self.outcomes}
        if "unknown" in results:
            return 3
        if self.interrupted:
            return 130
        return 0 if all(o.ok for o in self.outcomes) else 1


def carry_out(
    session: Session,
    store: SharedStore,
    operation: Operation,
    moves: Sequence[Move],
    *,
    kind: str,
    clock: Clock,
    notify: Notify,
    recheck: Recheck,
    options: MoveOptions,
    parallel: int,
    interrupted: Callable[[], None],
    overrides: Collection[str] = (),
    first: Callable[[], None] = lambda: None,
) -> Result:
    """Journal the plan, do what comes `first`, make the moves, observe the cluster again.

    `kind` is the command and `overrides` its flags against refusals, as the journal tells them. The
    operation's lock is held meanwhile; when a move's outcome is not known at the end, the operation stays
    open, for `resume`.

    Raises Failed when the journal cannot be begun (nothing was changed then), what `first` raises, and
    Interrupted at a second Ctrl-C.
    """

    def work(journal: Journal) -> Result:
        def made(move: Move, told: Notify, gate: Gate) -> ColdMove:
            return ColdMove(
                session, move, journal, clock=clock, notify=told, recheck=recheck, options=options, gate=gate
            )

        return make(
            session, moves, made, clock=clock, notify=notify, parallel=parallel, interrupted=interrupted
        )

    return journaled(
        session,
        store,
        operation,
        moves,
        work,
        kind=kind,
        options=as_written(options, overrides),
        clock=clock,
        first=first,
    )


def journaled(
    session: Session,
    store: SharedStore,
    operation: Operation,
    moves: Sequence[Move],
    work: Callable[[Journal], Result],
    *,
    kind: str,
    options: Mapping[str, bool],
    clock: Clock,
    first: Callable[[], None],
) -> Result:
    """Do what comes `first` and then the work, with the operation's lock held and its plan in the journal.

    The operation stays open when the outcome of a move is not known. Raises Failed when the journal cannot
    be begun (nothing was changed then), and what `first` and `work` raise.
    """
    lock = OperationLock(session, store.hosts, operation.id, operation)
    lock.take()
    journal = Journal(store, operation, clock, announced=lock.keep)
    try:
        try:
            journal.plan(moves, kind=kind, options=options)
        except VmfabError:
            lock.end()
            raise
        try:
            first()
        except VmfabError:
            close(session, store, journal, lock, "not begun", clock)
            raise
        result = work(journal)
        if any(o.result in OPEN for o in result.outcomes):
            return result
        warnings = close(
            session, store, journal, lock, "interrupted" if result.interrupted else "done", clock
        )
        return replace(result, warnings=(*result.warnings, *warnings))
    finally:
        lock.release()


def as_written(options: MoveOptions, overrides: Collection[str]) -> dict[str, bool]:
    """What the operator chose, as a journal's plan tells it."""
    chosen = {flag.removeprefix("--").replace("-", "_"): True for flag in sorted(overrides)}
    return {"destroy": options.destroy, "undefine_source": options.undefine_source, **chosen}


def close(
    session: Session, store: SharedStore, journal: Journal, lock: OperationLock, result: str, clock: Clock
) -> tuple[str, ...]:
    """Write that the operation has ended, let its lock go, and remove journals that are too old; warnings."""
    try:
        journal.end(result)
        lock.end()
        prune(store, days=session.inventory.journal_days, now=clock.now())
    except VmfabError as error:
        return (*lock.warnings, str(error))
    return lock.warnings


class Way(Protocol):
    """One VM's way to its target. Nothing of it raises anything foreseeable."""

    def prepare(self) -> None:
        """Do ahead of its turn what does no harm if that never comes."""

    def run(self) -> Outcome | Rest[Outcome]:
        """Go it; a Rest does not keep the next VM waiting."""

    def leave(self) -> Outcome:
        """Give up before its turn."""


def make(
    session: Session,
    moves: Sequence[Move],
    made: Callable[[Move, Notify, Gate], Way],
    *,
    clock: Clock,
    notify: Notify,
    parallel: int,
    interrupted: Callable[[], None],
    named: Callable[[Move], str] = lambda move: f"{move.source} to {move.target}",
) -> Result:
    """Make moves, `parallel` at a time, and observe the cluster again; `named` tells one.

    Raises Interrupted at a second Ctrl-C.
    """
    begin = clock.monotonic()
    gates = StartGates()
    last: dict[str, Event] = {}

    def told(event: Event) -> None:
        last[event.vm] = event
        notify(event)

    carried = {move: made(move, told, gates) for move in moves}

    def prepare(move: Move) -> None:
        carried[move].prepare()

    def work(move: Move) -> Outcome | Rest[Outcome]:
        return carried[move].run()

    def left(move: Move) -> Outcome:
        told(Event(move.vm.name, Phase.LEFT, move.source, move.target, "interrupted"))
        return carried[move].leave()

    def describe(move: Move) -> str:
        return f"{move.vm.name} ({named(move)}): {last[move.vm.name].phase.value}"

    for move in moves:
        told(Event(move.vm.name, Phase.WAITING, move.source, move.target))
    batch = Batch(
        moves,
        work,
        parallel=parallel,
        left=left,
        describe=describe,
        interrupted=interrupted,
        prepare=prepare,
    )
    outcomes = batch.run()
    took = clock.monotonic() - begin
    after = session.observe()
    verified = tuple(verify(outcome, after) for outcome in outcomes)
    return Result(verified, after, batch.stopped_early, took)


def verify(outcome: Outcome, after: Snapshot) -> Outcome:
    """The outcome as the cluster shows it at the end: a moved VM has to run on its target alone."""
    if not outcome.ok:
        return outcome
    move = outcome.move
    where = tuple(d.host for d in after.where_running(move.vm))
    if where == (move.target,) and not after.unsure():
        return outcome
    unsure = "; ".join(f"{s.host} does not answer ({s.reason})" for s in after.unsure())
    if where == (move.target,):
        return replace(outcome, warnings=(*outcome.warnings, f"at the end {unsure}"))
    if unsure:
        return replace(outcome, result="unknown", detail=f"moved, but not seen at the end: {unsure}")
    seen = ", ".join(where) or "nowhere"
    return replace(
        outcome,
        result="failed",
        running_on=", ".join(where),
        detail=f"moved, but at the end it ran on: {seen}",
    )
