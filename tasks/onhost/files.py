"""Files of the host itself, read and replaced as wholes. The store's are in `storefiles`."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time

from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Where a replaced file goes, under its own path and the time: beside it, logrotate or libvirt might read it.
KEPT = "/var/backups/vmfab"
#: Bytes beyond which it is no configuration file or script.
LARGEST = 4 << 20


def read(path: str) -> dict[str, Any]:
    """The text, permission bits and SHA-256 of a file; all are null when there is none.

    Bytes that are not UTF-8 survive a `read` and `write`. Raises Problem "file" for what is no regular file.
    """
    found = _read(path)
    if found is None:
        return {"text": None, "mode": None, "sha256": None}
    data, mode = found
    return {"text": data.decode("utf-8", "surrogateescape"), "mode": mode, "sha256": _digest(data)}


def write(path: str, text: str, mode: int, expect: str | None) -> str | None:
    """Replace a file atomically, as root's own; where the old one is kept, None when there was none.

    `expect` is the SHA-256 of what is there, None for nothing: when somebody has changed the file since it
    was read, Problem "file" is raised and nothing is done. Missing folders are made.
    """
    found = _expected(path, expect)
    try:
        kept = None if found is None else _keep(path, found)
        _put(path, text.encode("utf-8", "surrogateescape"), mode)
    except OSError as error:
        raise _worded(path, error) from None
    return kept


def remove(path: str, expect: str) -> str | None:
    """Remove a file; where it is kept, None when it was gone already. Raises Problem as `write` does."""
    if _read(path) is None:
        return None
    found = _expected(path, expect)
    try:
        kept = None if found is None else _keep(path, found)
        os.unlink(path)
        _flush(os.path.dirname(path))
    except OSError as error:
        raise _worded(path, error) from None
    return kept


def _expected(path: str, expect: str | None) -> bytes | None:
    found = _read(path)
    present = None if found is None else _digest(found[0])
    if present != expect:
        raise Problem("file", f"{path} was changed by somebody else meanwhile")
    return None if found is None else found[0]


def _keep(path: str, data: bytes) -> str:
    kept = f"{KEPT}{path}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
    os.makedirs(KEPT, mode=0o700, exist_ok=True)
    _put(kept, data, 0o600)
    return kept


def _read(path: str) -> tuple[bytes, int] | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Problem("file", f"{path} is a symbolic link") from None
        raise _worded(path, error) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Problem("file", f"{path} is no regular file")
        if status.st_size > LARGEST:
            raise Problem("file", f"{path} is too large")
        with open(fd, "rb", closefd=False) as file:
            return file.read(), stat.S_IMODE(status.st_mode)
    finally:
        os.close(fd)


def _put(path: str, data: bytes, mode: int) -> None:
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    # A dot, and no known ending: nobody who reads all files of the folder takes this one.
    draft = f"{folder}/.vmfab-{os.urandom(8).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    _flush(folder)


def _flush(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _worded(path: str, error: OSError) -> Problem:
    return Problem("file", f"{path}: {error.strerror}")
