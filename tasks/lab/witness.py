"""Read from a guest's disk what happened to it: boots, counter, lost writes, two writers."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.image import BOOTS, BOOTS_AT, END, MAGIC, PAGE, PAGES, PAGES_AT, RECORD, RING, RING_AT
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
        data = file.read(END)
    if not data.startswith(MAGIC) or len(data) < END:
        raise LabError(f"{path} is not the disk of a practice guest.")
    return judge(data)


def holds(path: Path, counter: int) -> bool:
    """Tell whether the ring holds this record; far cheaper than reading the whole disk."""
    with path.open("rb", buffering=0) as file:
        file.seek(RING_AT + counter % RING * RECORD)
        fields = _fields(file.read(RECORD).ljust(RECORD, b"\0"), 0)
    return len(fields) == 2 and fields[0] == str(counter)


def judge(data: bytes) -> Testimony:
    """Judge the first END bytes of a guest's disk."""
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
    wrong.extend(_overlaps(boots, _own_last(data)))
    return Testimony(tuple(boots), last, tuple(wrong))


def _fields(data: bytes, at: int) -> list[str]:
    if not data[at]:
        return []
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


# A guest that is killed may lose the end of what it had flushed at the same time.
SLACK = 2


def _own_last(data: bytes) -> dict[str, int]:
    """Return the last counter that each boot wrote, from the pages that nobody else writes."""
    last: dict[str, int] = {}
    for at in range(PAGES_AT, PAGES_AT + PAGES * PAGE, PAGE):
        if data.count(0, at, at + PAGE) == PAGE:
            continue
        for record in range(at, at + PAGE, RECORD):
            fields = _fields(data, record)
            if len(fields) == 2 and fields[0].isdigit():
                last[fields[1]] = max(last.get(fields[1], 0), int(fields[0]))
    return last


def _overlaps(boots: list[Boot], last: dict[str, int]) -> list[str]:
    """No boot may have gone on writing once the next one had begun, and no boot may be forgotten."""
    found = []
    for one, two in itertools.pairwise(boots):
        wrote = last.get(one.boot_id, 0)
        if wrote > two.start + SLACK:
            until = f"boot {one.number} wrote up to {wrote}"
            found.append(f"two writers: {until}, boot {two.number} began at {two.start}")
    known = {boot.boot_id for boot in boots}
    found += [
        f"two writers: boot {stranger} is not in the list" for stranger in last if stranger not in known
    ]
    return found
