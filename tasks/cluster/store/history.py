"""Who moved what, when, how: the moves of all operations, as their journals tell them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.model import OpenOperation, Vm
from tasks.cluster.store import journal
from tasks.cluster.store.journal import Announced, Ended, Record

#: Results beside those of `model.Outcome`: a move that was planned and whose turn never came, one of a
#: command that was cut, and one of a command that somebody runs at this moment.
NOT_BEGUN = "not-begun"
INTERRUPTED = "interrupted"
UNDER_WAY = "under-way"


@dataclass(frozen=True, slots=True)
class Entry:
    """One VM's part in one operation."""

    operation: str
    #: when the VM's own move began; for one that never began, when the operation did
    at: float
    #: when it ended, as journaled; None while it has not
    ended_at: float | None
    by: str
    #: who went on with this VM after an interruption
    resumed_by: tuple[str, ...]
    kind: str
    command: str
    vm: Vm
    source: str
    target: str
    result: str
    running_on: str
    stopped_by: str
    downtime: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class History:
    """Entries, oldest first, and what was wrong with journals that could not be read."""

    entries: tuple[Entry, ...]
    damaged: tuple[str, ...]


def history(
    texts: Mapping[str, str],
    operations: Collection[OpenOperation],
    *,
    vm: Callable[[Vm], bool] = lambda vm: True,
    hosts: Collection[str] = (),
) -> History:
    """Read the journals, by file name; `operations` are those that have not ended.

    Only VMs that `vm` says yes to are told, and with `hosts` only moves that begin or end on one of them.
    """
    held = {one.id for one in operations if one.held}
    entries: list[Entry] = []
    damaged: list[str] = []
    for name, text in sorted(texts.items()):
        key = name.removesuffix(".json")
        try:
            record = journal.read(key, text)
        except ValueError as error:
            if "\n" in text:  # else it was cut before it began
                damaged.append(str(error))
            continue
        entries += [_entry(record, move, key in held) for move in record.moves]
    chosen = [e for e in entries if vm(e.vm) and (not hosts or {e.source, e.target} & set(hosts))]
    return History(tuple(sorted(chosen, key=lambda e: (e.at, e.operation))), tuple(damaged))


def _entry(record: Record, move: Mapping[str, Any], held: bool) -> Entry:
    uuid = str(move["uuid"])
    steps = record.announced.get(uuid, ())
    outcome = record.outcomes.get(uuid)
    return Entry(
        operation=record.id,
        at=steps[0].at if steps else record.at,
        ended_at=outcome.at if outcome else None,
        by=record.by,
        resumed_by=_resumed_by(record, outcome),
        kind=record.kind,
        command=record.command,
        vm=Vm(uuid, str(move["vm"])),
        source=str(move["source"]),
        target=str(move["target"]),
        result=outcome.result if outcome else _without_outcome(record, steps, held),
        running_on=outcome.running_on if outcome else "",
        stopped_by=outcome.stopped_by if outcome else "",
        downtime=outcome.downtime if outcome else None,
        detail=outcome.detail if outcome else "",
    )


def _resumed_by(record: Record, outcome: Ended | None) -> tuple[str, ...]:
    until = outcome.at if outcome else float("inf")
    return tuple(dict.fromkeys(by for at, by in record.resumed if at <= until))


def _without_outcome(record: Record, steps: Collection[Announced], held: bool) -> str:
    if not steps and (record.ended or not held):
        return NOT_BEGUN
    return UNDER_WAY if held else INTERRUPTED
