"""Start a VM on one host, and only there: prove that it is off everywhere, start once, observe, never resend.

Every start that vmfab makes goes through `Starter.start`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tasks.cluster.asking.beside import beside
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, Unknown, VmfabError
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import Vm
from tasks.cluster.moving.proof import look_patiently, require_off
from tasks.cluster.store.locks import Lock, Locked

#: Seconds for which a started VM is watched before it counts as running.
WATCH = 3.0

#: Seconds for which a proof is good: a start that was held up is proved again.
FRESH = 1.0


class StartFailed(Failed):
    """The host said that it did not start it, and does not run it. It is off everywhere."""


class RunsAlready(Failed):
    """It was seen running while its start was being prepared; `hosts` says where. Nothing was started."""

    def __init__(self, message: str, hosts: tuple[str, ...]) -> None:
        super().__init__(message, "Run 'fab status' to see where it runs.")
        self.hosts = hosts


class Starter:
    """Starts one VM. Its `lock` is held through the host that starts it."""

    def __init__(
        self,
        session: Session,
        vm: Vm,
        images: frozenset[str],
        lock: Lock,
        *,
        clock: Clock,
        notify: Notify,
        announce: Callable[[str], None] = lambda host: None,
        source: str = "",
    ) -> None:
        """`announce` is called with the host while the proof is made; the start waits for both."""
        self._session = session
        self._vm = vm
        self._images = images
        self._lock = lock
        self._clock = clock
        self._notify = notify
        self._announce = announce
        self._source = source
        self._unanswered: str | None = None

    @property
    def unanswered(self) -> str:
        """The host that got a start and never said how it ended: it may yet carry it out. Empty if none."""
        return self._unanswered or ""

    def start(self, host: str) -> float:
        """Start it on `host`; the clock's monotonic moment at which it was seen running.

        Raises StartFailed (off as far as all hosts show; may be tried again), RunsAlready, Unknown (nothing
        may be started any more before somebody has looked), Locked.
        """
        if self._unanswered is not None and self._unanswered != host:
            # A start that was sent and never answered may still be carried out, there and only there:
            # libvirt refuses a second start on the same host, nobody would refuse it on another one.
            raise Unknown(
                f"{self._unanswered} never answered whether it started {self._vm.name}; "
                f"starting it on {host} could run it twice.",
                f"Look at {self._unanswered}; when it is off there, run 'fab -H {host} vm.start'.",
            )
        try:
            self._lock.hold_through(host)
        except Locked as error:
            if self._unanswered is None:
                raise
            # The agent that got the start keeps the lock until libvirt is done with it.
            raise Unknown(
                f"{host} is still starting {self._vm.name}, and its answer is lost.",
                f"Nothing else was started. Look at {host}, then run 'fab status'.",
            ) from error
        except HostSilent as error:
            raise StartFailed(f"{host} does not answer ({error.reason}).") from error
        except HostError as error:
            raise StartFailed(f"{host}: {error.detail}.") from error
        announced = beside(lambda: self._announce(host))
        try:
            self._prove(host)
            proved = self._clock.monotonic()
        except VmfabError:
            # What was announced is over before anything else is tried; why it cannot start is known already.
            with suppress(VmfabError):
                announced()
            raise
        announced()
        if self._clock.monotonic() - proved > FRESH:
            self._prove(host)
        self._tell(Phase.STARTING, host)
        return self._start_once(host)

    def _prove(self, host: str) -> None:
        self._tell(Phase.PROVING, host)
        trace = look_patiently(self._session, self._vm, self._images, self._clock)
        if trace.evidence:
            raise RunsAlready(f"{self._vm.name} is not off: {trace.words()}.", trace.running_on)
        require_off(trace)
        if trace.stores[host]:
            raise StartFailed(f"{host} cannot use the store: {trace.stores[host]}.")

    def _start_once(self, host: str) -> float:
        # hold_through has opened the link; asking for it again here would open a new one after a loss,
        # without the lock.
        ops = self._lock.holder()
        try:
            ops.start(self._vm.uuid)
        except HostSilent as error:
            return self._observe_unanswered(host, error.reason)
        except HostError as error:
            if error.kind != "virsh":
                return self._observe_unanswered(host, error.detail)
            trace = look_patiently(self._session, self._vm, self._images, self._clock)
            if trace.evidence:
                raise RunsAlready(
                    f"{host} refused to start {self._vm.name} ({error.detail}), yet: {trace.words()}.",
                    trace.running_on,
                ) from error
            require_off(trace)
            raise StartFailed(f"{host} refused to start it: {error.detail}.") from error
        return self._clock.monotonic()

    def _observe_unanswered(self, host: str, reason: str) -> float:
        """The start was sent, its answer is lost. Look until it had time to come back; never send again."""
        self._unanswered = host
        end = self._clock.monotonic() + self._session.comeback
        while True:
            answered = False
            try:
                with self._session.using(host) as ops:
                    seen = ops.running()
                if any(d.vm.uuid == self._vm.uuid and d.state == "running" for d in seen.active):
                    self._unanswered = None
                    return self._clock.monotonic()
                state, answered = f"{host} does not run it", True
            except (HostSilent, HostError) as error:
                state = str(error).rstrip(".")
            if self._clock.monotonic() >= end:
                break
            self._tell(Phase.STARTING, host, f"the answer was lost, looking: {state}")
            self._clock.sleep(1.0)
        if answered:
            raise StartFailed(f"The answer to its start on {host} was lost ({reason}), and {state}.")
        raise Unknown(
            f"The answer to the start of {self._vm.name} on {host} was lost ({reason}); {state}.",
            f"It was not started anywhere else. Look at {host}, then run 'fab status'.",
        )

    def watch(self, host: str, seconds: float = WATCH) -> None:
        """Watch that it stays up. Raises StartFailed when it went off again, Unknown when nobody can say."""
        self._tell(Phase.WATCHING, host)
        end = self._clock.monotonic() + self._session.comeback
        while True:
            try:
                with self._session.using(host) as ops:
                    state, reason = ops.watch(self._vm.uuid, seconds)
                break
            except (HostSilent, HostError) as error:
                if self._clock.monotonic() >= end:
                    raise Unknown(
                        f"{host} started {self._vm.name} but does not say whether it stays up ({error}).",
                        "Run 'fab status' to see.",
                    ) from error
                self._tell(Phase.WATCHING, host, f"waiting for {host}: {error}")
                self._clock.sleep(1.0)
        if state != "running":
            why = f"{state}, {reason}" if reason else state
            raise StartFailed(f"{self._vm.name} did not stay up on {host} ({why}).")

    def _tell(self, phase: Phase, host: str, detail: str = "") -> None:
        self._notify(Event(self._vm.name, phase, self._source, host, detail))
