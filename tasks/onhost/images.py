"""What the paths in definitions, and the files that qemu processes hold, really are."""

from __future__ import annotations

import os
import re
import stat

from . import children, mounts
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from .mounts import Mount
    from .processes import OpenFile

_RAW_FILE = re.compile(r"(?:^|[,.])(?:file|filename|file\.filename)=((?:[^,]|,,)+)")
_ABSENT = (FileNotFoundError, NotADirectoryError)
#: Seconds after which a file system that does not tell what a file is counts as hung.
LOOK = 2.0


def named(xml: str) -> set[str]:
    """Absolute paths of disks (with backing files and copy targets), media, firmware, kernels, folders."""
    import xml.etree.ElementTree as ElementTree

    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise Problem("bug", f"virsh prints a definition that is not XML ({error})") from None
    found: set[str] = set()
    for tag in ("disk", "filesystem", "memory"):
        for device in root.iterfind(f"./devices/{tag}"):
            for source in device.iter("source"):
                found.update(source.get(key, "") for key in ("file", "dev", "dir"))
                found.add((source.findtext("path") or "").strip())
    for tag in ("loader", "nvram", "kernel", "initrd", "dtb"):
        for node in root.iterfind(f"./os/{tag}"):
            found.add((node.text or "").strip())
            found.update(source.get("file", "") or source.get("dev", "") for source in node.iter("source"))
    for node in root.iter("{http://libvirt.org/schemas/domain/qemu/1.0}arg"):
        found.update(m.group(1).replace(",,", ",") for m in _RAW_FILE.finditer(node.get("value", "")))
    return {path for path in found if path.startswith("/")}


def look(paths: Iterable[str], table: Sequence[Mount], store: Mount | None) -> dict[str, dict[str, Any]]:
    """Each path's file: real, exists, on_store, dev, ino, block.

    The paths of one mount are looked at together in a child. When their file system hangs, they are said not
    to exist; the store's own problem then says that it hangs.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        mount = mounts.of(os.path.normpath(path), table)
        groups.setdefault("" if mount is None else mount.point, []).append(path)

    def one(group: list[str]) -> dict[str, Any]:
        try:
            return dict(children.ask(lambda: {p: _stat_path(p) for p in group}, timeout=LOOK, what=group[0]))
        except Problem as problem:
            if problem.kind != "store":
                raise
            return {p: _entry(os.path.normpath(p), None) for p in group}

    found: dict[str, dict[str, Any]] = {}
    for part in children.together(*[lambda g=group: one(g) for group in groups.values()]):
        found.update(part)
    for entry in found.values():
        real = entry["real"]
        entry["on_store"] = store is not None and store.holds(mounts.of(real, table), real)
    return found


def look_open(opened: Sequence[OpenFile], store: Mount | None) -> list[dict[str, Any] | None]:
    """The same, with `path`, for files that processes hold open; None for what is no file or block device.

    When the file system hangs, /proc still tells the inode.
    """
    groups: dict[str, list[int]] = {}
    for index, file in enumerate(opened):
        groups.setdefault("" if file.mount is None else file.mount.device, []).append(index)
    found: list[dict[str, Any] | None] = [None] * len(opened)

    def one(group: list[int]) -> None:
        links = [opened[i].link for i in group]
        try:
            entries = children.ask(
                lambda: [_stat_link(x) for x in links], timeout=LOOK, what=opened[group[0]].path
            )
        except Problem as problem:
            if problem.kind != "store":
                raise
            entries = [_entry("", None) for _ in links]
            for i, entry in zip(group, entries):
                entry.update(exists=True, ino=opened[i].ino, dev=_device(opened[i].mount))
        for i, entry in zip(group, entries):
            found[i] = entry

    children.together(*[lambda g=group: one(g) for group in groups.values()])
    for file, entry in zip(opened, found):
        if entry is not None:
            real = file.path[: -len(" (deleted)")] if file.path.endswith(" (deleted)") else file.path
            entry["path"] = entry["real"] = real
            entry["on_store"] = store is not None and store.holds(file.mount, real)
    return found


def _device(mount: Mount | None) -> int:
    if mount is None:
        return 0
    major, _, minor = mount.device.partition(":")
    return os.makedev(int(major), int(minor))


def _stat_path(path: str) -> dict[str, Any]:
    real = os.path.realpath(path)
    try:
        return _entry(real, os.stat(real))
    except _ABSENT:
        return _entry(real, None)
    except OSError:
        # A broken mount or disk below this one path: nothing that could be used is there.
        return _entry(real, None)


def _stat_link(link: str) -> dict[str, Any] | None:
    try:
        found = os.stat(link)
    except (FileNotFoundError, ProcessLookupError):
        return None  # closed, or the process has ended
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        return None
    return _entry("", found)


def _entry(real: str, found: os.stat_result | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"real": real, "exists": found is not None, "on_store": False}
    entry.update(dev=0, ino=0, block="")
    if found is not None and stat.S_ISBLK(found.st_mode):
        # Several device nodes may lead to one device: what counts is its number.
        entry.update(dev=found.st_rdev, block=_stable_name(found.st_rdev))
    elif found is not None:
        entry.update(dev=found.st_dev, ino=found.st_ino)
    return entry


def _stable_name(rdev: int) -> str:
    """A block device's name that is the same on every host that sees it; "" when it has none."""
    number = f"{os.major(rdev)}:{os.minor(rdev)}"
    sysfs = f"/sys/dev/block/{number}"
    mapped = _first_line(f"{sysfs}/dm/uuid")
    if mapped:
        # A LUN is the same with several paths (mpath) and with one.
        return "wwid:" + mapped[len("mpath-") :] if mapped.startswith("mpath-") else "dm:" + mapped
    part = _first_line(f"{sysfs}/partition")
    serial = _udev(number, "ID_SERIAL") or _first_line(f"{sysfs}/wwid") or _first_line(f"{sysfs}/device/wwid")
    if not serial:
        return ""
    return f"wwid:{serial}" + (f"-part{part}" if part else "")


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.readline().strip()
    except OSError:
        return ""


def _udev(number: str, key: str) -> str:
    try:
        with open(f"/run/udev/data/b{number}", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(f"E:{key}="):
                    return line.partition("=")[2].strip()
    except OSError:
        pass
    return ""
