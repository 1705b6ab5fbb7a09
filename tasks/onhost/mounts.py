"""What is mounted where, from mountinfo: told without touching the file systems."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ESCAPE = re.compile(r"\\([0-7]{3})")


class Mount:
    """One line of mountinfo. `root` is the folder of the file system that is mounted at `point`."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        kind = right.split(" ")
        self.id = int(fields[0])
        self.device = fields[2]
        self.root = _unescape(fields[3])
        self.point = _unescape(fields[4])
        self.fstype = kind[0]
        self.source = _unescape(kind[1])
        self.read_only = "ro" in fields[5].split(",") or "ro" in kind[2].split(",")

    def inside(self, path: str) -> str:
        """`path`, which lies on this mount, as a path within the file system."""
        rest = path[len(self.point) :] if self.point != "/" else path
        return f"{self.root.rstrip('/')}/{rest.lstrip('/')}".rstrip("/") or "/"

    def holds(self, other: Mount | None, path: str) -> bool:
        """Whether `path` on mount `other` is a file that this mount shows too."""
        if other is None or other.device != self.device:
            return False
        return below(other.inside(path), self.root)


def below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda m: chr(int(m.group(1), 8)), text)


def parse(text: str) -> list[Mount]:
    """All mounts of a mountinfo, in its order."""
    return [Mount(line) for line in text.splitlines()]


def table() -> list[Mount]:
    """The mounts that this process sees."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return parse(file.read())


def at(point: str, mounts: Iterable[Mount]) -> Mount | None:
    """What is mounted exactly at `point`; the last one counts, an automounter waiting does not."""
    found = None
    for mount in mounts:
        if mount.point == point:
            found = mount
    return None if found is None or found.fstype == "autofs" else found


def of(path: str, mounts: Iterable[Mount]) -> Mount | None:
    """The mount on which a real path lies."""
    found = None
    for mount in mounts:
        if below(path, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found
