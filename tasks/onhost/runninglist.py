"""/root/running_vms: the names of the VMs that cron starts again after a reboot, one a line."""

from __future__ import annotations

import fcntl
import os
import threading
import time

from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATH = "/root/running_vms"
_here = threading.Lock()
#: Seconds to wait for somebody else who is editing the list.
_PATIENCE = 4.0


def read(path: str) -> list[str] | None:
    """The names; None when there is no such file. CRLF, blank lines and a missing last line end are fine."""
    lines = _lines(path)
    return None if lines is None else [name for name in map(_name, lines) if name]


def write(path: str, names: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Make the list name these; the names before and after. Names that stay keep their place in it."""

    def changed(lines: list[str]) -> list[str]:
        return [name + "\n" for name in in_order([_name(line) for line in lines], names)]

    return _edit(path, changed)


def in_order(before: Sequence[str], names: Sequence[str]) -> list[str]:
    """These names, each once: first those of `before` in its order, then the others in theirs."""
    return [name for name in dict.fromkeys([*before, *names]) if name in names]


def note(path: str, add: Sequence[str], remove: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Add and remove names, and leave the other lines as they are; the names before and after."""

    def changed(lines: list[str]) -> list[str]:
        kept = [line for line in lines if _name(line) not in remove]
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        present = {_name(line) for line in kept}
        return kept + [name + "\n" for name in dict.fromkeys(add) if name not in present]

    for name in (*add, *remove):
        if not _name(name) or "\n" in name:
            raise bad(f"{name!r} is no name")
    return _edit(path, changed)


def _name(line: str) -> str:
    """The name in a line; one of blanks only is empty, other blanks belong to the name."""
    name = line.rstrip("\r\n")
    return name if name.strip() else ""


def _lines(path: str) -> list[str] | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            return list(file)
    except FileNotFoundError:
        return None


def _edit(path: str, change: Callable[[list[str]], list[str]]) -> tuple[list[str] | None, list[str]]:
    folder = os.path.dirname(path)
    with _here:
        # Other agents edit the same list; its folder is what does not change when the file is replaced.
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _wait_for(lock, path)
            before = read(path)
            old = _lines(path)
            new = change(old or [])
            if old is None or new != old:
                _replace(folder, path, new)
            return before, [name for name in map(_name, new) if name]
        finally:
            os.close(lock)


def _wait_for(lock: int, path: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > until:
                raise Problem("locked", f"somebody else is editing {path}") from None
            time.sleep(0.02)


def _replace(folder: str, path: str, lines: Sequence[str]) -> None:
    draft = f"{folder}/.running_vms.{os.getpid()}.{os.urandom(4).hex()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder_fd)
    finally:
        os.close(folder_fd)
