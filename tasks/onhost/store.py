"""Files and locks below MOUNT/.vmfab, each touched in a child with a deadline: a hung store hangs only that.

Nothing is ever read from or written to the bare folder under an unmounted store: every operation first opens
the mount point and checks that what it opened is the mount.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time

from . import children, mounts
from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .mounts import Mount

    Change = tuple[str, str | None, str | None]

FOLDER = ".vmfab"
#: Bytes below which the store counts as full: QEMU pauses guests long after a journal can be written.
FULL = 16 << 20
#: Seconds that a store may take to answer before it counts as hung.
FACTS = 3.0
SLOW = 6.0
_DRAFT = ".tmp-"
#: Locks of operations: these files go when the operation has ended, all other lock files stay.
OPERATION = "op-"
#: Times that the lock of an operation is tried, and seconds between: somebody may just be looking at it.
_TRIES = 5
_PAUSE = 0.05
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


# -- facts ---------------------------------------------------------------------------------------------


def facts(
    mount: str, table: Sequence[Mount], full: int = FULL, *, operations: bool = False
) -> dict[str, Any]:
    """The store as this host sees it; `problem` is one sentence, empty when it can be used.

    With fewer than `full` bytes free it counts as full. With `operations` those that have not ended are told.
    """
    found = mounts.at(mount, table)
    said: dict[str, Any] = {"mount": mount, "mounted": found is not None, "problem": "", "store_id": ""}
    said.update(fstype="", source="", total_bytes=0, free_bytes=0, cordons=[], operations=[])
    if found is None:
        said["problem"] = f"{mount} is not mounted"
        return said
    said.update(fstype=found.fstype, source=found.source)
    try:
        said.update(children.ask(lambda: _space(mount, operations), timeout=FACTS, what=mount))
    except Problem as problem:
        if problem.kind != "store":
            raise
        said["problem"] = problem.message
        return said
    if found.read_only:
        said["problem"] = f"{mount} is mounted read-only"
    elif said["free_bytes"] < full:
        said["problem"] = f"{mount} is full ({said['free_bytes'] >> 20} MiB free)"
    return said


def _space(mount: str, operations: bool) -> dict[str, Any]:
    root = _root(mount)
    space = os.fstatvfs(root)
    text = _read(root, [FOLDER, "store-id"])
    cordons = [_read(root, [FOLDER, "cordons", name]) for name in _names(root, [FOLDER, "cordons"])]
    return {
        "cordons": [text for text in cordons if text is not None],
        "operations": _operations(root) if operations else [],
        # Kernels since 5.13 tell a file system's own identity, which is the same on every host.
        "store_id": (text or "").strip() or (f"fsid-{space.f_fsid:x}" if space.f_fsid else ""),
        "total_bytes": space.f_blocks * space.f_frsize,
        "free_bytes": space.f_bavail * space.f_frsize,
    }


def _operations(root: int) -> list[dict[str, Any]]:
    """Operations that have not ended: who, and whether somebody is still at it (their lock is held)."""
    found = []
    parts = [FOLDER, "locks"]
    names = [name for name in _names(root, parts) if name.startswith(OPERATION)]
    folder = _folder(root, parts, make=False) if names else -1
    for name in names:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            continue  # ended in this moment
        try:
            held = False
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                held = True
            found.append({"id": name[len(OPERATION) :], "holder": _content(fd), "held": held})
        finally:
            os.close(fd)
    return found


# -- files ---------------------------------------------------------------------------------------------


def init(mount: str, timeout: float) -> str:
    """Give the store an identity unless it has one; the identity. Safe against others doing it now."""

    def work() -> str:
        root = _root(mount)
        parts = [FOLDER, "store-id"]
        present = _read(root, parts)
        if present is None:
            with open("/proc/sys/kernel/random/uuid", encoding="ascii") as file:
                mine = file.read()
            with contextlib.suppress(FileExistsError):
                _write(root, parts, mine, exclusive=True)
            present = _read(root, parts)
        if not (present or "").strip():
            raise Problem("store", f"{mount}/{FOLDER}/store-id is empty")
        return (present or "").strip()

    return str(_ask(mount, work, timeout))


def read(mount: str, path: str, timeout: float) -> str | None:
    """The text of a file; None when there is none."""
    parts = parts_of(path)
    text = _ask(mount, lambda: _read(_root(mount), parts), timeout)
    return None if text is None else str(text)


def names(mount: str, path: str, timeout: float) -> list[str]:
    """The names in a folder, sorted; none when there is no such folder."""
    parts = parts_of(path)
    return list(_ask(mount, lambda: _names(_root(mount), parts), timeout))


def read_dir(mount: str, path: str, timeout: float, unless: str = "") -> dict[str, str]:
    """The texts of all files in a folder, by name; sub-folders are left out.

    With `unless`, files whose last line contains it are left out, too.
    """
    parts = parts_of(path)

    def work() -> dict[str, str]:
        root = _root(mount)
        found = {}
        for name in _names(root, parts):
            try:
                text = _read(root, [*parts, name])
            except IsADirectoryError:
                continue
            if text is None:
                continue  # removed in this moment
            if not (unless and unless in text.rstrip("\n").rpartition("\n")[2]):
                found[name] = text
        return found

    return dict(_ask(mount, work, timeout))


def write(mount: str, path: str, text: str, *, exclusive: bool, timeout: float) -> None:
    """Write a file whole or not at all. `exclusive`: Problem "locked" with its text if it exists."""
    parts = parts_of(path)

    def work() -> None:
        root = _root(mount)
        try:
            _write(root, parts, text, exclusive=exclusive)
        except FileExistsError:
            raise Problem("locked", _read(root, parts) or "") from None

    _ask(mount, work, timeout)


def append(mount: str, path: str, text: str, timeout: float) -> None:
    """Append to a file, made if need be, and flush it to the disk; on failure nothing of it is left."""
    parts = parts_of(path)

    def work() -> None:
        folder = _folder(_root(mount), parts[:-1], make=True)
        fd = os.open(parts[-1], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        size = os.fstat(fd).st_size
        try:
            _put(fd, text)
        except OSError:
            os.ftruncate(fd, size)
            raise
        if size == 0:
            os.fsync(folder)

    _ask(mount, work, timeout)


def remove(mount: str, path: str, timeout: float) -> None:
    """Remove a file; already gone is fine. Lock files stay, except an operation's, by who holds it."""
    parts = parts_of(path)
    if parts[1] == "locks" and not parts[-1].startswith(OPERATION):
        raise bad("lock files are never removed")

    def work() -> None:
        try:
            folder = _folder(_root(mount), parts[:-1], make=False)
            os.unlink(parts[-1], dir_fd=folder)
        except FileNotFoundError:
            return
        os.fsync(folder)

    _ask(mount, work, timeout)


