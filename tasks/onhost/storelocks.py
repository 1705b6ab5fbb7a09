"""Cluster-wide locks: flock(2) on files below MOUNT/.vmfab, each held by a child of this agent."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time

from . import children, storechild
from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

#: Locks of operations: these files go when the operation has ended, all other lock files stay.
OPERATION = "op-"
#: Times that the lock of an operation is tried, and seconds between: somebody may just be looking at it.
_TRIES = 5
_PAUSE = 0.05
FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class _Held:
    def __init__(self, pid: int, keep: int, inode: int) -> None:
        self.pid = pid
        self.keep = keep
        self.inode = inode


_held: dict[tuple[str, str], _Held] = {}
_guard = threading.Lock()


def lock(mount: str, path: str, holder: str, timeout: float) -> None:
    """Hold a cluster-wide flock(2) on a file until `unlock` or the agent's end; its text says who holds it.

    A child holds it. It ends when the agent does, however that ends, but not before a change that libvirt
    has been asked for by this agent (see `kept`). On a full store it is held without its text. Raises
    Problem "locked" with the holder's text.
    """
    parts = storechild.parts_of(path)

    def work() -> tuple[int, str]:
        folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=True)
        # Left open: the lock lives as long as this child.
        fd = _locked(folder, parts[-1])
        try:
            os.ftruncate(fd, 0)
            storechild.put(fd, holder)
        except OSError as error:
            # It is held, which is what counts. A VM that is down must not stay down for want of a note.
            if error.errno not in storechild.NO_SPACE:
                raise
        return os.fstat(fd).st_ino, holder

    _hold(mount, parts, work, timeout)


def seize(mount: str, path: str, timeout: float) -> str:
    """Hold the flock on a file that exists, whose text stays as it is, until `unlock` or the agent's end.

    Its text. Raises Problem "locked" with the text when somebody else holds it, "file" when there is none.
    """
    parts = storechild.parts_of(path)

    def work() -> tuple[int, str]:
        try:
            folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=False)
            fd = os.open(parts[-1], os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder)
            if not flocked(fd):
                raise Problem("locked", storechild.content(fd))
            mine, there = os.fstat(fd), os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise Problem("file", f"there is no {'/'.join(parts)}") from None
        if mine.st_ino != there.st_ino:
            # Replaced in this moment: a lock on what nobody opens any more is none.
            raise Problem("locked", "")
        return mine.st_ino, storechild.content(fd)

    return _hold(mount, parts, work, timeout)


def holds(mount: str, path: str, timeout: float) -> bool:
    """Whether a lock that this agent took is still held: by a living child, on the file that is there."""
    parts = storechild.parts_of(path)
    with _guard:
        held = _held.get((mount, "/".join(parts)))
    if held is None or not children.lives(held.pid):
        return False

    def work() -> bool:
        try:
            folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=False)
            fd = os.open(parts[-1], os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return False
        return os.fstat(fd).st_ino == held.inode and not flocked(fd)

    return bool(storechild.ask(mount, work, timeout))


def _hold(mount: str, parts: Sequence[str], work: Callable[[], tuple[int, str]], timeout: float) -> str:
    """Let a child lock a file and live on; the text that it gives."""
    pid, result, keep = children.spawn(lambda: storechild.worded(mount, work), held=True)
    try:
        inode, text = children.answer(pid, result, timeout=timeout, what=mount)
    except Problem:
        os.close(keep)
        children.kill(pid)
        children.reap(pid)
        raise
    with _guard:
        _held[(mount, "/".join(parts))] = _Held(pid, keep, inode)
    return str(text)


def flocked(fd: int) -> bool:
    """Take the flock on an open file, unless somebody else has it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locked(folder: int, name: str) -> int:
    """A file of this name, locked. Raises Problem "locked" with its text."""
    tries = _TRIES if name.startswith(OPERATION) else 1
    while True:
        fd = os.open(name, FLAGS, 0o600, dir_fd=folder)
        if not flocked(fd):
            tries -= 1
            if not tries:
                raise Problem("locked", storechild.content(fd))
            os.close(fd)
            time.sleep(_PAUSE)
            continue
        try:
            same = os.stat(name, dir_fd=folder, follow_symlinks=False).st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            same = False
        if same:
            return fd
        os.close(fd)  # the one before removed it while we waited: this lock excludes nobody


def unlock(mount: str, path: str) -> None:
    """Give a lock back; one that is not held is a Problem "bad-request"."""
    parts = storechild.parts_of(path)
    with _guard:
        held = _held.pop((mount, "/".join(parts)), None)
    if held is None:
        raise bad(f"{path} is not locked here")
    try:
        os.write(held.keep, b"x")
    except BrokenPipeError:
        raise Problem("store", f"the lock {path} was lost: the process that held it had died") from None
    finally:
        os.close(held.keep)
    if not children.reap(held.pid, timeout=storechild.FACTS):
        raise Problem("store", f"{mount} hangs: the lock {path} could not be given back")


@contextlib.contextmanager
def kept() -> Iterator[list[int]]:
    """Descriptors that keep this agent's locks held in whoever inherits them: changes under way do."""
    # Copies, for another request may give a lock back at any moment, and its number could be another file's.
    with _guard:
        copies = [os.dup(held.keep) for held in _held.values()]
    try:
        yield copies
    finally:
        for fd in copies:
            os.close(fd)
