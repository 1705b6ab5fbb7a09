"""The journal of an operation on the shared store: what was planned, and each step before and after it.

One file of JSON lines per operation, `moves/ID.json` below MOUNT/.vmfab, written through one host so that
another laptop can read it. A line is on the disk before the step that it announces begins; lines that report
an end are written with the next announcement, because the cluster itself is the truth about what happened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.cluster.clock import Clock
from tasks.cluster.model import Move, Outcome
from tasks.cluster.operation import Operation
from tasks.cluster.sharedstore import SharedStore

FOLDER = "moves"

#: What the last line of a journal contains when its operation has ended.
END = '"line": "end"'


class Journal:
    """Appends the lines of one operation. Safe to use from several threads.

    `operation` is who works on it now; `id` names the journal when another operation began it. `announced`
    is called after each announcement of a step.
    """

    def __init__(
        self,
        store: SharedStore,
        operation: Operation,
        clock: Clock,
        *,
        id: str = "",
        announced: Callable[[], None] = lambda: None,
    ) -> None:
        self.operation = operation
        self.id = id or operation.id
        self._store = store
        self._clock = clock
        self._announced = announced
        self._lock = threading.Lock()
        self._pending: list[str] = []

    @property
    def path(self) -> str:
        return path_of(self.id)

    def plan(self, moves: Iterable[Move], *, kind: str, options: Mapping[str, bool] | None = None) -> None:
        """Write the first line. Raises Failed when no host can write: then nothing must begin.

        `kind` is the command: migrate, drain, undrain or evacuate; `options` are those of `MoveOptions`.
        """
        entries = [{**_names(m), "shutdown_timeout": m.shutdown_timeout} for m in moves]
        head = {**self.operation.holder(), "kind": kind, "options": dict(options or {})}
        self._write("plan", {**head, "moves": entries})

    def resumed(self) -> None:
        """Write that another operation goes on with this one. Raises Failed when no host can write."""
        self._write("resume", self.operation.holder())

    def before(self, move: Move, step: str, **facts: bool) -> None:
        """Announce a step, durably. Raises Failed when no host can write it.

        `facts` are what is known now and cannot be seen any more afterwards.
        """
        self._write("before", {**_names(move), "step": step, **facts})
        self._announced()

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


def path_of(operation_id: str) -> str:
    return f"{FOLDER}/{operation_id}.json"


def _names(move: Move) -> dict[str, str]:
    return {"uuid": move.vm.uuid, "vm": move.vm.name, "source": move.source, "target": move.target}
