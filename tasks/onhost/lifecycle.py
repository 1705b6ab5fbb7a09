"""Start, watch, shut down, wait for the end of, and destroy a domain."""

from __future__ import annotations

import os
import select
import threading
import time

from . import processes, storelocks, virsh
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .processes import Process

#: Python has it since 3.9, Linux since 5.3.
_pidfd_open: Callable[[int], int] | None = getattr(os, "pidfd_open", None)
RUNNING = ("running", "idle")
#: Seconds between looks at what /proc alone cannot tell.
_POLL = 0.05
#: libvirt notices within some 10 ms; asking it costs about 25 ms of a processor.
_CONFIRM = 0.02
#: Seconds that libvirt gets to notice that a QEMU process has ended.
_NOTICE = 15.0


def state(uuid: str) -> tuple[str, str] | None:
    """(state, reason); None when libvirt knows no such domain.

    Raises Problem libvirt-silent or virsh.
    """
    try:
        return virsh.state(virsh.run("domstate", uuid, "--reason"))
    except Problem as problem:
        if problem.kind != "virsh" or not virsh.gone(problem.message):
            raise
        # virsh says the same when the connection broke in between; a whole list cannot be mistaken.
        if uuid in virsh.uuids(virsh.run("list", "--all", "--uuid")):
            raise
        return None


def start(uuid: str, timeout: float) -> str:
    """Start it; the state that it is in then."""
    change("start", uuid, timeout=timeout)
    # libvirt has just said so; to ask again would cost as much downtime as it takes.
    return RUNNING[0] if processes.with_uuid(uuid) else state_after(uuid)


def state_after(uuid: str) -> str:
    """The state; a domain that is gone is off when no process of it is left."""
    found = state(uuid)
    if found is not None:
        return found[0]
    return "no domain, but a qemu process" if processes.with_uuid(uuid) else virsh.OFF


def change(*argv: str, timeout: float, stdin: str | None = None) -> str:
    """Ask libvirt for a change. It outlives the agent, and so do the agent's locks until it has ended."""
    with storelocks.kept() as locks:
        return virsh.run(*argv, timeout=timeout, stdin=stdin, change=True, keep=locks)


def undefine(uuid: str, timeout: float) -> None:
    """Forget the definition, never a managed save (then it fails), the NVRAM or the TPM's state."""
    flags = ("--snapshots-metadata", "--checkpoints-metadata", "--keep-nvram")
    try:
        change("undefine", uuid, *flags, "--keep-tpm", timeout=timeout)
    except Problem as problem:
        if "support option --keep-tpm" not in problem.message:
            raise
        # libvirt before 8.9 keeps it without being told.
        change("undefine", uuid, *flags, timeout=timeout)


def watch(uuid: str, seconds: float) -> tuple[str, str]:
    """State and reason after so many seconds, or as soon as its process has ended."""
    with _Ends(processes.with_uuid(uuid)) as ends:
        if ends.wait(seconds):
            return _settle(uuid)
    found = state(uuid)
    return (state_after(uuid), "unknown") if found is None else found


def _settle(uuid: str) -> tuple[str, str]:
    """State and reason once libvirt has noticed that the process has ended."""
    until = time.monotonic() + _NOTICE
    while True:
        found = state(uuid)
        if found is None:
            return state_after(uuid), "unknown"
        if found[0] not in RUNNING or processes.with_uuid(uuid) or time.monotonic() > until:
            return found
        time.sleep(_POLL)


