"""Files of the host itself (configuration, hooks, units): read and replaced whole, never edited in place."""

from __future__ import annotations

import hashlib
import os
import stat

from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Added to the name of a file that was replaced: its text before.
OLD = ".vmfab-old"


def read(path: str) -> dict[str, Any]:
    """{text, mode}; both null when there is no such file. Links are followed; a folder is a Problem."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return {"text": None, "mode": None}
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise Problem("changed", f"{path} is no file")
    with open(fd, "rb") as file:
        data = file.read()
    return {"text": data.decode("utf-8", "surrogateescape"), "mode": stat.S_IMODE(found.st_mode)}


def write(path: str, text: str, mode: int, expected: str | None) -> None:
    """Replace a file atomically, owned by root; its old text stays beside it.

    `expected` is the digest of the text that it may replace, None if there must be none. Raises Problem
    "changed" when there is another one.
    """
    before = _as_expected(path, expected)
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    if before is not None and before != text:
        _put(path + OLD, before, 0o600)
    _put(path, text, mode)


def remove(path: str, expected: str) -> None:
    """Remove a file, and the old text beside it. Raises Problem "changed" as `write` does."""
    if _as_expected(path, expected) is None:
        return
    os.unlink(path)
    if os.path.exists(path + OLD):
        os.unlink(path + OLD)
    _flush(os.path.dirname(path))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _as_expected(path: str, expected: str | None) -> str | None:
    text = read(path)["text"]
    if (None if text is None else digest(text)) != expected:
        raise Problem("changed", f"{path} has changed since it was read")
    return None if text is None else str(text)


def _put(path: str, text: str, mode: int) -> None:
    draft = f"{path}.{os.urandom(4).hex()}.tmp"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    _flush(os.path.dirname(path))


def _flush(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
