"""One move on the simulated cluster, for the tests of moves."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.cluster.asking.session import Session
from tasks.cluster.events import Event
from tasks.cluster.model import Move, Outcome, Vm
from tasks.cluster.moving.move import ColdMove, MoveOptions
from tasks.cluster.moving.relocate import Result, carry_out
from tasks.cluster.store.journal import Journal
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.sharedstore import SharedStore
from tests.sim.cluster import SimCluster

OPERATION = Operation("20260101T000000Z-abcdef", "fab migrate web", "ada@laptop", 1767225600.0)


def move_of(vm: Vm, source: str = "vmhost1", target: str = "vmhost2", timeout: float = 30.0) -> Move:
    return Move(vm, source, target, 1 << 20, timeout)


def journal_of(sim: SimCluster, session: Session, operation: Operation = OPERATION) -> Journal:
    return Journal(SharedStore(session, list(sim.hosts)), operation, sim.clock)


def run_move(
    sim: SimCluster,
    session: Session,
    move: Move,
    *,
    destroy: bool = True,
    undefine_source: bool = False,
    events: list[Event] | None = None,
    operation: Operation = OPERATION,
) -> Outcome:
    """Carry out one move, both parts, as a fleet would."""
    journal = journal_of(sim, session, operation)
    journal.plan([move], kind="migrate")
    carried = ColdMove(
        session,
        move,
        journal,
        clock=sim.clock,
        notify=(events if events is not None else []).append,
        recheck=lambda snapshot, m: (),
        options=MoveOptions(destroy=destroy, undefine_source=undefine_source),
    )
    return carried.stop_and_start() or carried.settle()


def run_all(
    sim: SimCluster,
    session: Session,
    moves: Sequence[Move],
    *,
    parallel: int = 4,
    events: list[Event] | None = None,
    operation: Operation = OPERATION,
) -> Result:
    """Carry out a plan as drain does, verification included."""
    return carry_out(
        session,
        SharedStore(session, list(sim.hosts)),
        operation,
        moves,
        kind="migrate",
        clock=sim.clock,
        notify=(events if events is not None else []).append,
        recheck=lambda snapshot, m: (),
        options=MoveOptions(),
        parallel=parallel,
        interrupted=lambda: None,
    )
