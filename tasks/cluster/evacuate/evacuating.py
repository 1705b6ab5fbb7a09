"""Start a dead host's VMs elsewhere: define each, give it to its new host, prove it off, start it once.

Nothing here decides that the host is dead: that is `fencing`, and every question to the cluster asks it
again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from tasks.cluster import domainxml
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent, Unknown, VmfabError
from tasks.cluster.evacuate import comeback, stranded
from tasks.cluster.evacuate.fencing import Fence
from tasks.cluster.evacuate.stranded import Stranded
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import HostFacts, Move, Outcome, Silent, Snapshot
from tasks.cluster.moving import relocate
from tasks.cluster.moving.move import Gate, Recheck
from tasks.cluster.moving.relocate import Result
from tasks.cluster.moving.starting import RunsAlready, Starter, StartFailed
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.eligibility import media_left_behind
from tasks.cluster.planning.subject import subject
from tasks.cluster.store import journal
from tasks.cluster.store.journal import Journal
from tasks.cluster.store.locks import lock_of_vm
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.oplock import OperationLock
from tasks.cluster.store.sharedstore import SharedStore

KIND = "evacuate"


class Step(Enum):
    """The steps that change something, in their order; the journal names them before they are taken."""

    DEFINE = "define"
    OWNER = "owner"
    START = "start"
    BOOKKEEPING = "bookkeeping"


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done: the planned moves off the dead host, and what is known of their VMs."""

    host: str
    moves: Sequence[Move]
    vms: Mapping[str, Stranded]
    #: the snapshot the moves were planned on, in which the dead host seems to answer
    planned_on: Snapshot
    #: the reasons against a move, from a fresh snapshot of its target
    recheck: Recheck


class _Left(Exception):
    """The VM was not given away; the text says why."""


class Evacuation:
    """One VM's way from the dead host to its new one. `run` raises nothing foreseeable."""

    def __init__(
        self,
        session: Session,
        fence: Fence,
        store: SharedStore,
        work: Work,
        move: Move,
        journal: Journal,
        *,
        clock: Clock,
        notify: Notify,
        gate: Gate,
    ) -> None:
        self._session = session
        self._fence = fence
        self._store = store
        self._work = work
        self._move = move
        self._vm = work.vms[move.vm.uuid]
        self._journal = journal
        self._clock = clock
        self._notify = notify
        self._gate = gate
        self._lock = lock_of_vm(session, move.vm, journal.operation)
        self._given = False
        self._sent = False
        self._warnings: list[str] = []

    def prepare(self) -> None:
        """Nothing is done ahead: each step rests on a proof made right before it."""

    def leave(self) -> Outcome:
        """Give up before its turn: it is off, as it was."""
        return Outcome(self._move, "left", "", detail="not begun: interrupted")

    def run(self) -> Outcome:
        """Define it, make the target its owner, start it there, watch it stay up."""
        try:
            self._tell(Phase.CHECKING)
            self._lock.hold_through(self._move.target)
            snapshot = self._check()
            self._define(snapshot)
            self._give(snapshot)
            starter = self._starter(snapshot)
            with self._gate(self._move.target):
                starter.start(self._move.target)
            starter.watch(self._move.target)
        except _Left as why:
            return self._finish("left", str(why))
        except RunsAlready as error:
            there = error.hosts == (self._move.target,)
            return self._finish("already-there" if there else "unknown", str(error), ", ".join(error.hosts))
        except StartFailed as error:
            return self._finish("failed", f"{error} It is off; the same command tries again.")
        except Unknown as error:
            # Without a start that was sent, it is known to be where it was: off.
            unsent = self._fence.lost and not self._sent
            return self._finish("failed" if unsent else "unknown", self._fence.lost or str(error))
        except VmfabError as error:
            return self._finish("failed" if self._given else "left", str(error))
        self._book(lambda: self._journal.before(self._move, Step.BOOKKEEPING.value))
        self._book(self._note_running)
        return self._finish("moved", "", self._move.target)

    def _check(self) -> Snapshot:
        """Whether the target can still take it and the host is still proved dead; the target as it is now."""
        move = self._move
        if problem := self._fence.still():
            raise _Left(problem)
        fresh = self._session.observe(plan=True, hosts=(move.target,))
        target = fresh.hosts[move.target]
        if isinstance(target, Silent):
            raise _Left(f"{move.target} does not answer ({target.reason})")
        snapshot = Snapshot({**fresh.hosts, move.source: self._work.planned_on.hosts[move.source]})
        if refusals := self._work.recheck(snapshot, move):
            raise _Left("; ".join(r.reason for r in refusals))
        return snapshot

    def _define(self, snapshot: Snapshot) -> None:
        move = self._move
        dead, target = snapshot.hosts[move.source], snapshot.hosts[move.target]
        assert isinstance(dead, HostFacts)
        assert isinstance(target, HostFacts)
        domain = dead.domain(move.vm)
        assert domain is not None
        wanted = domainxml.for_target(domain.xml, media_left_behind(subject(Census(snapshot), domain)))
        present = target.domain(move.vm)
        same = present is not None and domainxml.canonical(present.xml) == domainxml.canonical(wanted)
        try:
            if not same:
                self._tell(Phase.DEFINING)
                self._journal.before(move, Step.DEFINE.value)
            with self._session.using(move.target) as ops:
                if not same:
                    ops.define(wanted)
                ops.autostart(move.vm.uuid, on=False)
        except (HostSilent, HostError) as error:
            raise _Left(f"could not be defined on {move.target}: {error}") from error

    def _give(self, snapshot: Snapshot) -> None:
        """Make the target the owner: from here on the dead host's guard refuses it, should it come back."""
        move, target = self._move, snapshot.hosts[self._move.target]
        assert isinstance(target, HostFacts)
        changes = stranded.handed_over(self._vm, move.source, move.target, target.boot_id, self._clock.now())
        if problem := self._fence.still():
            raise _Left(problem)
        self._journal.before(move, Step.OWNER.value)
        self._store.append(comeback.path_of(move.source), comeback.line_of(move.vm))
        self._given = True
        if not changes:
            return
        try:
            with self._session.using(move.target) as ops:
                ops.store_swap("locks/owners", changes)
        except HostError as error:
            if error.kind != "file":
                raise
            raise _Left(f"somebody else has taken it meanwhile: {error.detail}") from error

    def _starter(self, snapshot: Snapshot) -> Starter:
        dead = snapshot.hosts[self._move.source]
        assert isinstance(dead, HostFacts)
        domain = dead.domain(self._move.vm)
        return Starter(
            self._session,
            self._move.vm,
            frozenset() if domain is None else domain.images,
            self._lock,
            clock=self._clock,
            notify=self._heard,
            announce=lambda host: self._book(lambda: self._journal.before(self._move, Step.START.value)),
            source=self._move.source,
        )

    def _heard(self, event: Event) -> None:
        self._sent = self._sent or event.phase is Phase.STARTING
        self._notify(event)

    def _note_running(self) -> None:
        with self._session.using(self._move.target) as ops:
            ops.note_running(add=[self._move.vm.name])

    def _book(self, action: Callable[[], None]) -> None:
        try:
            action()
        except VmfabError as error:
            self._warnings.append(str(error))

    def _finish(self, result: str, detail: str, running_on: str = "") -> Outcome:
        outcome = Outcome(
            self._move, result, running_on, "the host's death", detail=detail, warnings=tuple(self._warnings)
        )
        self._book(lambda: self._journal.outcome(outcome))
        self._lock.release()
        phases = {"moved": Phase.STARTED, "already-there": Phase.STARTED, "left": Phase.LEFT}
        self._tell(phases.get(result, Phase.UNKNOWN if result == "unknown" else Phase.FAILED), detail)
        return replace(outcome, warnings=tuple(self._warnings))

    def _tell(self, phase: Phase, detail: str = "") -> None:
        self._notify(Event(self._move.vm.name, phase, self._move.source, self._move.target, detail))


