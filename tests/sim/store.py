"""The shared file system: one truth, seen through each host's mount; images that remember who wrote them."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim.errors import AgentError

if TYPE_CHECKING:
    from tests.sim.guests import Guest

MOUNT = "/vmstorage"
TERABYTE = 1 << 40


@dataclass(slots=True)
class Boot:
    """One qemu process's time as a writer of an image; the counter goes up ten times a second."""

    boot_id: str
    host: str
    vm: str
    began: float
    first: int
    ended: float | None = None
    last: int | None = None


@dataclass(eq=False, slots=True)
class Image:
    """A disk image: what it is, who has it open for writing, and the counter its guests keep on it."""

    ino: int
    path: str
    writers: list[Guest] = field(default_factory=list)
    boots: list[Boot] = field(default_factory=list)
    counter: int = 0
    bytes: int = 1 << 30
    #: paths on the store of the files that it reads through
    bases: tuple[str, ...] = ()
    #: what a program reads at its beginning; nothing tells of a backing file
    header: bytes = b""

    def opened(self, guest: Guest, now: float) -> None:
        self.settle(now)
        self.writers.append(guest)
        self.boots.append(Boot(guest.boot_id, guest.host.name, guest.name, now, first=self.counter + 1))

    def closed(self, guest: Guest, now: float) -> None:
        self.settle(now)
        self.writers.remove(guest)
        boot = self._boot_of(guest)
        boot.ended, boot.last = now, self.counter

    def settle(self, now: float) -> None:
        """Write what the running guest has counted until now; with two of them, the last to write wins."""
        for guest in self.writers:
            boot = self._boot_of(guest)
            self.counter = boot.first + int((now - boot.began) * 10)

    def _boot_of(self, guest: Guest) -> Boot:
        """A guest that was saved and goes on has several; the last is under way."""
        return next(b for b in reversed(self.boots) if b.boot_id == guest.boot_id)

    def faults(self) -> list[str]:
        """What the counters prove: overlapping writers, old memory on a new disk, a count that went back."""
        found = []
        seen: set[str] = set()
        for one, two in zip(self.boots, self.boots[1:], strict=False):
            seen.add(one.boot_id)
            if two.boot_id in seen and two.boot_id != one.boot_id:
                found.append(
                    f"{self.path}: {two.vm} on {two.host} goes on from before {one.vm} on {one.host}"
                )
            if one.ended is None or two.began < one.ended:
                found.append(f"{self.path}: {two.vm} on {two.host} wrote while {one.vm} on {one.host} did")
            elif one.last is not None and two.first <= one.last:
                found.append(f"{self.path}: {two.vm} on {two.host} began at {two.first}, after {one.last}")
        return found


class SimStore:
    """The file system itself. `links` are symbolic links by path on it; `files` lie below .vmfab.

    `folders` are those that were made and may be empty, by path on it.
    """

    def __init__(self, store_id: str) -> None:
        self.store_id = store_id
        self.images: dict[str, Image] = {}
        self.links: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.folders: set[str] = set()
        self.locks: dict[str, Any] = {}
        #: when a file was last written, by the clock of the host that did it
        self.written: dict[str, float] = {}
        self.full = False
        self.hung = False
        self.total_bytes = TERABYTE
        self._inodes = iter(range(1001, 1 << 62))

    def image(self, path: str) -> Image:
        """The image of this path relative to the mount, made if absent."""
        if path not in self.images:
            self.images[path] = Image(next(self._inodes), path)
        return self.images[path]

    def resolve(self, path: str) -> str:
        """Where a path on the file system leads, symbolic links followed."""
        for _ in range(40):
            if path not in self.links:
                return path
            path = posixpath.normpath(posixpath.join(posixpath.dirname(path), self.links[path]))
        return path


class View:
    """One host's mount of a store."""

    def __init__(self, store: SimStore) -> None:
        self.store = store
        self.mounted = True
        self.read_only = False
        self.hung = False

    def problem(self, *, full_counts: bool = True) -> str:
        """What keeps this host from using the store; empty if nothing does."""
        if not self.mounted:
            return f"{MOUNT} is not mounted"
        if self.hung or self.store.hung:
            return f"{MOUNT} hangs (no answer within 3 s)"
        if self.read_only:
            return f"{MOUNT} is mounted read-only"
        if self.store.full and full_counts:
            return f"{MOUNT} is full (0 MiB free)"
        return ""

    def check(self, *, write: bool) -> None:
        """Raise AgentError "store" unless a file can be read (or written) there now."""
        problem = self.problem()
        if problem and (write or not (self.mounted and not self.hanging)):
            raise AgentError("store", problem)

    @property
    def hanging(self) -> bool:
        return self.mounted and (self.hung or self.store.hung)

    def file(self, path: str) -> Image | None:
        """The image behind an absolute path, if it lies on the mounted store."""
        inside = self.inside(path)
        return None if inside is None else self.store.images.get(inside)

    def inside(self, path: str) -> str | None:
        """The path on the store's file system that an absolute path leads to; None if outside of it."""
        path = posixpath.normpath(path)
        if not self.mounted or not path.startswith(MOUNT + "/"):
            return None
        return self.store.resolve(path[len(MOUNT) + 1 :])
