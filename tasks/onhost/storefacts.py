"""The store as this host sees it: its mount, its space, its cordons, the operations that have not ended."""

from __future__ import annotations

import fcntl
import os

from . import children, mounts, storechild, storelocks
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .mounts import Mount

#: Bytes below which the store counts as full: QEMU pauses guests long after a journal can be written.
FULL = 16 << 20


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
        said.update(children.ask(lambda: _space(mount, operations), timeout=storechild.FACTS, what=mount))
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
    root = storechild.root_of(mount)
    space = os.fstatvfs(root)
    text = storechild.read(root, [storechild.FOLDER, "store-id"])
    parts = [storechild.FOLDER, "cordons"]
    cordons = [storechild.read(root, [*parts, name]) for name in storechild.names(root, parts)]
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
    parts = [storechild.FOLDER, "locks"]
    names = [name for name in storechild.names(root, parts) if name.startswith(storelocks.OPERATION)]
    folder = storechild.folder_of(root, parts, make=False) if names else -1
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
            found.append(
                {"id": name[len(storelocks.OPERATION) :], "holder": storechild.content(fd), "held": held}
            )
        finally:
            os.close(fd)
    return found
