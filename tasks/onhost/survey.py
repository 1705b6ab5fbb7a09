"""What an audit asks beside everything else: the clock, who holds which locks, images below the mount.

Nothing here changes anything. What touches the store is done in a child with a deadline, and within bounds:
a store with a million files must not make an audit take an hour.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time

from . import storechild

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Folders below the mount's root are looked into down to this depth.
DEPTH = 8
#: Entries of folders that are looked at, at most.
MOST = 20000
#: Bytes below which a file is no image: even an empty qcow2 file is larger.
SMALLEST = 1 << 16
#: Endings that mean an image, and its format.
SUFFIXES = {
    ".img": "raw",
    ".raw": "raw",
    ".qcow2": "qcow2",
    ".qcow": "qcow",
    ".qed": "qed",
    ".vmdk": "vmdk",
    ".vdi": "vdi",
    ".vhd": "vhd",
    ".vhdx": "vhdx",
}
_QCOW2 = b"QFI\xfb"
#: (place in the file, bytes there, format)
_MAGIC = (
    (0, _QCOW2, "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (512, b"EFI PART", "raw"),
    (512, b"LABELONE", "raw"),
    (1080, b"\x53\xef", "raw"),
    (0, b"XFSB", "raw"),
    (0, b"LUKS\xba\xbe", "raw"),
    (510, b"\x55\xaa", "raw"),
)
_CD = (0x8001, b"CD001")
_KERNEL = (0x202, b"HdrS")
_HEAD = 0x8006
_EXTERNAL_DATA = 0x44415441
_TEXT = 1 << 16


def clock() -> dict[str, float]:
    """This host's time, seconds since the epoch."""
    return {"at": time.time()}


def held(mount: str, paths: Sequence[str], timeout: float) -> dict[str, str]:
    """Those of these lock files that somebody holds, with the holder's text; none is made or written.

    Each is tried for a moment by a shared lock, which two audits do not notice of each other.
    """
    parts = {path: storechild.parts_of(path) for path in paths}

    def work(root: int) -> dict[str, str]:
        found = {}
        for path, names in parts.items():
            text = _holder(root, "/".join(names))
            if text is not None:
                found[path] = text
        return found

    return dict(storechild.within(mount, work, timeout))


def _holder(root: int, path: str) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=root)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, _TEXT, 0).decode("utf-8", "replace")
    finally:
        os.close(fd)
    return None


def images(mount: str, seconds: float) -> dict[str, Any]:
    """Files below the mount that look like images of VMs, CD images and vmfab's own folder left out.

    {"images": [{path, ino, size, allocated, modified, format, needs}], "complete", "why"}: paths are
    absolute, sizes in bytes, `needs` the inodes of backing and data files. After `seconds`, or too many
    files, the answer is what was found until then, and `why` says so.
    """
    return dict(
        storechild.within(mount, lambda root: _Walk(root, mount, seconds).answer(), seconds + storechild.SLOW)
    )