def makedirs(mount: str, path: str, timeout: float) -> None:
    parts = parts_of(path)

    def work() -> None:
        _folder(_root(mount), parts, make=True)

    _ask(mount, work, timeout)


def in_folder(mount: str, work: Callable[[int], None], timeout: float) -> None:
    """Do something in the opened folder MOUNT/.vmfab, made if need be."""

    def inside() -> None:
        work(_folder(_root(mount), [FOLDER], make=True))

    _ask(mount, inside, timeout)


def stat(mount: str, path: str, timeout: float) -> dict[str, Any]:
    """When a file was last written, and this host's own time; `mtime` is None when there is no file."""
    parts = parts_of(path)

    def work() -> dict[str, Any]:
        try:
            folder = _folder(_root(mount), parts[:-1], make=False)
            mtime = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return {"mtime": None, "now": time.time()}
        return {"mtime": mtime, "now": time.time()}

    return dict(_ask(mount, work, timeout))


def swap(mount: str, path: str, changes: Sequence[Change], timeout: float) -> None:
    """Replace files that are as expected, all of them or none, under the flock on `path`.

    `changes` are (path, expected text, new text); None stands for no file. Waits for the flock, which is
    given back at once. Raises Problem "file" when a file is not as expected.
    """
    lock = parts_of(path)
    wanted = [(parts_of(name), expected, text) for name, expected, text in changes]
    until = time.monotonic() + 0.8 * timeout

    def work() -> None:
        root = _root(mount)
        fd = os.open(lock[-1], _LOCK_FLAGS, 0o600, dir_fd=_folder(root, lock[:-1], make=True))
        while not _flocked(fd):
            if time.monotonic() > until:
                raise Problem("locked", _content(fd))
            time.sleep(0.02)
        for parts, expected, _ in wanted:
            if _read(root, parts) != expected:
                raise Problem("file", f"{'/'.join(parts)} was changed by somebody else meanwhile")
        done = []
        try:
            for parts, expected, text in wanted:
                done.append((parts, expected))
                _put_back(root, parts, text)
        except OSError:
            for parts, before in done:
                _put_back(root, parts, before)
            raise

    _ask(mount, work, timeout)


