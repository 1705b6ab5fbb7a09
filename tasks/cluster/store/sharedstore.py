"""Files that vmfab keeps on the shared store, reached through whichever host can reach it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.asking.storeimages import Survey
from tasks.cluster.errors import Failed, HostError, HostSilent
from tasks.cluster.model import Snapshot

T = TypeVar("T")


class SharedStore:
    """Reads and writes below MOUNT/.vmfab through the first of `hosts` that can, remembering which one could.

    All methods raise Failed, with every host's reason, when none can.
    """

    def __init__(self, session: Session, hosts: Sequence[str]) -> None:
        self._session = session
        self._hosts = list(hosts)
        self._lock = threading.Lock()

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts through which it is reached, the one that was able last first."""
        with self._lock:
            return tuple(self._hosts)

    def names(self, folder: str) -> tuple[str, ...]:
        """The names in a folder, sorted; none when it does not exist."""
        return self._through(lambda ops: ops.store_list(folder))

    def read_folder(self, folder: str, *, unless: str = "") -> dict[str, str]:
        """All files of a folder, by name; empty when the folder does not exist.

        With `unless`, those whose last line contains it are left out.
        """
        return self._through(lambda ops: ops.store_read_dir(folder, unless=unless))

    def read(self, path: str) -> str | None:
        return self._through(lambda ops: ops.store_read(path))

    def held(self, paths: Sequence[str]) -> dict[str, str]:
        """Which of these lock files somebody holds, with the holder's text."""
        return self._through(lambda ops: ops.store_held(paths))

    def images(self, seconds: float) -> Survey:
        """Files below the mount that look like images, as far as they are found within so many seconds."""
        return self._through(lambda ops: ops.store_images(seconds))

    def write(self, path: str, text: str) -> None:
        """Replace a file atomically."""
        self._through(lambda ops: ops.store_write(path, text))

    def append(self, path: str, text: str) -> None:
        """Append durably. After a host was lost the text may stand there twice."""
        self._through(lambda ops: ops.store_append(path, text))

    def remove(self, path: str) -> None:
        self._through(lambda ops: ops.store_remove(path))

    def _through(self, action: Callable[[HostOps], T]) -> T:
        problems = []
        with self._lock:
            hosts = list(self._hosts)
        for name in hosts:
            try:
                with self._session.using(name) as ops:
                    answer = action(ops)
            except HostSilent as error:
                problems.append(f"{name} does not answer ({error.reason})")
            except HostError as error:
                problems.append(f"{name}: {error.detail}")
            else:
                self._prefer(name)
                return answer
        raise Failed(f"The shared store cannot be used: {'; '.join(problems) or 'no host has it mounted'}.")

    def _prefer(self, name: str) -> None:
        with self._lock:
            self._hosts.remove(name)
            self._hosts.insert(0, name)


def observe(session: Session, *, dry_run: bool) -> Snapshot:
    """The cluster, to plan on; a store without identity is given one first, unless it is a dry run.

    Kernels before 5.13 tell none, so a file has to. Hosts that see different file systems make different
    ones, and are found out by that.
    """
    snapshot = session.observe(plan=True)
    lacking = [f.host for f in snapshot.facts() if not f.store.problem and not f.store.store_id]
    if dry_run or not lacking:
        return snapshot
    for name in lacking:
        with session.using(name) as ops:
            ops.store_init()
    return session.observe(plan=True)


def store_of(session: Session, snapshot: Snapshot, *, last: Sequence[str] = ()) -> SharedStore:
    """The store through the hosts that have it in good order; those in `last` (being emptied) come last."""
    able = [facts.host for facts in snapshot.facts() if not facts.store.problem]
    able.sort(key=lambda name: name in last)
    return SharedStore(session, able)