def wait_off(
    uuid: str, timeout: float, ask_again: float | None, event: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Wait until the domain is proved off: no process of it in /proc, and libvirt says "shut off".

    Returns {"off", "state", "waited", "ended_at"}; `ended_at` is when the end of its process was seen. A
    domain that libvirt does not know (it was transient) is off when no process of it is left. Events tell
    each second what is going on. Raises Problem libvirt-silent: then it is not known to be off.
    """
    begin = time.monotonic()
    until = begin + timeout
    ended_at: float | None = None
    with _Asker(uuid, ask_again, event) as asker:
        while True:
            with _Ends(processes.with_uuid(uuid)) as ends:
                seen = bool(ends.count)
                while ends.count and time.monotonic() < until:
                    if ends.wait(min(1.0, until - time.monotonic())):
                        break
                    waited = round(time.monotonic() - begin, 3)
                    event({"waited": waited, "asked": asker.asked})
                if seen and not ends.count:
                    ended_at = time.time()
            if ended_at is not None or not seen:
                # The process is gone: libvirt gets time to notice, even when ours is up.
                until = max(until, time.monotonic() + _NOTICE) if ended_at is not None else until
                if _confirmed(uuid, until):
                    return _said(True, virsh.OFF, begin, ended_at)
            if time.monotonic() >= until:
                return _said(False, state_after(uuid), begin, ended_at)
            ended_at = None  # it runs again, or another process of it does


def _said(off: bool, seen: str, begin: float, ended_at: float | None) -> dict[str, Any]:
    return {"off": off, "state": seen, "waited": round(time.monotonic() - begin, 3), "ended_at": ended_at}


def _confirmed(uuid: str, until: float) -> bool:
    """Whether it is off by libvirt's word and in /proc, as soon as both say so; False: it runs (again)."""
    pause = _CONFIRM
    while True:
        found = state(uuid)
        if processes.with_uuid(uuid):
            return False
        if found is None or found[0] == virsh.OFF:
            return True
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
        pause = min(pause * 1.3, 0.25)


class _Ends:
    """Waits for the end of processes: by pidfd where Python has it (3.9), else by looking every 50 ms."""

    def __init__(self, found: Sequence[Process]) -> None:
        self._fds: dict[int, int] = {}
        self._watched: list[Process] = []
        for process in found:
            try:
                if _pidfd_open is None:
                    raise OSError("this Python has no pidfd_open")
                fd = _pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            except OSError:
                self._watched.append(process)
                continue
            # Between its discovery and now the number may have gone to another process.
            if process.alive():
                self._fds[fd] = process.pid
            else:
                os.close(fd)
        self._poller = select.poll()
        for fd in self._fds:
            self._poller.register(fd, select.POLLIN)

    @property
    def count(self) -> int:
        return len(self._fds) + len(self._watched)

    def wait(self, seconds: float) -> bool:
        """Whether all have ended, at the latest after so many seconds."""
        until = time.monotonic() + seconds
        while self.count:
            left = until - time.monotonic()
            if left <= 0:
                return False
            for fd, _ in self._poller.poll(1000 * min(left, _POLL if self._watched else left)):
                self._poller.unregister(fd)
                os.close(fd)
                del self._fds[fd]
            self._watched = [process for process in self._watched if process.alive()]
        return True

    def __enter__(self) -> _Ends:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()


class _Asker:
    """Asks the guest again now and then.

    In a thread, for a hung guest agent or libvirtd must not delay the moment in which the end is seen.
    """

    def __init__(self, uuid: str, every: float | None, event: Callable[[dict[str, Any]], None]) -> None:
        self._uuid = uuid
        self._every = every
        self._event = event
        self._over = threading.Event()
        self.asked = 0

    def __enter__(self) -> _Asker:
        if self._every:
            threading.Thread(target=self._run, args=(self._every,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def _run(self, every: float) -> None:
        while not self._over.wait(every):
            self._ask()

    def _ask(self) -> None:
        if not processes.with_uuid(self._uuid):
            return
        self.asked += 1
        try:
            change("shutdown", self._uuid, timeout=_NOTICE)
        except Problem as problem:
            # A guest that is going off at this moment takes no more requests.
            if not self._over.is_set() and processes.with_uuid(self._uuid):
                self._event({"asked": self.asked, "problem": problem.message})
