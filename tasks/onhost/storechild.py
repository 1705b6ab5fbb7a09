"""Below MOUNT/.vmfab, within a child with a deadline: a hung store hangs only that.

Nothing is ever read from or written to the bare folder under an unmounted store: every operation first opens
the mount point and checks that what it opened is the mount.
"""

from __future__ import annotations

import errno
import os

from . import children, mounts
from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

FOLDER = ".vmfab"
#: Seconds that a store may take to answer before it counts as hung.
FACTS = 3.0
SLOW = 6.0
DRAFT = ".tmp-"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def within(mount: str, work: Callable[[int], Any], timeout: float) -> Any:
    """The JSON-able result of `work`, done in a child that is given the mount's root folder, opened.

    Raises Problem "store" when it is not mounted or does not answer within `timeout` seconds.
    """
    return ask(mount, lambda: work(root_of(mount)), timeout)


def ask(mount: str, work: Callable[[], Any], timeout: float) -> Any:
    return children.ask(lambda: worded(mount, work), timeout=timeout, what=mount)


def worded(mount: str, work: Callable[[], Any]) -> Any:
    """The result of `work`, with the failures of a file system in plain words."""
    try:
        return work()
    except OSError as error:
        if error.errno in NO_SPACE:
            raise Problem("store", f"{mount} is full") from None
        if error.errno == errno.EROFS:
            raise Problem("store", f"{mount} is read-only") from None
        name = f" ({error.filename})" if error.filename else ""
        raise Problem("store", f"{mount}: {error.strerror}{name}") from None


def parts_of(path: str) -> list[str]:
    """A path below MOUNT/.vmfab as its components, from MOUNT on. Raises Problem "bad-request"."""
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", "..") or "\0" in part or part.startswith(DRAFT) or len(os.fsencode(part)) > 255:
            raise bad(f"{path!r} is no path below {FOLDER}")
    return [FOLDER, *parts]


def root_of(mount: str) -> int:
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


def folder_of(root: int, parts: Sequence[str], *, make: bool) -> int:
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


def content(fd: int) -> str:
    with open(os.dup(fd), "rb") as file:
        file.seek(0)
        data = file.read()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Problem("store", "a file below .vmfab is not UTF-8") from None


def read(root: int, parts: Sequence[str]) -> str | None:
    try:
        folder = folder_of(root, parts[:-1], make=False)
        fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        return content(fd)
    finally:
        os.close(fd)


def names(root: int, parts: Sequence[str]) -> list[str]:
    try:
        folder = folder_of(root, parts, make=False)
    except FileNotFoundError:
        return []
    return sorted(name for name in os.listdir(folder) if not name.startswith(DRAFT))


def put(fd: int, text: str) -> None:
    data = text.encode("utf-8", "surrogateescape")
    while data:
        data = data[os.write(fd, data) :]
    os.fsync(fd)


def write(root: int, parts: Sequence[str], text: str, *, exclusive: bool) -> None:
    folder = folder_of(root, parts[:-1], make=True)
    draft = DRAFT + os.urandom(8).hex()
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        put(fd, text)
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
