"""A cold move: one VM from source to target by shutdown and start, each step journaled before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum

from tasks.cluster import domainxml
from tasks.cluster.asking.beside import beside
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, Unknown, VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import Domain, HostFacts, Move, Outcome, Refusal, Silent, Snapshot
from tasks.cluster.moving.batch import Rest
from tasks.cluster.moving.proof import trace_of
from tasks.cluster.moving.starting import RunsAlready, Starter, StartFailed
from tasks.cluster.moving.stopping import Stopper
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.eligibility import media_left_behind
from tasks.cluster.planning.subject import subject
from tasks.cluster.store.journal import Journal
from tasks.cluster.store.locks import lock_of_vm


class Step(Enum):
    """The steps that change something, in their order; the journal names them before they are taken."""

    DEFINE = "define"
    SHUTDOWN = "shutdown"
    DESTROY = "destroy"
    START = "start"
    RETURN = "return"
    BOOKKEEPING = "bookkeeping"


@dataclass(frozen=True, slots=True)
class MoveOptions:
    """What an operator may choose about a cold move."""

    #: destroy the VM when it did not shut down in time; otherwise leave it running on the source
    destroy: bool = True
    #: remove the definition from the source after the move
    undefine_source: bool = False


#: Seconds for which a check made ahead is good; after that it is made again before the VM is shut down.
CHECKED = 15.0

#: Checks the target again right before the VM is stopped: fresh facts of source and target -> refusals.
Recheck = Callable[[Snapshot, Move], Sequence[Refusal]]

#: Limits how many VMs start on one host at the same time.
Gate = Callable[[str], AbstractContextManager[object]]


class _Left(Exception):
    """The VM was not touched, or is as it was; the text says why."""


class ColdMove:
    """Carries out one move. `stop_and_start` ends when the VM runs; `settle` watches it and does the books.

    The parts are separate so that a drain can check the next VMs while guests shut down (`prepare`) and begin
    the next shutdown while this one is watched. `prepare` is followed by `stop_and_start` or by `leave`.
    None raises for anything foreseeable: the Outcome says how it ended and where the VM is.
    """

    def __init__(
        self,
        session: Session,
        move: Move,
        journal: Journal,
        *,
        clock: Clock,
        notify: Notify,
        recheck: Recheck,
        options: MoveOptions | None = None,
        gate: Gate = lambda host: nullcontext(),
    ) -> None:
        self._session = session
        self._move = move
        self._journal = journal
        self._clock = clock
        self._notify = notify
        self._recheck = recheck
        self._options = options or MoveOptions()
        self._gate = gate
        self._lock = lock_of_vm(session, move.vm, journal.operation)
        self._starter: Starter | None = None
        self._checked: float | None = None
        self._stopping = False
        self._released = False
        self._autostart = False
        self._pid: int | None = None
        self._stopped_by = ""
        self._ended: float | None = None
        self._up: float | None = None
        self._running_on = move.source
        self._warnings: list[str] = []

    # -- the parts -----------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Check and define ahead of the VM's turn. Trouble is not told: its turn meets and tells it."""
        try:
            self._make_ready()
        except (_Left, VmfabError):
            return
        self._tell(Phase.WAITING, "checked")

    def leave(self) -> Outcome:
        """Give up before its turn: the VM is as it was."""
        self._lock.release()
        return Outcome(self._move, "left", self._move.source, detail="not begun: interrupted")

    def run(self) -> Outcome | Rest[Outcome]:
        """Both parts: a VM that is merely being watched on its target keeps no other one waiting."""
        return self.stop_and_start() or Rest(self.settle)

    def stop_and_start(self) -> Outcome | None:
        """Check, define, stop, prove, start. None when it runs on the target and is to be settled."""
        try:
            if self._checked is None or self._clock.monotonic() - self._checked > CHECKED:
                self._make_ready()
            else:
                self._lock.hold_through(self._move.target)
            self._stop()
            return self._start()
        except _Left as why:
            return self._finish("left", str(why))
        except RunsAlready as error:
            return self._adopt(error)
        except Unknown as error:
            return self._finish("unknown", str(error))
        except VmfabError as error:
            return self._finish(self._as_it_stands(), str(error))

    def settle(self) -> Outcome:
        """Watch it stay up on the target, else bring it back; then do the books."""
        try:
            return self._watch_or_return()
        except RunsAlready as error:
            return self._adopt(error)
        except Unknown as error:
            return self._finish("unknown", str(error))
        except VmfabError as error:
            return self._finish(self._as_it_stands(), str(error))

    # -- before anything is stopped ------------------------------------------------------------------

    def _make_ready(self) -> None:
        self._tell(Phase.CHECKING)
        self._lock.hold_through(self._move.target)
        begun = self._clock.monotonic()
        self._define(*self._check())
        self._checked = begun

    def _check(self) -> tuple[str, bool]:
        """The VM runs on the source and nowhere else, every host says so, and the target can take it.

        Returns the definition that the target lacks, empty when it has the same one already, and whether
        libvirt would start the VM there by itself.
        """
        move = self._move
        running = beside(self._session.running_now)
        snapshot = self._session.observe(plan=True, hosts=(move.source, move.target))
        source = snapshot.hosts[move.source]
        if isinstance(source, Silent):
            raise _Left(f"{move.source} does not answer ({source.reason})")
        if source.libvirt_problem:
            raise _Left(f"{move.source}: {source.libvirt_problem}")
        domain = source.domain(move.vm)
        images = frozenset() if domain is None else domain.images
        trace = trace_of(move.vm, images, running())
        if trace.silent:
            raise _Left(trace.words())
        if trace.running_on == (move.target,):
            raise RunsAlready(f"{move.vm.name} was moved meanwhile", trace.running_on)
        if trace.running_on != (move.source,) or domain is None:
            self._running_on = ", ".join(trace.running_on)
            raise _Left(f"no longer as planned: {trace.words()}")
        self._autostart = domain.autostart
        self._pid = domain.pid
        refusals = self._recheck(snapshot, move)
        if refusals:
            raise _Left("; ".join(r.reason for r in refusals))
        self._starter = Starter(
            self._session,
            move.vm,
            images,
            self._lock,
            clock=self._clock,
            notify=self._notify,
            announce=self._announce_start,
            source=move.source,
        )
        return self._missing_definition(domain, snapshot)

    def _missing_definition(self, domain: Domain, snapshot: Snapshot) -> tuple[str, bool]:
        media = media_left_behind(subject(Census(snapshot), domain))
        wanted = domainxml.for_target(domain.xml, media)
        target = snapshot.hosts[self._move.target]
        present = target.domain(domain.vm) if isinstance(target, HostFacts) else None
        if present is None:
            return wanted, False
        same = domainxml.canonical(present.xml) == domainxml.canonical(wanted)
        return "" if same else wanted, present.autostart

    def _define(self, xml: str, autostart: bool) -> None:
        move = self._move
        if xml:
            self._tell(Phase.DEFINING)
            self._journal.before(move, Step.DEFINE.value)
        try:
            with self._session.using(move.target) as ops:
                if xml:
                    ops.define(xml)
                if autostart:
                    # libvirt's autostart is blind to other hosts: after a reboot it would start a second one.
                    ops.autostart(move.vm.uuid, on=False)
        except (HostSilent, HostError) as error:
            raise _Left(f"could not be defined on {move.target}: {error}") from error

    # -- stop ----------------------------------------------------------------------------------------

    def _stop(self) -> None:
        move = self._move
        stopper = Stopper(
            self._session,
            move.vm,
            move.source,
            clock=self._clock,
            notify=self._notify,
            announce=self._announce_stop,
            target=move.target,
            pid=self._pid,
        )
        stopped = stopper.shutdown(move.shutdown_timeout)
        if not stopped.off:
            if not self._options.destroy:
                raise Failed(
                    f"did not shut down within {move.shutdown_timeout:.0f} s and still runs on {move.source} "
                    "(--no-destroy); it may yet go off by itself."
                )
            stopped = stopper.destroy()
            if not stopped.off:
                raise Unknown(
                    f"{move.source} could not destroy {move.vm.name}: it counts as running there.",
                    f"Nothing was started. Look at its qemu process on {move.source}.",
                )
        self._stopped_by = stopped.how
        self._ended = stopped.at
        self._running_on = ""
        self._journal.after(move, Step.SHUTDOWN.value, stopped.how)

    def _announce_stop(self, step: str) -> None:
        self._journal.before(self._move, Step(step).value, autostart=self._autostart)
        self._stopping = True

    # -- start ---------------------------------------------------------------------------------------

    def _start(self) -> Outcome | None:
        try:
            self._up = self._start_on(self._move.target)
            return None
        except StartFailed as error:
            return self._try_again(error)

    def _try_again(self, first: StartFailed) -> Outcome | None:
        """Once more on the target, then back on the source; each time proved off everywhere before."""
        try:
            self._up = self._start_on(self._move.target)
            self._warnings.append(f"started only at the second try; the first: {first}")
            return None
        except StartFailed as second:
            return self._return(second)

    def _start_on(self, host: str) -> float:
        assert self._starter is not None
        with self._gate(host):
            up = self._starter.start(host)
        self._running_on = host
        return up

    def _release_source(self) -> None:
        """Take it out of the source's running_vms and autostart before it can run on the target.

        A source that lost its power now and came back would otherwise start it a second time. Raises
        StartFailed when the source cannot, Unknown when it stopped answering and did not come back.
        """
        end = self._clock.monotonic() + self._session.comeback
        while not self._released:
            try:
                self._use(self._move.source, self._let_go)
                self._released = True
            except HostError as error:
                raise StartFailed(
                    f"{self._move.source} would start it again at its next boot: {error}"
                ) from error
            except HostSilent as error:
                if self._clock.monotonic() >= end:
                    raise Unknown(
                        f"{self._move.source} stopped answering ({error.reason}) and would start "
                        f"{self._move.vm.name} again when it boots.",
                        f"Nothing was started. Look at {self._move.source}, then run 'fab status'.",
                    ) from error
                self._clock.sleep(1.0)

    def _let_go(self, ops: HostOps) -> None:
        ops.note_running(remove=[self._move.vm.name])
        ops.autostart(self._move.vm.uuid, on=False)

    def _take_back(self, ops: HostOps) -> None:
        ops.note_running(add=[self._move.vm.name])
        if self._autostart:
            ops.autostart(self._move.vm.uuid, on=True)

    def _announce_start(self, host: str) -> None:
        step = Step.START if host == self._move.target else Step.RETURN
        # The VM is down: a journal that cannot be written any more must not keep it down.
        self._book(lambda: self._journal.before(self._move, step.value))
        if step is Step.START:
            self._release_source()

    def _return(self, why: StartFailed) -> Outcome:
        """Start it again on the source, and say so."""
        self._tell(Phase.RETURNING, str(why))
        assert self._starter is not None
        try:
            self._up = self._start_on(self._move.source)
            self._starter.watch(self._move.source)
        except StartFailed as error:
            self._running_on = ""
            self._up = None
            return self._finish(
                "failed", f"{why} Starting it again on {self._move.source} failed too: {error} It is off."
            )
        self._book(lambda: self._use(self._move.source, self._take_back))
        return self._finish("back", f"{why} It runs again on {self._move.source}.")

    def _watch_or_return(self) -> Outcome:
        assert self._starter is not None
        try:
            self._starter.watch(self._move.target)
        except StartFailed as died:
            self._running_on = ""
            self._up = None
            tried = self._try_again(died)
            if tried is not None:
                return tried
            try:
                self._starter.watch(self._move.target)
            except StartFailed as again:
                return self._return(again)
        self._books()
        return self._finish("moved", "")

    # -- afterwards ----------------------------------------------------------------------------------

    def _adopt(self, error: RunsAlready) -> Outcome:
        """Somebody else started it meanwhile: it stays where it runs."""
        self._running_on = ", ".join(error.hosts)
        if len(error.hosts) > 1:
            return self._finish("unknown", str(error))
        if error.hosts == (self._move.target,):
            return self._finish("already-there", f"somebody started it on {self._move.target} meanwhile")
        return self._finish("left", str(error))

    def _books(self) -> None:
        """running_vms on the target, undefine on the source. Trouble never undoes a good move."""
        move = self._move
        self._book(lambda: self._journal.before(move, Step.BOOKKEEPING.value))
        self._book(lambda: self._use(move.target, lambda ops: ops.note_running(add=[move.vm.name])))
        if self._options.undefine_source:
            self._book(lambda: self._use(move.source, lambda ops: ops.undefine(move.vm.uuid)))

    def _use(self, host: str, action: Callable[[HostOps], None]) -> None:
        with self._session.using(host) as ops:
            action(ops)

    def _book(self, action: Callable[[], None]) -> None:
        try:
            action()
        except VmfabError as error:
            self._warnings.append(str(error))

    def _as_it_stands(self) -> str:
        """The result when a step failed for a reason that is known, by how far the move had come."""
        if self._ended is not None:
            return "failed"
        return "kept" if self._stopping else "left"

    def _finish(self, result: str, detail: str) -> Outcome:
        downtime = None
        if self._ended is not None and self._up is not None:
            downtime = self._up - self._ended
        outcome = Outcome(
            move=self._move,
            result=result,
            running_on=self._running_on,
            stopped_by=self._stopped_by,
            downtime=downtime,
            detail=detail,
            warnings=tuple(self._warnings),
        )
        self._book(lambda: self._keep(outcome))
        self._lock.release()
        self._tell(_PHASE_OF[result], detail)
        return outcome

    def _keep(self, outcome: Outcome) -> None:
        self._journal.outcome(outcome)

    def _tell(self, phase: Phase, detail: str = "") -> None:
        self._notify(Event(self._move.vm.name, phase, self._move.source, self._move.target, detail))


_PHASE_OF = {
    "moved": Phase.MOVED,
    "already-there": Phase.MOVED,
    "left": Phase.LEFT,
    "kept": Phase.FAILED,
    "back": Phase.FAILED,
    "failed": Phase.FAILED,
    "unknown": Phase.UNKNOWN,
}