def _put_back(root: int, parts: Sequence[str], text: str | None) -> None:
    if text is not None:
        _write(root, parts, text, exclusive=False)
        return
    folder = _folder(root, parts[:-1], make=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(parts[-1], dir_fd=folder)
        os.fsync(folder)


# -- locks ---------------------------------------------------------------------------------------------


_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


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
    parts = parts_of(path)

    def work() -> tuple[int, str]:
        folder = _folder(_root(mount), parts[:-1], make=True)
        # Left open: the lock lives as long as this child.
        fd = _locked(folder, parts[-1])
        try:
            os.ftruncate(fd, 0)
            _put(fd, holder)
        except OSError as error:
            # It is held, which is what counts. A VM that is down must not stay down for want of a note.
            if error.errno not in _NO_SPACE:
                raise
        return os.fstat(fd).st_ino, holder

    _hold(mount, parts, work, timeout)


def seize(mount: str, path: str, timeout: float) -> str:
    """Hold the flock on a file that exists, whose text stays as it is, until `unlock` or the agent's end.

    Its text. Raises Problem "locked" with the text when somebody else holds it, "file" when there is none.
    """
    parts = parts_of(path)

    def work() -> tuple[int, str]:
        try:
            folder = _folder(_root(mount), parts[:-1], make=False)
            fd = os.open(parts[-1], os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder)
            if not _flocked(fd):
                raise Problem("locked", _content(fd))
            mine, there = os.fstat(fd), os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise Problem("file", f"there is no {'/'.join(parts)}") from None
        if mine.st_ino != there.st_ino:
            # Replaced in this moment: a lock on what nobody opens any more is none.
            raise Problem("locked", "")
        return mine.st_ino, _content(fd)

    return _hold(mount, parts, work, timeout)


def holds(mount: str, path: str, timeout: float) -> bool:
    """Whether a lock that this agent took is still held: by a living child, on the file that is there."""
    parts = parts_of(path)
    with _guard:
        held = _held.get((mount, "/".join(parts)))
    if held is None or not children.lives(held.pid):
        return False

    def work() -> bool:
        try:
            folder = _folder(_root(mount), parts[:-1], make=False)
            fd = os.open(parts[-1], os.O_RDWR | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return False
        return os.fstat(fd).st_ino == held.inode and not _flocked(fd)

    return bool(_ask(mount, work, timeout))


def _hold(mount: str, parts: Sequence[str], work: Callable[[], tuple[int, str]], timeout: float) -> str:
    """Let a child lock a file and live on; the text that it gives."""
    pid, result, keep = children.spawn(lambda: _worded(mount, work), held=True)
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


def _flocked(fd: int) -> bool:
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
        fd = os.open(name, _LOCK_FLAGS, 0o600, dir_fd=folder)
        if not _flocked(fd):
            tries -= 1
            if not tries:
                raise Problem("locked", _content(fd))
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
    parts = parts_of(path)
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
    if not children.reap(held.pid, timeout=FACTS):
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


# -- within the child ----------------------------------------------------------------------------------


def within(mount: str, work: Callable[[int], Any], timeout: float) -> Any:
    """The JSON-able result of `work`, done in a child that is given the mount's root folder, opened.

    Raises Problem "store" when it is not mounted or does not answer within `timeout` seconds.
    """
    return _ask(mount, lambda: work(_root(mount)), timeout)


def _ask(mount: str, work: Callable[[], Any], timeout: float) -> Any:
    return children.ask(lambda: _worded(mount, work), timeout=timeout, what=mount)


def _worded(mount: str, work: Callable[[], Any]) -> Any:
    """The result of `work`, with the failures of a file system in plain words."""
    try:
        return work()
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise Problem("store", f"{mount} is full") from None
        if error.errno == errno.EROFS:
            raise Problem("store", f"{mount} is read-only") from None
        name = f" ({error.filename})" if error.filename else ""
        raise Problem("store", f"{mount}: {error.strerror}{name}") from None


def parts_of(path: str) -> list[str]:
    """A path below MOUNT/.vmfab as its components, from MOUNT on. Raises Problem "bad-request"."""
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or part.startswith(_DRAFT) or len(os.fsencode(part)) > 255:
            raise bad(f"{path!r} is no path below {FOLDER}")
    return [FOLDER, *parts]


def _root(mount: str) -> int:
    """The mount's root folder, opened. Raises Problem "store" when it is not mounted."""
    try:
        root = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise Problem("store", f"{mount} is not mounted") from None
    with open(f"/proc/self/fdinfo/{root}", encoding="ascii") as file:
        pairs = [line.split() for line in file]
    number = next(int(p[1]) for p in pairs if p[0] == "mnt_id:")
    for found in mounts.table():
        if found.id == number and found.point == mount and found.fstype != "autofs":
            return root
    raise Problem("store", f"{mount} is not mounted")


def _folder(root: int, parts: Sequence[str], *, make: bool) -> int:
    folder = root
    for part in parts:
        if make:
            try:
                os.mkdir(part, 0o700, dir_fd=folder)
                os.fsync(folder)
            except FileExistsError:
                pass
        folder = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    return folder


def _content(fd: int) -> str:
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        data = file.read()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem("store", "a file below .vmfab is not UTF-8") from None


def _read(root: int, parts: Sequence[str]) -> str | None:
    try:
        folder = _folder(root, parts[:-1], make=False)
        fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return _content(fd)
    finally:
        os.close(fd)


def _names(root: int, parts: Sequence[str]) -> list[str]:
    try:
        folder = _folder(root, parts, make=False)
    except FileNotFoundError:
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith(_DRAFT))


def _put(fd: int, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def _write(root: int, parts: Sequence[str], text: str, *, exclusive: bool) -> None:
    folder = _folder(root, parts[:-1], make=True)
    draft = _DRAFT + os.urandom(8).hex()
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        _put(fd, text)
        if exclusive:
            # link(2) is atomic in the whole cluster and fails when the name is taken.
            os.link(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(draft, dir_fd=folder)
        else:
            os.rename(draft, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(draft, dir_fd=folder)
        raise
    os.fsync(folder)
