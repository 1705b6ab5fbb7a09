"""One operator at a time: cluster-wide locks on the store, which end with the link that took them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent, Refused
from tasks.cluster.model import Vm
from tasks.cluster.store.operation import Operation

T = TypeVar("T")

#: Seconds that a change takes at most which libvirt was asked for (see hostops.CHANGE).
LAST_WORD = 65.0


class Locked(Refused):
    """Somebody else works on it; the message says who, with which command, since when, through which host."""

    def __init__(self, what: str, holder: str) -> None:
        super().__init__(f"{what} is being worked on: {describe_holder(holder)}.", how_it_ends(holder))
        #: the operation that holds it; empty when the lock does not say
        self.operation = str(_read(holder).get("operation", ""))


class Lock:
    """An exclusive flock on the shared store, held by the agent of one host.

    It is given back when that connection ends, however it ends. Whoever is about to start a VM holds the VM's
    lock *through the host that will start it* (`hold_through`): a lock that got lost with its link cannot let
    a start slip through, because that start would have to go over the same lost link.
    """

    def __init__(self, session: Session, path: str, what: str, operation: Operation) -> None:
        self._session = session
        self._path = path
        self._what = what
        self._operation = operation
        self._holder: HostOps | None = None

    def hold_through(self, host: str) -> None:
        """Make sure that it is held through the present link to `host`.

        Raises Locked when somebody else holds it, HostSilent or HostError when the host cannot take it.
        """
        try:
            with self._session.using(host) as ops:
                if self._holder is ops:
                    return
                self.release()
                ops.store_lock(self._path, {**self._operation.holder(), "through": host})
                self._holder = ops
        except HostError as error:
            if error.kind != "locked":
                raise
            raise Locked(self._what, error.detail) from error

    @property
    def held(self) -> bool:
        """Whether it is held, as far as was noticed: the link that it was taken through is not lost."""
        return self._holder is not None and self._session.current(self._holder)

    def holder(self) -> HostOps:
        """The link that it is held through. Raises RuntimeError when it is not held: a bug of the caller."""
        if self._holder is None:
            raise RuntimeError(f"the lock of {self._what} is not held")
        return self._holder

    def release(self) -> None:
        """Give it back; a lost link has done so already."""
        held, self._holder = self._holder, None
        if held is None:
            return
        try:
            held.store_unlock(self._path)
        except (HostSilent, HostError):
            # The agent gives it back when its link ends, which is what has just happened.
            return


def lock_of_vm(session: Session, vm: Vm, operation: Operation) -> Lock:
    return Lock(session, f"locks/vm-{vm.uuid}", f"VM {vm.name}", operation)


@contextmanager
def host_lock(session: Session, host: str, through: str, operation: Operation) -> Iterator[None]:
    """Exclude a second drain or undrain of the same host. Raises Locked."""
    lock = Lock(session, f"locks/host-{host}", f"Host {host}", operation)
    lock.hold_through(through)
    try:
        yield
    finally:
        lock.release()


def take_after(take: Callable[[], T], gone: Collection[str], clock: Clock, waiting: Callable[[], None]) -> T:
    """Take a lock that operations which are `gone` may still hold for a moment; what `take` returns.

    A host that is still carrying out what it was asked for last keeps the locks of who asked. `waiting` is
    called before each pause. Raises Locked when it is somebody else's, or after `LAST_WORD` seconds.
    """
    end = clock.monotonic() + LAST_WORD
    while True:
        try:
            return take()
        except Locked as error:
            if error.operation not in gone or clock.monotonic() >= end:
                raise
            waiting()
            clock.sleep(0.5)


def describe_holder(text: str) -> str:
    """The content of a lock file, for people: who, what, since when, through which host and process."""
    data = _read(text)
    try:
        at = float(data["at"])
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
        told = f"{data['by']} runs '{data['command']}' since {since} ({_age(time.time() - at)})"
    except (KeyError, TypeError, ValueError):
        return f"the lock says {text!r}"
    return told + (f", through process {data['pid']} on {_host(data)}" if "pid" in data else "")


def how_it_ends(text: str) -> str:
    """What to do about a lock that somebody holds."""
    data = _read(text)
    wait = "Wait until that is done, and try again. It also ends by itself, 30 s after that laptop has gone"
    return wait + (f"; to end it at once, on {_host(data)}: kill {data['pid']}" if "pid" in data else ".")


def _host(data: dict[str, Any]) -> str:
    return str(data.get("through") or data.get("host"))


def _read(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _age(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
