"""Start a VM as planned: once, with its lock held, proved off everywhere before and watched afterwards."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, Unknown, VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import HostFacts, RunningNow, Silent
from tasks.cluster.moving.proof import trace_of
from tasks.cluster.moving.starting import RunsAlready, Starter, StartFailed
from tasks.cluster.planning.overrides import IGNORE_CORDON
from tasks.cluster.store.locks import Locked, lock_of_vm
from tasks.cluster.store.operation import Operation
from tasks.cluster.vm.result import VmResult
from tasks.cluster.vm.startplan import Start

#: Limits how many VMs start on one host at the same time.
Gate = Callable[[str], AbstractContextManager[object]]

_PHASES = {"done": Phase.STARTED, "already": Phase.STARTED, "left": Phase.LEFT, "failed": Phase.FAILED}


class _Left(Exception):
    """Nothing was done; the text says why."""


class VmStart:
    """Carries out one start. `run` raises nothing foreseeable: the result says how it ended."""

    def __init__(
        self,
        session: Session,
        start: Start,
        operation: Operation,
        *,
        clock: Clock,
        notify: Notify,
        gate: Gate,
        overrides: Collection[str] = (),
    ) -> None:
        self._session = session
        self._start = start
        self._clock = clock
        self._notify = notify
        self._gate = gate
        self._overrides = overrides
        self._lock = lock_of_vm(session, start.vm, operation)
        self._warnings: list[str] = list(start.warnings)

    def run(self) -> VmResult:
        """Lock, look again, start, watch, note it in running_vms."""
        begin = self._clock.monotonic()
        result, detail = self._carry_out()
        self._lock.release()
        self._tell(_PHASES.get(result, Phase.UNKNOWN), detail)
        return VmResult(
            self._start.vm,
            self._start.host,
            result,
            detail,
            tuple(self._warnings),
            self._clock.monotonic() - begin,
        )

    def _carry_out(self) -> tuple[str, str]:
        host = self._start.host
        try:
            self._tell(Phase.CHECKING)
            self._lock.hold_through(host)
            images = self._look_again()
            self._define()
            self._release_others()
            starter = Starter(
                self._session, self._start.vm, images, self._lock, clock=self._clock, notify=self._notify
            )
            self._start_on(starter, host)
            starter.watch(host)
        except (Locked, _Left, HostSilent, HostError) as error:
            # What the host says to the start itself comes as StartFailed: here it was not yet asked for.
            return "left", str(error)
        except RunsAlready as error:
            if error.hosts == (host,):
                return "already", "somebody started it meanwhile"
            return "left", str(error)
        except Unknown as error:
            return "unknown", str(error)
        except VmfabError as error:
            return "failed", str(error)
        self._note(host, lambda ops: ops.note_running(add=[self._start.vm.name]))
        return "done", ""

    def _look_again(self) -> frozenset[str]:
        """The images, as the host sees them now that nobody else may work on the VM. Raises _Left."""
        start = self._start
        facts = self._session.observe(plan=True, hosts=(start.host,)).hosts[start.host]
        if isinstance(facts, Silent):
            raise _Left(f"{start.host} does not answer ({facts.reason})")
        if facts.libvirt_problem:
            raise _Left(f"{start.host}: {facts.libvirt_problem}")
        if facts.store.problem:
            raise _Left(f"{start.host}: {facts.store.problem}")
        if IGNORE_CORDON not in self._overrides and any(c.host == start.host for c in facts.cordons):
            raise _Left(f"{start.host} was cordoned meanwhile")
        return start.images | self._images_there(facts)

    def _images_there(self, facts: HostFacts) -> frozenset[str]:
        domain = next((d for d in facts.domains if d.vm.uuid == self._start.vm.uuid), None)
        if domain is None and not self._start.xml:
            raise _Left(f"{facts.host} does not define it any more")
        if domain is not None and self._start.xml:
            raise _Left(f"somebody defined it on {facts.host} meanwhile")
        return frozenset() if domain is None else domain.images

    def _define(self) -> None:
        if not self._start.xml:
            return
        self._tell(Phase.DEFINING)
        try:
            self._use(self._start.host, lambda ops: ops.define(self._start.xml))
        except HostError as error:
            raise _Left(f"could not be defined: {error}") from error

    def _release_others(self) -> None:
        """Take it, and who shares its images, out of running_vms elsewhere. Raises Failed when a host cannot.

        After a reboot these hosts would start a second writer, and only a guard would keep them from it.
        """
        for host, name in self._start.noted:
            try:
                with self._session.using(host) as ops:
                    ops.note_running(remove=[name])
            except (HostSilent, HostError) as error:
                raise Failed(f"{host} would start {name} at its next boot: {error}") from error

    def _start_on(self, starter: Starter, host: str) -> None:
        with self._gate(host):
            try:
                starter.start(host)
            except StartFailed as first:
                if not starter.unanswered:
                    raise
                # Its answer was lost and it does not run. If it still comes, the same host refuses it.
                try:
                    starter.start(host)
                except StartFailed as second:
                    hint = f"Look at {host} before it is started elsewhere."
                    raise Unknown(f"{first} {second}", hint) from None
                self._warnings.append(f"started only at the second try; the first: {first}")

    def _use(self, host: str, action: Callable[[HostOps], None]) -> None:
        with self._session.using(host) as ops:
            action(ops)

    def _note(self, host: str, action: Callable[[HostOps], None]) -> None:
        """Book-keeping, whose trouble never spoils a start."""
        try:
            self._use(host, action)
        except VmfabError as error:
            self._warnings.append(f"/root/running_vms: {error}")

    def _tell(self, phase: Phase, detail: str = "") -> None:
        self._notify(Event(self._start.vm.name, phase, "", self._start.host, detail))


def verified(result: VmResult, start: Start, after: Mapping[str, RunningNow | Silent]) -> VmResult:
    """The result as all hosts show it at the end: started means running there and nowhere else."""
    if result.result not in ("done", "already"):
        return result
    trace = trace_of(start.vm, start.images, after)
    if trace.running_on == (start.host,):
        silent = tuple(f"at the end {s.host} did not answer ({s.reason})" for s in trace.silent)
        return replace(result, warnings=(*result.warnings, *silent))
    if trace.silent and not trace.evidence:
        return replace(result, result="unknown", detail=f"started, but not seen at the end: {trace.words()}")
    return replace(result, result="failed", detail=f"started, but at the end: {trace.words()}")
