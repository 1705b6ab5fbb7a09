"""Shut down, destroy or reboot a VM where it runs, and prove how that ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, Unknown, VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import RunningNow, Silent
from tasks.cluster.moving.proof import trace_of
from tasks.cluster.moving.starting import WATCH
from tasks.cluster.moving.stopping import Stopper
from tasks.cluster.store.locks import Locked, lock_of_vm
from tasks.cluster.store.operation import Operation
from tasks.cluster.vm.result import VmResult
from tasks.cluster.vm.stopplan import Stop, Verb

_PHASES = {"done": Phase.STOPPED, "left": Phase.LEFT, "failed": Phase.FAILED}


class VmStop:
    """Carries out one stop or reboot. `run` raises nothing foreseeable: the result says how it ended."""

    def __init__(
        self,
        session: Session,
        stop: Stop,
        verb: Verb,
        operation: Operation,
        *,
        timeout: float,
        clock: Clock,
        notify: Notify,
    ) -> None:
        """`timeout` is how many seconds a shutdown may take."""
        self._session = session
        self._stop = stop
        self._verb = verb
        self._timeout = timeout
        self._clock = clock
        self._notify = notify
        self._lock = lock_of_vm(session, stop.vm, operation)
        self._stopper = Stopper(session, stop.vm, stop.host, clock=clock, notify=notify)
        self._warnings: list[str] = []

    def run(self) -> VmResult:
        """Lock, act, prove that it is off (or still up, after a reboot), keep running_vms true."""
        begin = self._clock.monotonic()
        try:
            self._hold()
            result, detail = self._act()
        except Locked as error:
            result, detail = "left", str(error)
        except HostSilent as error:
            # A host that falls silent after it was asked for something is waited for, and Unknown at last.
            hint = error.hint or f"Nothing was changed. Look at {error.host}, then type the same again."
            result, detail = "left", f"{error.message} {hint}"
        except Unknown as error:
            result, detail = "unknown", str(error)
        except VmfabError as error:
            result, detail = "failed", str(error)
        self._lock.release()
        phase = Phase.REBOOTED if result == "done" and self._verb is Verb.REBOOT else _PHASES.get(result)
        self._tell(phase or Phase.UNKNOWN, detail)
        took = self._clock.monotonic() - begin
        return VmResult(self._stop.vm, self._stop.host, result, detail, tuple(self._warnings), took)

    def _hold(self) -> None:
        """Keep moves and starts away. Raises Locked.

        A store that is out of order does not keep a VM from being stopped: that is the safe direction.
        """
        try:
            self._lock.hold_through(self._stop.host)
        except HostError as error:
            self._warnings.append(f"its lock could not be taken ({error.detail})")

    def _act(self) -> tuple[str, str]:
        if self._verb is Verb.REBOOT:
            return self._reboot()
        if self._verb is Verb.SHUTDOWN:
            off = self._stopper.shutdown(self._timeout).off
            if not off:
                raise Failed(
                    f"It did not shut down within {self._timeout:.0f} s and still runs on {self._stop.host}; "
                    "it may yet go off by itself.",
                    "vm.destroy ends it.",
                )
        elif not self._stopper.destroy().off:
            raise Unknown(
                f"{self._stop.host} could not destroy it: it counts as running there.",
                f"Look at its qemu process on {self._stop.host}.",
            )
        self._take_out_of_lists()
        return "done", ""

    def _reboot(self) -> tuple[str, str]:
        """libvirt tells nobody when a guest has rebooted; what can be seen is that it stays up."""
        try:
            with self._session.using(self._stop.host) as ops:
                ops.reboot(self._stop.vm.uuid)
                self._tell(Phase.WATCHING)
                state, reason = ops.watch(self._stop.vm.uuid, WATCH)
        except (HostSilent, HostError) as error:
            if isinstance(error, HostError) and error.kind == "virsh":
                raise
            hint = "Look at its console: fab vm.console."
            raise Unknown(f"{error} It may or may not reboot.", hint) from error
        if state != "running":
            raise Failed(f"It is {state} on {self._stop.host} after the reboot ({reason}).")
        return "done", "it runs; when a guest has rebooted cannot be seen from outside"

    def _take_out_of_lists(self) -> None:
        for host in self._stop.noted_on:
            try:
                with self._session.using(host) as ops:
                    ops.note_running(remove=[self._stop.vm.name])
            except VmfabError as error:
                self._warnings.append(f"/root/running_vms: {error}")

    def _tell(self, phase: Phase, detail: str = "") -> None:
        self._notify(Event(self._stop.vm.name, phase, self._stop.host, "", detail))


def proved(result: VmResult, stop: Stop, verb: Verb, after: Mapping[str, RunningNow | Silent]) -> VmResult:
    """The result as the hosts concerned show it at the end: stopped means that none shows a trace of it."""
    if result.result != "done":
        return result
    if verb is Verb.REBOOT:
        return result
    trace = trace_of(stop.vm, frozenset(), {name: after[name] for name in stop.proof})
    if trace.evidence:
        return replace(result, result="failed", detail=f"it went off, but at the end: {trace.words()}")
    if trace.silent:
        names = ", ".join(silent.host for silent in trace.silent)
        detail = (
            f"off on {stop.host}, but not proved to be off everywhere: {trace.words()}. "
            f"Look at {names}; when it answers, the same again tells whether it is off."
        )
        return replace(result, result="unknown", detail=detail)
    return result
