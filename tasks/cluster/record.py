"""A journal as read back: what was planned, how far each move had come, how it ended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.journal import END

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

    `kind` is migrate, drain, undrain or evacuate. `steps` are the announced ones of each move by UUID, in
    their order; `outcomes` how moves ended after that. Journals of older versions lack `options` and more.
    """

    id: str
    command: str
    by: str
    at: float
    kind: str
    options: Mapping[str, bool]
    moves: tuple[Mapping[str, Any], ...]
    steps: Mapping[str, tuple[Announced, ...]]
    outcomes: Mapping[str, Ended]
    #: the last line says that there is nothing left to do
    ended: bool
    ended_at: float | None = None
    #: who went on with it after it was interrupted, in their order
    resumed_by: tuple[str, ...] = ()
    #: the operations that worked on it: itself, and those that resumed it
    operations: frozenset[str] = frozenset()

    @property
    def started(self) -> frozenset[str]:
        """The UUIDs whose start on the target was announced."""
        return frozenset(uuid for uuid, steps in self.steps.items() if any(s.step == "start" for s in steps))

    def last(self, uuid: str) -> Announced | None:
        """The last step that was announced for a VM; None when its move never began."""
        steps = self.steps.get(uuid)
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
    resumed_by: dict[str, None] = field(default_factory=dict)
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
            self.resumed_by[str(line["by"])] = None
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
        steps={uuid: tuple(steps) for uuid, steps in lines.steps.items()},
        outcomes=lines.outcomes,
        ended=ended,
        ended_at=float(parsed[-1]["t"]) if ended else None,
        resumed_by=tuple(lines.resumed_by),
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
