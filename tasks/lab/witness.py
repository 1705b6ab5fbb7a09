"""Read from a guest's disk what happened to it: boots, counter, lost writes, two writers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.image import BOOTS, BOOTS_AT, MAGIC, RECORD, RING, RING_AT
from tasks.lab.problem import LabError


@dataclass(frozen=True)
class Boot:
    """One start of the guest: its number from 1, its kernel's boot id, the counter it found."""

    number: int
    boot_id: str
    start: int


@dataclass(frozen=True)
class Testimony:
    """What a guest's disk says. `wrong` is empty when nothing was lost and one guest wrote at a time."""

    boots: tuple[Boot, ...]
    counter: int
    wrong: tuple[str, ...]

    @property
    def good(self) -> bool:
        """Tell whether no write was lost and never two guests wrote."""
        return not self.wrong


def read(path: Path) -> Testimony:
    """Read a guest's disk, also of a running guest; raises LabError when it is no practice disk."""
    with path.open("rb") as file:
        data = file.read(RING_AT + RING * RECORD)
    if not data.startswith(MAGIC) or len(data) < RING_AT + RING * RECORD:
        raise LabError(f"{path} is not the disk of a practice guest.")
    return judge(data)


def judge(data: bytes) -> Testimony:
    """Judge the first RING_AT + RING * RECORD bytes of a guest's disk."""
    wrong: list[str] = []
    boots = _boots(data, wrong)
    records: dict[int, str] = {}
    for slot in range(RING):
        fields = _fields(data, RING_AT + slot * RECORD)
        if not fields:
            continue
        if len(fields) != 2 or not fields[0].isdigit():
            wrong.append(f"slot {slot} is damaged")
            continue
        counter = int(fields[0])
        if counter % RING != slot:
            wrong.append(f"record {counter} lies in slot {slot}")
        records[counter] = fields[1]
    last = max(records, default=0)
    first = max(1, last - RING + 1)
    missing = [counter for counter in range(first, last + 1) if counter not in records]
    if missing:
        wrong.append(f"lost: {len(missing)} of the records {missing[0]}..{missing[-1]}")
    stale = [counter for counter in records if counter < first]
    if stale:
        wrong.append(f"stale: {len(stale)} old records came back")
    wrong.extend(_writers(boots, {c: b for c, b in records.items() if c >= first}))
    return Testimony(tuple(boots), last, tuple(wrong))


def _fields(data: bytes, at: int) -> list[str]:
    return data[at : at + RECORD].replace(b"\0", b"").decode("ascii", "replace").split()


def _boots(data: bytes, wrong: list[str]) -> list[Boot]:
    boots = []
    for slot in range(BOOTS):
        fields = _fields(data, BOOTS_AT + slot * RECORD)
        if not fields:
            continue
        if len(fields) != 3 or not (fields[0].isdigit() and fields[2].isdigit()):
            wrong.append(f"boot record {slot} is damaged")
            continue
        boots.append(Boot(int(fields[0]), fields[1], int(fields[2])))
    boots.sort(key=lambda boot: boot.number)
    for one, two in itertools.pairwise(boots):
        if two.start < one.start:
            wrong.append(f"boot {two.number} found counter {two.start}, but {one.number} {one.start}")
        if two.number != one.number + 1:
            wrong.append(f"boots {one.number + 1}..{two.number - 1} are missing")
    return boots


def _writers(boots: list[Boot], records: dict[int, str]) -> list[str]:
    """Every record must come from the boot in whose time it falls."""
    found = []
    ordered = sorted(records)
    at = 0
    for index, boot in enumerate(boots):
        end = boots[index + 1].start if index + 1 < len(boots) else None
        strangers = 0
        while at < len(ordered) and (end is None or ordered[at] <= end):
            if ordered[at] > boot.start and records[ordered[at]] != boot.boot_id:
                strangers += 1
            at += 1
        if strangers:
            found.append(f"two writers: {strangers} records during boot {boot.number} are not its own")
    return found
