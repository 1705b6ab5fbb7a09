"""Carry out a confirmed plan of cold moves and verify the end, for migrate, drain and undrain alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tasks.cluster.batch import Batch, Rest
from tasks.cluster.clock import Clock
from tasks.cluster.errors import VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.gates import StartGates
from tasks.cluster.journal import Journal
from tasks.cluster.model import Move, Outcome, Snapshot
from tasks.cluster.move import ColdMove, MoveOptions, Recheck
from tasks.cluster.operation import Operation
from tasks.cluster.session import Session
from tasks.cluster.sharedstore import SharedStore


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
    clock: Clock,
    notify: Notify,
    recheck: Recheck,
    options: MoveOptions,
    parallel: int,
    interrupted: Callable[[], None],
) -> Result:
    """Journal the plan, make the moves, observe the cluster again.

    Raises Failed when the journal cannot be begun (nothing was changed then), Interrupted at a second Ctrl-C.
    """
    begin = clock.monotonic()
    journal = Journal(store, operation, clock)
    journal.plan(moves)
    gates = StartGates()
    last: dict[str, Event] = {}

    def told(event: Event) -> None:
        last[event.vm] = event
        notify(event)

    carried = {
        move: ColdMove(
            session, move, journal, clock=clock, notify=told, recheck=recheck, options=options, gate=gates
        )
        for move in moves
    }

    def prepare(move: Move) -> None:
        carried[move].prepare()

    def work(move: Move) -> Outcome | Rest[Outcome]:
        # A VM that is merely being watched on its target does not keep the next one waiting.
        return carried[move].stop_and_start() or Rest(carried[move].settle)

    def left(move: Move) -> Outcome:
        told(Event(move.vm.name, Phase.LEFT, move.source, move.target, "interrupted"))
        return carried[move].leave()

    def describe(move: Move) -> str:
        return f"{move.vm.name} ({move.source} to {move.target}): {last[move.vm.name].phase.value}"

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
    result = Result(verified, after, batch.stopped_early, took)
    try:
        journal.end("interrupted" if batch.stopped_early else "done")
    except VmfabError as error:
        return replace(result, warnings=(str(error),))
    return result


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
