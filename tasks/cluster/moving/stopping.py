"""Stop a VM on the host that runs it, and know for certain how that ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent, Unknown
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import RunningNow, Vm
from tasks.cluster.moving.starting import RunsAlready

#: Seconds after which a guest that has not reacted is asked again: ACPI is ignored at GRUB and while booting.
ASK_AGAIN = 15.0

#: Seconds that a process gets to disappear after libvirt said that it destroyed it.
SETTLE = 5.0

#: Errors that say nothing about the VM: libvirtd or the agent did not answer in time.
_NO_ANSWER = ("libvirt-silent", "deadline")


@dataclass(frozen=True, slots=True)
class Stopped:
    """`off` is what the host said at the end; `how` is "shutdown", "destroyed" or "was off"."""

    off: bool
    how: str
    #: the clock's monotonic moment at which the end of the guest was known here
    at: float


class Stopper:
    """Stops one VM on one host. `announce` is told "shutdown" or "destroy" before each is asked for."""

    def __init__(
        self,
        session: Session,
        vm: Vm,
        host: str,
        *,
        clock: Clock,
        notify: Notify,
        announce: Callable[[str], None] = lambda step: None,
        target: str = "",
        pid: int | None = None,
    ) -> None:
        """`pid` is the qemu process that is meant, where known: not one that somebody starts afterwards."""
        self._session = session
        self._vm = vm
        self._host = host
        self._clock = clock
        self._notify = notify
        self._announce = announce
        self._target = target
        self._pid = pid

    def shutdown(self, timeout: float) -> Stopped:
        """Ask the guest to shut down, wait on the host itself for at most `timeout` seconds.

        Not off in time is an answer (`off` False), not an error. Raises Unknown when the host stopped
        answering and did not come back, RunsAlready when it runs anew there.
        """
        self._announce("shutdown")
        self._tell(Phase.SHUTTING_DOWN, 0.0, timeout)
        begin = self._clock.monotonic()
        asked = False
        while True:
            try:
                with self._session.using(self._host) as ops:
                    if not asked:
                        how = self._ask(ops)
                        asked = True
                    left = max(0.0, timeout - (self._clock.monotonic() - begin))
                    reply = ops.wait_off(
                        self._vm.uuid,
                        timeout=left,
                        ask_again=ASK_AGAIN,
                        progress=lambda e: self._progress(e, begin, timeout),
                    )
                    if not reply["off"]:
                        self._require_same(ops.running())
                return Stopped(bool(reply["off"]), how, self._clock.monotonic())
            except HostSilent as error:
                self._wait_for_host(error.reason)
            except HostError as error:
                if error.kind not in _NO_ANSWER:
                    raise
                self._wait_for_host(error.detail)

    def destroy(self) -> Stopped:
        """Stop it hard: first with SIGTERM only, then with SIGKILL.

        `off` False means that it still runs: libvirt failed to kill it. Raises Unknown when the host stopped
        answering: a destroy that may not have worked counts as running.
        """
        for graceful in (True, False):
            self._announce("destroy")
            self._tell(Phase.DESTROYING, 0.0, None, "SIGTERM" if graceful else "SIGKILL")
            try:
                with self._session.using(self._host) as ops:
                    ops.destroy(self._vm.uuid, graceful=graceful)
            except HostSilent as error:
                self._wait_for_host(error.reason)
            except HostError as error:
                if error.kind in _NO_ANSWER:
                    self._wait_for_host(error.detail)
                elif error.kind != "virsh":
                    raise
            stopped = self.settled()
            if stopped.off:
                return Stopped(True, "destroyed", stopped.at)
        return Stopped(False, "destroyed", self._clock.monotonic())

    def settled(self) -> Stopped:
        """Look whether it is off, giving a process that is just ending a moment to do so."""
        while True:
            try:
                with self._session.using(self._host) as ops:
                    reply = ops.wait_off(self._vm.uuid, timeout=SETTLE, ask_again=None)
                return Stopped(bool(reply["off"]), "was off", self._clock.monotonic())
            except HostSilent as error:
                self._wait_for_host(error.reason)
            except HostError as error:
                if error.kind not in _NO_ANSWER:
                    raise
                self._wait_for_host(error.detail)

    def _ask(self, ops: HostOps) -> str:
        try:
            ops.shutdown(self._vm.uuid)
        except HostError as error:
            if error.kind != "virsh":
                raise
            # It may have gone off by itself just now; anything else is libvirt's own reason.
            if not bool(ops.wait_off(self._vm.uuid, timeout=0.0, ask_again=None)["off"]):
                raise
            return "was off"
        return "shutdown"

    def _wait_for_host(self, reason: str) -> None:
        """Wait until the host answers again; what it did meanwhile is observed afterwards, never assumed."""
        end = self._clock.monotonic() + self._session.comeback
        while True:
            try:
                with self._session.using(self._host) as ops:
                    seen = ops.running()
                self._require_same(seen)
                return
            except HostSilent as error:
                reason = error.reason
            except HostError as error:
                reason = error.detail
            if self._clock.monotonic() >= end:
                raise Unknown(
                    f"{self._host} stopped answering while {self._vm.name} was being stopped ({reason}); "
                    "it counts as running there.",
                    f"Look at {self._host}, then run 'fab status'.",
                )
            self._tell(Phase.SHUTTING_DOWN, 0.0, None, f"waiting for {self._host}: {reason}")
            self._clock.sleep(1.0)

    def _require_same(self, seen: RunningNow) -> None:
        """Raise RunsAlready when it went off unseen, and somebody has started it on this host again.

        Whoever did that wants it there; and a destroy would hit a guest that is booting.
        """
        running = {d.pid for d in seen.active if d.vm.uuid == self._vm.uuid and d.pid is not None}
        if self._pid is not None and running and self._pid not in running:
            raise RunsAlready(
                f"{self._vm.name} went off on {self._host}, and somebody started it there again.",
                (self._host,),
            )

    def _progress(self, event: Mapping[str, Any], begin: float, timeout: float) -> None:
        problem = str(event.get("problem", ""))
        detail = problem or ("asked again" if int(event.get("asked", 0)) > 0 else "")
        self._tell(Phase.SHUTTING_DOWN, self._clock.monotonic() - begin, timeout, detail)

    def _tell(self, phase: Phase, waited: float, limit: float | None, detail: str = "") -> None:
        self._notify(Event(self._vm.name, phase, self._host, self._target, detail, waited, limit))
