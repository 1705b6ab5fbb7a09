"""The journal of an operation on the shared store: what was planned, and each step before and after it.

One file of JSON lines per operation, `moves/ID.json` below MOUNT/.vmfab, written through one host so that
another laptop can read it. A line is on the disk before the step that it announces begins; lines that report
an end are written with the next announcement, because the cluster itself is the truth about what happened.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.clock import Clock
from tasks.cluster.model import Move, Outcome
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.sharedstore import SharedStore

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


# -- as read back ----------------------------------------------------------------------------------------

#: Results of a move that leave it open: `resume` looks at it again.
OPEN = frozenset({"unknown"})


@dataclass(frozen=True, slots=True)
class Announced:
    """A step that was announced, and may or may not have been taken."""

    step: str
    at: float
    #: whether libvirt started the VM by itself on the source when that was last known
    autostart: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """How a move ended, as written by the command that made it."""

    result: str
    at: float
    running_on: str = ""
    stopped_by: str = ""
    downtime: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One operation. `moves` are the planned ones as {uuid, vm, source, target, shutdown_timeout?}.

    `kind` is migrate, drain, undrain or evacuate. `announced` are the steps of each move by UUID, in their
    order; `outcomes` how moves ended after that. Journals of older versions lack `options` and more.
    """

    id: str
    command: str
    by: str
    at: float
    kind: str
    options: Mapping[str, bool]
    moves: tuple[Mapping[str, Any], ...]
    announced: Mapping[str, tuple[Announced, ...]]
    outcomes: Mapping[str, Ended]
    #: the last line says that there is nothing left to do
    ended: bool
    ended_at: float | None = None
    #: when, and who, went on with it after it was interrupted
    resumed: tuple[tuple[float, str], ...] = ()
    #: the operations that worked on it: itself, and those that resumed it
    operations: frozenset[str] = frozenset()

    @property
    def started(self) -> frozenset[str]:
        """The UUIDs whose start on the target was announced."""
        return frozenset(uuid for uuid, steps in self.steps.items() if "start" in steps)

    @property
    def steps(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the announced steps by UUID."""
        return {uuid: tuple(one.step for one in steps) for uuid, steps in self.announced.items()}

    @property
    def results(self) -> Mapping[str, str]:
        """How each move ended, by UUID."""
        return {uuid: ended.result for uuid, ended in self.outcomes.items()}

    def last(self, uuid: str) -> Announced | None:
        """The last step that was announced for a VM; None when its move never began."""
        steps = self.announced.get(uuid)
        return steps[-1] if steps else None

    def open(self, uuid: str) -> bool:
        """Whether it is not known how the VM's move ended."""
        outcome = self.outcomes.get(uuid)
        return outcome is None or outcome.result in OPEN


@dataclass(slots=True)
class _Lines:
    """What is gathered from the lines, in their order."""

    steps: dict[str, list[Announced]] = field(default_factory=dict)
    outcomes: dict[str, Ended] = field(default_factory=dict)
    resumed: list[tuple[float, str]] = field(default_factory=list)
    operations: set[str] = field(default_factory=set)

    def take(self, line: Mapping[str, Any]) -> None:
        if line.get("line") == "before":
            step = Announced(str(line["step"]), float(line["t"]), bool(line.get("autostart", False)))
            self.steps.setdefault(str(line["uuid"]), []).append(step)
            # A step after an outcome: whoever wrote that outcome, or somebody later, went on.
            self.outcomes.pop(str(line["uuid"]), None)
        elif line.get("line") == "outcome":
            downtime = line.get("downtime")
            self.outcomes[str(line["uuid"])] = Ended(
                str(line["result"]),
                float(line["t"]),
                str(line.get("running_on", "")),
                str(line.get("stopped_by", "")),
                None if downtime is None else float(downtime),
                str(line.get("detail", "")),
            )
        elif line.get("line") == "resume":
            self.resumed.append((float(line["t"]), str(line["by"])))
            self.operations.add(str(line["operation"]))


def read(operation_id: str, text: str) -> Record:
    """Understand a journal's text; a last line cut short by a crash is passed over.

    Raises ValueError when it has no plan line or another line is damaged.
    """
    parsed = list(_parsed(operation_id, text))
    plans = [p for p in parsed if p.get("line") == "plan"]
    if not plans:
        raise ValueError(f"journal {operation_id}: has no plan")
    try:
        return _record(operation_id, plans[0], parsed)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"journal {operation_id}: is damaged ({error!r})") from error


def ended(text: str) -> bool:
    """Whether a journal's last line says that its operation has ended."""
    return END in text.rstrip("\n").rpartition("\n")[2]


def _record(operation_id: str, head: Mapping[str, Any], parsed: list[dict[str, Any]]) -> Record:
    lines = _Lines()
    for line in parsed:
        lines.take(line)
    ended = parsed[-1].get("line") == "end"
    moves = tuple(head["moves"])
    for move in moves:
        if not all(isinstance(move[key], str) for key in ("uuid", "vm", "source", "target")):
            raise TypeError(move)
    return Record(
        id=operation_id,
        command=str(head["command"]),
        by=str(head["by"]),
        at=float(head["at"]),
        kind=str(head.get("kind") or _kind_of(str(head["command"]).split())),
        options={str(name): bool(on) for name, on in dict(head.get("options") or {}).items()},
        moves=moves,
        announced={uuid: tuple(steps) for uuid, steps in lines.steps.items()},
        outcomes=lines.outcomes,
        ended=ended,
        ended_at=float(parsed[-1]["t"]) if ended else None,
        resumed=tuple(lines.resumed),
        operations=frozenset({operation_id, *lines.operations}),
    )


def _parsed(operation_id: str, text: str) -> Iterable[dict[str, Any]]:
    lines = text.splitlines()
    for number, line in enumerate(lines):
        try:
            parsed = json.loads(line)
            if not isinstance(parsed, dict):
                raise ValueError(line)
        except ValueError:
            if number != len(lines) - 1 or text.endswith("\n"):
                raise ValueError(f"journal {operation_id}: line {number + 1} is damaged") from None
        else:
            yield parsed


def _kind_of(words: list[str]) -> str:
    """The kind of an operation whose journal was written before journals said so."""
    return next((kind for kind in ("undrain", "drain") if kind in words), "migrate")
