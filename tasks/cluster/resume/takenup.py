"""A cold move that another command began, taken up where the VM is found now."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent, VmfabError
from tasks.cluster.events import Notify, Phase
from tasks.cluster.model import Outcome, Snapshot
from tasks.cluster.moving.move import ColdMove, Gate, MoveOptions, Recheck
from tasks.cluster.moving.starting import RunsAlready, Starter, StartFailed
from tasks.cluster.moving.stopping import ASK_AGAIN, SETTLE
from tasks.cluster.planning.overrides import IGNORE_APART, IGNORE_CORDON, IGNORE_RESERVE
from tasks.cluster.resume.interrupted import Action, Case, judge_again
from tasks.cluster.store.journal import OPEN, Journal, Record
from tasks.cluster.store.locks import take_after
from tasks.cluster.vm.startplan import Start, plan_starts

#: What is no reason against a start where the VM came from.
_AT_HOME = (IGNORE_CORDON, IGNORE_RESERVE, IGNORE_APART)

#: What may be done although something else was shown: what a host was asked for last took effect since.
_NATURAL = {
    Action.CARRY_ON: (Action.START,),
    Action.START: (Action.FINISH, Action.BACK),
    Action.RETURN: (Action.BACK,),
}


class TakenUp(ColdMove):
    """As ColdMove, entered in the middle. The VM is looked at once more when its lock is held.

    What cannot be done now is not journaled as an outcome: the VM stays open for another resume.
    """

    def __init__(
        self,
        session: Session,
        record: Record,
        case: Case,
        journal: Journal,
        *,
        clock: Clock,
        notify: Notify,
        recheck: Recheck,
        options: MoveOptions,
        gate: Gate,
        overrides: Collection[str] = (),
    ) -> None:
        """`overrides` are the flags that the operator had given, and IGNORE_CORDON for the target."""
        super().__init__(
            session,
            case.move,
            journal,
            clock=clock,
            notify=notify,
            recheck=recheck,
            options=options,
            gate=gate,
        )
        self._record = record
        self._overrides = tuple(overrides)
        #: as it was shown, then as it was found when its lock was held
        self.case = case
        self._running_on = ", ".join(case.running_on)
        self._stopped_by = case.stopped_by
        self._final = False
        #: how it ended stands in the journal: there is nothing left to resume
        self.closed = False

    def prepare(self) -> None:
        """Nothing is done ahead: what is found when its turn comes decides."""

    def stop_and_start(self) -> Outcome | None:
        """Take the lock, look again, go on. None when it runs on the target and is to be settled."""
        try:
            self._tell(Phase.CHECKING)
            take_after(
                self._take_lock,
                self._record.operations,
                self._clock,
                lambda: self._tell(Phase.CHECKING, "a host is still busy with what it was asked for last"),
            )
            snapshot = self._session.observe(plan=True)
            if unsure := snapshot.unsure():
                told = "; ".join(f"{s.host} does not answer ({s.reason})" for s in unsure)
                return self._finish("left", told)
            now = self._clock.now()
            shown = self.case
            self.case = judge_again(shown, self._record, snapshot, self._session.inventory, now)
            self._running_on = ", ".join(self.case.running_on)
            if self.case.action not in (shown.action, *_NATURAL.get(shown.action, ())):
                return self._finish("left", f"no longer as shown: {self.case.words}")
            return self._go_on(self.case, snapshot)
        except RunsAlready as error:
            return self._adopt(error)
        except VmfabError as error:
            return self._finish("unknown" if error.code == 3 else self._as_it_stands(), str(error))

    def _take_lock(self) -> None:
        """The VM's lock through the target; when that cannot take it, the VM may still go back."""
        try:
            self._lock.hold_through(self._move.target)
        except (HostSilent, HostError):
            self._lock.hold_through(self._move.source)

    def _go_on(self, case: Case, snapshot: Snapshot) -> Outcome | None:
        match case.action:
            case Action.CARRY_ON:
                return self._carry_on(snapshot)
            case Action.FINISH:
                self._arrived(snapshot)
                return None
            case Action.START:
                return self._start_there(snapshot)
            case Action.RETURN:
                return self._start_back(snapshot, "its start on the target had failed.")
            case Action.BACK:
                return self._is_back()
            case _:
                return self._adopted(case)

    # -- it runs ---------------------------------------------------------------------------------------

    def _carry_on(self, snapshot: Snapshot) -> Outcome | None:
        refusals = self._recheck(snapshot, self._move)
        if not refusals:
            return super().stop_and_start()
        why = "; ".join(r.reason for r in refusals)
        self._tell(Phase.SHUTTING_DOWN, "waiting whether it still goes off")
        with self._session.using(self._move.source) as ops:
            reply = ops.wait_off(self._move.vm.uuid, timeout=self._patience(), ask_again=None)
        if bool(reply["off"]):
            return self._start_back(snapshot, f"{self._move.target} cannot take it: {why}.")
        self._stopping = True
        return self._finish(
            "kept", f"{self._move.target} cannot take it ({why}); it still runs on {self._move.source}."
        )

    def _patience(self) -> float:
        """Seconds for which a guest may still react to the shutdown that was asked for."""
        assert self.case.step is not None
        left = self.case.step.at + self._move.shutdown_timeout + ASK_AGAIN - self._clock.now()
        return min(max(left, SETTLE), self._move.shutdown_timeout)

    def _arrived(self, snapshot: Snapshot) -> None:
        """It runs on the target: clear what would start it elsewhere; the rest is done when it settled."""
        self._running_on = self._move.target
        self._begin_starter(snapshot.images_of(self._move.vm))
        self._book(self._release_source)
        self._book(
            lambda: self._use(self._move.target, lambda ops: ops.autostart(self._move.vm.uuid, on=False))
        )
        defined = any(d.host == self._move.source for d in snapshot.domains() if d.vm == self._move.vm)
        if not defined:
            self._options = replace(self._options, undefine_source=False)

    def _is_back(self) -> Outcome:
        self._running_on = self._move.source
        self._autostart = self.case.autostart
        self._book(lambda: self._use(self._move.source, self._take_back))
        self._book(lambda: self._use(self._move.target, self._forget))
        return self._finish("back", f"It runs on {self._move.source}.")

    def _adopted(self, case: Case) -> Outcome:
        """Somebody started it on a third host: that one keeps it."""
        (where,) = case.running_on
        name = self._move.vm.name
        self._book(lambda: self._use(where, lambda ops: ops.note_running(add=[name])))
        self._book(lambda: self._use(self._move.source, self._let_go))
        self._book(lambda: self._use(self._move.target, self._forget))
        self._running_on = where
        self._final = True
        return self._finish("left", f"It was started on {where}, and stays there.")

    def _forget(self, ops: HostOps) -> None:
        ops.note_running(remove=[self._move.vm.name])

    # -- it is off -------------------------------------------------------------------------------------

    def _start_there(self, snapshot: Snapshot) -> Outcome | None:
        target = self._move.target
        start, against = self._plan(snapshot, target, self._overrides)
        if start is None:
            return self._start_back(snapshot, f"{target} cannot take it: {against}.")
        self._prepare_start(start)
        self._tell(Phase.STARTING, f"on {target}")
        try:
            with self._session.using(target) as ops:
                if start.xml:
                    ops.define(start.xml)
                ops.autostart(self._move.vm.uuid, on=False)
        except (HostSilent, HostError) as error:
            return self._start_back(snapshot, f"{target} cannot take it: {error}")
        return self._start()

    def _start_back(self, snapshot: Snapshot, why: str) -> Outcome:
        """Start it again where it came from."""
        source = self._move.source
        start, against = self._plan(snapshot, source, (*self._overrides, *_AT_HOME))
        if start is None:
            return self._finish("left", f"{why} {source} cannot take it back: {against}. It is off.")
        self._prepare_start(start)
        self._autostart = self.case.autostart
        return self._return(StartFailed(why))

    def _plan(self, snapshot: Snapshot, host: str, overrides: tuple[str, ...]) -> tuple[Start | None, str]:
        """How it would start on a host, else every reason why it cannot."""
        if snapshot.where_running(self._move.vm):
            # It went off since the snapshot was made.
            snapshot = self._session.observe(plan=True)
        plan = plan_starts(snapshot, self._session.inventory, (self._move.vm,), (host,), overrides)
        if plan.starts:
            return plan.starts[0], ""
        return None, "; ".join(r.reason for r in plan.refusals) or "it runs already"

    def _prepare_start(self, start: Start) -> None:
        self._running_on = ""
        self._begin_starter(start.images)

    def _begin_starter(self, images: frozenset[str]) -> None:
        self._starter = Starter(
            self._session,
            self._move.vm,
            images,
            self._lock,
            clock=self._clock,
            notify=self._notify,
            announce=self._announce_start,
            source=self._move.source,
        )

    # -- afterwards ------------------------------------------------------------------------------------

    def _keep(self, outcome: Outcome) -> None:
        if outcome.result in OPEN or (outcome.result == "left" and not self._final):
            return
        super()._keep(outcome)
        self.closed = True
