"""What lsblk, blkid, wipefs and findmnt say about a host's disks, as frozen values. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A file system that was found on a device."""

    device: str
    kind: str
    label: str
    uuid: str


@dataclass(frozen=True, slots=True)
class Mounted:
    """A file system that is mounted."""

    mount: str
    device: str
    kind: str
    options: tuple[str, ...]
    uuid: str


def file_systems(text: str) -> tuple[FileSystem, ...]:
    """Those that `blkid -o export` prints, one block of KEY=value lines each."""
    found = []
    for block in text.split("\n\n"):
        values = dict(line.partition("=")[::2] for line in block.splitlines() if "=" in line)
        if "DEVNAME" in values:
            found.append(
                FileSystem(
                    values["DEVNAME"],
                    values.get("TYPE", ""),
                    values.get("LABEL", ""),
                    values.get("UUID", "").lower(),
                )
            )
    return tuple(found)


def mounts(text: str) -> tuple[Mounted, ...]:
    """Those that `findmnt --json --list -o TARGET,SOURCE,FSTYPE,OPTIONS,UUID` prints; none for no text."""
    if not text.strip():
        return ()
    return tuple(
        Mounted(
            str(entry["target"]),
            str(entry["source"]),
            str(entry["fstype"]),
            tuple(str(entry["options"]).split(",")),
            str(entry.get("uuid") or "").lower(),
        )
        for entry in json.loads(text)["filesystems"]
    )


def uses(text: str) -> tuple[str, ...]:
    """What stands in the way of writing to a disk, from `lsblk --json -o NAME,TYPE,FSTYPE,MOUNTPOINT DISK`.

    Partitions, whatever lies on top, file systems and mounts; nothing for a bare disk.
    """
    return tuple(_uses(json.loads(text)["blockdevices"], top=True))


def _uses(entries: list[Mapping[str, Any]], *, top: bool) -> Iterator[str]:
    for entry in entries:
        name = entry["name"]
        if entry.get("mountpoint"):
            yield f"{name} is mounted on {entry['mountpoint']}"
        if entry.get("fstype"):
            yield f"{name} has {entry['fstype']} on it"
        if not top:
            yield f"{name} ({entry.get('type')}) uses it"
        yield from _uses(entry.get("children", []), top=False)
