"""Files below MOUNT/.vmfab: read and written whole, each by a child with a deadline."""

from __future__ import annotations

import contextlib
import os
import time

from . import storechild, storelocks
from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Change = tuple[str, str | None, str | None]


def init(mount: str, timeout: float) -> str:
    """Give the store an identity unless it has one; the identity. Safe against others doing it now."""

    def work() -> str:
        root = storechild.root_of(mount)
        parts = [storechild.FOLDER, "store-id"]
        present = storechild.read(root, parts)
        if present is None:
            with open("/proc/sys/kernel/random/uuid", encoding="ascii") as file:
                mine = file.read()
            with contextlib.suppress(FileExistsError):
                storechild.write(root, parts, mine, exclusive=True)
            present = storechild.read(root, parts)
        if not (present or "").strip():
            raise Problem("store", f"{mount}/{storechild.FOLDER}/store-id is empty")
        return (present or "").strip()

    return str(storechild.ask(mount, work, timeout))


def read(mount: str, path: str, timeout: float) -> str | None:
    """The text of a file; None when there is none."""
    parts = storechild.parts_of(path)
    text = storechild.ask(mount, lambda: storechild.read(storechild.root_of(mount), parts), timeout)
    return None if text is None else str(text)


def names(mount: str, path: str, timeout: float) -> list[str]:
    """The names in a folder, sorted; none when there is no such folder."""
    parts = storechild.parts_of(path)
    return list(storechild.ask(mount, lambda: storechild.names(storechild.root_of(mount), parts), timeout))


def read_dir(mount: str, path: str, timeout: float, unless: str = "") -> dict[str, str]:
    """The texts of all files in a folder, by name; sub-folders are left out.

    With `unless`, files whose last line contains it are left out, too.
    """
    parts = storechild.parts_of(path)

    def work() -> dict[str, str]:
        root = storechild.root_of(mount)
        found = {}
        for name in storechild.names(root, parts):
            try:
                text = storechild.read(root, [*parts, name])
            except IsADirectoryError:
                continue
            if text is None:
                continue  # removed in this moment
            if not (unless and unless in text.rstrip("\n").rpartition("\n")[2]):
                found[name] = text
        return found

    return dict(storechild.ask(mount, work, timeout))


def write(mount: str, path: str, text: str, *, exclusive: bool, timeout: float) -> None:
    """Write a file whole or not at all. `exclusive`: Problem "locked" with its text if it exists."""
    parts = storechild.parts_of(path)

    def work() -> None:
        root = storechild.root_of(mount)
        try:
            storechild.write(root, parts, text, exclusive=exclusive)
        except FileExistsError:
            raise Problem("locked", storechild.read(root, parts) or "") from None

    storechild.ask(mount, work, timeout)


def append(mount: str, path: str, text: str, timeout: float) -> None:
    """Append to a file, made if need be, and flush it to the disk; on failure nothing of it is left."""
    parts = storechild.parts_of(path)

    def work() -> None:
        folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=True)
        fd = os.open(parts[-1], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600, dir_fd=folder)
        size = os.fstat(fd).st_size
        try:
            storechild.put(fd, text)
        except OSError:
            os.ftruncate(fd, size)
            raise
        if size == 0:
            os.fsync(folder)

    storechild.ask(mount, work, timeout)


def remove(mount: str, path: str, timeout: float) -> None:
    """Remove a file; already gone is fine. Lock files stay, except an operation's, by who holds it."""
    parts = storechild.parts_of(path)
    if parts[1] == "locks" and not parts[-1].startswith(storelocks.OPERATION):
        raise bad("lock files are never removed")

    def work() -> None:
        try:
            folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=False)
            os.unlink(parts[-1], dir_fd=folder)
        except FileNotFoundError:
            return
        os.fsync(folder)

    storechild.ask(mount, work, timeout)


def makedirs(mount: str, path: str, timeout: float) -> None:
    parts = storechild.parts_of(path)

    def work() -> None:
        storechild.folder_of(storechild.root_of(mount), parts, make=True)

    storechild.ask(mount, work, timeout)


def in_folder(mount: str, work: Callable[[int], None], timeout: float) -> None:
    """Do something in the opened folder MOUNT/.vmfab, made if need be."""

    def inside() -> None:
        work(storechild.folder_of(storechild.root_of(mount), [storechild.FOLDER], make=True))

    storechild.ask(mount, inside, timeout)


def stat(mount: str, path: str, timeout: float) -> dict[str, Any]:
    """When a file was last written, and this host's own time; `mtime` is None when there is no file."""
    parts = storechild.parts_of(path)

    def work() -> dict[str, Any]:
        try:
            folder = storechild.folder_of(storechild.root_of(mount), parts[:-1], make=False)
            mtime = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False).st_mtime
        except FileNotFoundError:
            return {"mtime": None, "now": time.time()}
        return {"mtime": mtime, "now": time.time()}

    return dict(storechild.ask(mount, work, timeout))


def swap(mount: str, path: str, changes: Sequence[Change], timeout: float) -> None:
    """Replace files that are as expected, all of them or none, under the flock on `path`.

    `changes` are (path, expected text, new text); None stands for no file. Waits for the flock, which is
    given back at once. Raises Problem "file" when a file is not as expected.
    """
    lock = storechild.parts_of(path)
    wanted = [(storechild.parts_of(name), expected, text) for name, expected, text in changes]
    until = time.monotonic() + 0.8 * timeout

    def work() -> None:
        root = storechild.root_of(mount)
        folder = storechild.folder_of(root, lock[:-1], make=True)
        fd = os.open(lock[-1], storelocks.FLAGS, 0o600, dir_fd=folder)
        while not storelocks.flocked(fd):
            if time.monotonic() > until:
                raise Problem("locked", storechild.content(fd))
            time.sleep(0.02)
        for parts, expected, _ in wanted:
            if storechild.read(root, parts) != expected:
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

    storechild.ask(mount, work, timeout)


def _put_back(root: int, parts: Sequence[str], text: str | None) -> None:
    if text is not None:
        storechild.write(root, parts, text, exclusive=False)
        return
    folder = storechild.folder_of(root, parts[:-1], make=True)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(parts[-1], dir_fd=folder)
        os.fsync(folder)