class _Walk:
    def __init__(self, root: int, mount: str, seconds: float) -> None:
        self.root = root
        self.mount = mount
        self.device = os.fstat(root).st_dev
        self.until = time.monotonic() + seconds
        self.left = MOST
        self.found: dict[int, dict[str, Any]] = {}

    def answer(self) -> dict[str, Any]:
        why = deep = ""
        folders = [("", 0)]
        while folders and not why:
            folder, depth = folders.pop()
            for name, found in self._entries(folder):
                path = f"{folder}/{name}" if folder else name
                self.left -= 1
                if time.monotonic() > self.until:
                    why = "the store answers too slowly"
                elif self.left < 0:
                    why = f"there are more than {MOST} files"
                if why:
                    break
                if stat.S_ISDIR(found.st_mode) and found.st_dev == self.device and path != storechild.FOLDER:
                    if depth < DEPTH:
                        folders.append((path, depth + 1))
                    else:
                        deep = f"folders are nested deeper than {DEPTH}"
                elif stat.S_ISREG(found.st_mode) and found.st_size >= SMALLEST:
                    self._look(path, found)
        images = sorted(self.found.values(), key=lambda image: image["path"])
        why = why or deep
        return {"images": images, "complete": not why, "why": why}

    def _entries(self, folder: str) -> list[tuple[str, os.stat_result]]:
        try:
            fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self.root)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            entries = []
            for name in sorted(os.listdir(fd)):
                try:
                    entries.append((name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
                except FileNotFoundError:
                    continue
            return entries
        finally:
            os.close(fd)

    def _look(self, path: str, found: os.stat_result) -> None:
        if found.st_ino in self.found or path.endswith(".iso"):
            return
        head = self._head(path)
        kind = kind_of(path, head)
        if not kind:
            return
        self.found[found.st_ino] = {
            "path": f"{self.mount}/{path}",
            "ino": found.st_ino,
            "size": found.st_size,
            "allocated": found.st_blocks * 512,
            "modified": found.st_mtime,
            "format": kind,
            "needs": self._needs(path, head) if kind == "qcow2" else [],
        }

    def _head(self, path: str) -> bytes:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            fd = os.open(path, flags | os.O_NOATIME, dir_fd=self.root)
        except FileNotFoundError:
            return b""
        except PermissionError:  # only its owner may leave the time of access alone
            fd = os.open(path, flags, dir_fd=self.root)
        try:
            return os.pread(fd, _TEXT, 0)
        finally:
            os.close(fd)

    def _needs(self, path: str, head: bytes) -> list[int]:
        found = []
        for name in needed(head):
            try:
                there = os.stat(os.path.join(self.mount, os.path.dirname(path), name))
            except OSError:
                continue
            if there.st_dev == self.device:
                found.append(there.st_ino)
        return found


def kind_of(path: str, head: bytes) -> str:
    """The format of an image, "" for what does not look like one. What is in it counts before its name."""
    if _has(head, *_CD):
        return ""
    for place, magic, kind in _MAGIC[:6]:
        if _has(head, place, magic):
            return kind
    named = SUFFIXES.get(os.path.splitext(path)[1].lower(), "")
    if named or _has(head, *_KERNEL):
        return named
    return next((kind for place, magic, kind in _MAGIC if _has(head, place, magic)), "")


def _has(head: bytes, place: int, magic: bytes) -> bool:
    return head[place : place + len(magic)] == magic


def needed(head: bytes) -> list[str]:
    """Names of the backing and the external data file in a qcow2 header; those on the network left out."""
    found = []
    at, size = _number(head, 8, 8), _number(head, 16, 4)
    if at:
        found.append(os.fsdecode(head[at : at + size]))
    if _number(head, 4, 4) >= 3 and _number(head, 72, 8) & 4:
        place = _number(head, 100, 4)
        while 0 < place < len(head) and (kind := _number(head, place, 4)):
            length = _number(head, place + 4, 4)
            if kind == _EXTERNAL_DATA:
                found.append(os.fsdecode(head[place + 8 : place + 8 + length]))
            place += 8 + (length + 7) // 8 * 8
    return [name for name in map(_file_of, found) if name]


def _file_of(name: str) -> str:
    if name.startswith("json:"):
        try:
            return _in_json(json.loads(name[len("json:") :]))
        except ValueError:
            return ""
    protocol, colon, rest = name.partition(":")
    if colon and protocol == "file":
        return rest
    # As QEMU has it: a colon before the first slash makes it a protocol.
    return "" if colon and "/" not in protocol else name


def _in_json(value: object) -> str:
    if isinstance(value, dict):
        for key, inner in value.items():
            if isinstance(inner, str) and key.rpartition(".")[2] == "filename":
                return inner
            found = _in_json(inner)
            if found:
                return found
    return ""


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")
