"""The journal of an operation on the shared store: what was planned, and each step before and after it.

One file of JSON lines per operation, `moves/ID.json` below MOUNT/.vmfab, written through one host so that
another laptop can read it. A line is on the disk before the step that it announces begins; lines that report
an end are written with the next announcement, because the cluster itself is the truth about what happened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.cluster.clock import Clock
from tasks.cluster.model import Move, Outcome
from tasks.cluster.operation import Operation
from tasks.cluster.sharedstore import SharedStore

FOLDER = "moves"


class Journal:
    """Appends the lines of one operation. Safe to use from several threads."""

    def __init__(self, store: SharedStore, operation: Operation, clock: Clock) -> None:
        self.operation = operation
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: list[str] = []

    @property
    def path(self) -> str:
        return f"{FOLDER}/{self.operation.id}.json"

    def plan(self, moves: Iterable[Move]) -> None:
        """Write the first line. Raises Failed when no host can write: then nothing must begin."""
        entries = [
            {"uuid": m.vm.uuid, "vm": m.vm.name, "source": m.source, "target": m.target} for m in moves
        ]
        self._write("plan", {**self.operation.holder(), "moves": entries})

    def before(self, move: Move, step: str) -> None:
        """Announce a step, durably. Raises Failed when no host can write it."""
        self._write("before", {**_names(move), "step": step})

    def after(self, move: Move, step: str, seen: str) -> None:
        """Report what a step led to; written with the next announcement."""
        with self._lock:
            self._pending.append(self._line("after", {**_names(move), "step": step, "seen": seen}))

    def outcome(self, outcome: Outcome) -> None:
        """Write how a move ended."""
        self._write(
            "outcome",
            {
                **_names(outcome.move),
                "result": outcome.result,
                "running_on": outcome.running_on,
                "stopped_by": outcome.stopped_by,
                "downtime": outcome.downtime,
                "detail": outcome.detail,
            },
        )

    def end(self, result: str) -> None:
        """Write the last line: the operation is finished, there is nothing to resume."""
        self._write("end", {"result": result})

    def _line(self, kind: str, data: Mapping[str, Any]) -> str:
        return json.dumps({"t": round(self._clock.now(), 3), "line": kind, **data}, ensure_ascii=False) + "\n"

    def _write(self, kind: str, data: Mapping[str, Any]) -> None:
        with self._lock:
            self._pending.append(self._line(kind, data))
            # Perhaps written twice when a host is lost: a doubled line does no harm, a missing one does.
            self._store.append(self.path, "".join(self._pending))
            self._pending.clear()


def _names(move: Move) -> dict[str, str]:
    return {"uuid": move.vm.uuid, "vm": move.vm.name, "source": move.source, "target": move.target}


@dataclass(frozen=True, slots=True)
class Record:
    """A journal as read back. `moves` are the planned ones; `started` the UUIDs whose start was announced."""

    id: str
    command: str
    by: str
    at: float
    moves: tuple[Mapping[str, str], ...]
    started: frozenset[str]
    results: Mapping[str, str]
    ended: bool


def read(operation_id: str, text: str) -> Record:
    """Understand a journal's text; a last line cut short by a crash is passed over.

    Raises ValueError when it has no plan line or another line is damaged.
    """
    lines = text.splitlines()
    parsed: list[dict[str, Any]] = []
    for number, line in enumerate(lines):
        try:
            parsed.append(json.loads(line))
        except ValueError:
            if number != len(lines) - 1 or text.endswith("\n"):
                raise ValueError(f"journal {operation_id}: line {number + 1} is damaged") from None
    plans = [p for p in parsed if p.get("line") == "plan"]
    if not plans:
        raise ValueError(f"journal {operation_id}: has no plan")
    head = plans[0]
    return Record(
        id=operation_id,
        command=str(head["command"]),
        by=str(head["by"]),
        at=float(head["at"]),
        moves=tuple(head["moves"]),
        started=frozenset(
            p["uuid"] for p in parsed if p.get("line") == "before" and p.get("step") == "start"
        ),
        results={p["uuid"]: p["result"] for p in parsed if p.get("line") == "outcome"},
        ended=any(p.get("line") == "end" for p in parsed),
    )
