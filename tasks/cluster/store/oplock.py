"""The lock of an operation under way: one that has not ended and whose lock is free was interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent, VmfabError
from tasks.cluster.store.locks import Lock, Locked
from tasks.cluster.store.operation import Operation


def path_of(operation_id: str) -> str:
    return f"locks/op-{operation_id}"


class OperationLock:
    """Held from before the first line of the journal until after its last one.

    Its file is there for as long as the operation has not ended, so that every host can tell of operations
    that were interrupted without reading a journal. Safe to use from several threads.
    """

    def __init__(
        self, session: Session, hosts: Iterable[str], operation_id: str, holder: Operation, what: str = ""
    ) -> None:
        self._hosts = tuple(hosts)
        self._id = operation_id
        self._mine = holder.id
        self._lock = Lock(session, path_of(operation_id), what or "This operation", holder)
        self._guard = threading.Lock()
        self._again_thread: threading.Thread | None = None
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What went wrong with it on the way; never more than a warning."""
        return tuple(self._warnings)

    def take(self) -> None:
        """Take it through the first host that can. Raises Locked, and Failed when no host can."""
        problems = []
        for host in self._hosts:
            try:
                self._lock.hold_through(host)
                return
            except HostSilent as error:
                problems.append(f"{host} does not answer ({error.reason})")
            except HostError as error:
                problems.append(f"{host}: {error.detail}")
        told = "; ".join(problems) or "no host has the store mounted"
        raise Failed(f"The operation's lock cannot be taken: {told}.", "Nothing was changed.")

    def keep(self) -> None:
        """When the link that holds it was lost: take it again through any host, beside what goes on here."""
        if self._lock.held:
            return
        with self._guard:
            if self._again_thread is not None and self._again_thread.is_alive():
                return
            self._again_thread = threading.Thread(target=self._again, name="operation lock", daemon=True)
            self._again_thread.start()

    def _again(self) -> None:
        try:
            self.take()
        except Locked as error:
            # Our own agent may not have noticed yet that its link is gone: then it is held after all.
            if error.operation != self._mine:
                self._warnings[f"{error.message} It may have taken this operation for interrupted."] = None
        except VmfabError as error:
            self._warnings[f"Other laptops may take this operation for interrupted: {error.message}"] = None

    def end(self) -> None:
        """The operation has ended, and its journal says so: remove the file, give the lock back."""
        self._settled()
        if self._lock.held:
            try:
                self._lock.holder().store_remove(path_of(self._id))
            except (HostSilent, HostError) as error:
                self._warnings[f"The operation's lock file is left on the store: {error}"] = None
        self.release()

    def release(self) -> None:
        """Give it back. An operation that has not ended is interrupted from now on."""
        self._settled()
        self._lock.release()

    def _settled(self) -> None:
        """Wait for the end of an attempt to take it again."""
        with self._guard:
            thread = self._again_thread
        if thread is not None:
            thread.join()