def carry_out(
    session: Session,
    fence: Fence,
    store: SharedStore,
    operation: Operation,
    work: Work,
    *,
    clock: Clock,
    notify: Notify,
    parallel: int,
    interrupted: Callable[[], None],
    first: Callable[[], None],
) -> Result:
    """Journal the plan, do what is to be done `first`, start the VMs, observe the cluster again.

    Raises Failed when the journal cannot be begun (nothing was changed then), what `first` raises, and
    Interrupted at a second Ctrl-C.
    """

    def make(diary: Journal) -> Result:
        def made(move: Move, told: Notify, gate: Gate) -> Evacuation:
            return Evacuation(session, fence, store, work, move, diary, clock=clock, notify=told, gate=gate)

        return relocate.make(
            session,
            work.moves,
            made,
            clock=clock,
            notify=notify,
            parallel=parallel,
            interrupted=interrupted,
            named=lambda move: f"to {move.target}",
        )

    return relocate.journaled(
        session, store, operation, work.moves, make, kind=KIND, options={}, clock=clock, first=first
    )


# -- earlier evacuations of the host -------------------------------------------------------------------


def earlier(store: SharedStore, host: str) -> tuple[journal.Record, ...]:
    """The journals of evacuations of this host, oldest first; damaged ones are left out.

    Raises Failed when the store cannot be read.
    """
    found = []
    for name, text in sorted(store.read_folder(journal.FOLDER).items()):
        try:
            record = journal.read(name.removesuffix(".json"), text)
        except ValueError:
            continue
        if record.kind == KIND and any(move["source"] == host for move in record.moves):
            found.append(record)
    return tuple(found)


def unfinished(records: Iterable[journal.Record], host: str) -> dict[str, tuple[str, str]]:
    """Name and target by UUID of the VMs that were given to another host and never got running there."""
    found: dict[str, tuple[str, str]] = {}
    for record in records:
        for move in record.moves:
            uuid = move["uuid"]
            if move["source"] != host:
                continue
            if record.results.get(uuid) in ("moved", "already-there"):
                found.pop(uuid, None)
            elif {Step.OWNER.value, Step.START.value} & set(record.steps.get(uuid, ())):
                found[uuid] = (move["vm"], move["target"])
    return found


def close(
    session: Session,
    store: SharedStore,
    records: Iterable[journal.Record],
    operation: Operation,
    clock: Clock,
) -> None:
    """End earlier evacuations that were interrupted: this one goes on with their VMs.

    Whoever calls this holds the host's lock, so that none of them is under way. Raises Failed, Locked.
    """
    for record in records:
        if record.ended:
            continue
        lock = OperationLock(session, store.hosts, record.id, operation)
        lock.take()
        try:
            Journal(store, operation, clock, id=record.id).end(f"gone on with by {operation.id}")
            lock.end()
        finally:
            lock.release()
