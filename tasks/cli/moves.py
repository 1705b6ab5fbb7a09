"""Plans of moves and how they ended, as an operator sees them: tables, sentences and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.cli import reasons
from tasks.cli.context import Operator
from tasks.cli.text import Table
from tasks.cluster.errors import Refused
from tasks.cluster.model import Move, Outcome, Plan
from tasks.cluster.moving.relocate import Result

#: What the results of `model.Outcome` mean, in an operator's words.
MEANING: Mapping[str, str] = {
    "moved": "moved",
    "already-there": "there already",
    "left": "not touched",
    "kept": "still on the source",
    "back": "back on the source",
    "failed": "FAILED",
    "unknown": "UNKNOWN",
}

_STYLE: Mapping[str, str] = {
    "moved": "green",
    "already-there": "green",
    "failed": "bold red",
    "unknown": "bold red",
}


def mib(kib: int) -> str:
    """Memory for people: MiB below 10 GiB, else GiB."""
    return f"{kib / 1024:.0f} MiB" if kib < 10 << 20 else f"{kib / (1 << 20):.0f} GiB"


def show_plan(op: Operator, plan: Plan, title: str) -> None:
    """The table of what would move, and every reason against it."""
    if plan.moves:
        rows = [
            (m.vm.name, m.source, m.target, mib(m.memory_kib), f"{m.shutdown_timeout:.0f} s")
            for m in plan.moves
        ]
        columns = ("VM", "from", "to", "memory", "shutdown within")
        right = frozenset({"memory", "shutdown within"})
        op.output.table(Table(columns, rows, title=title, right=right))
    reasons.show(op, plan.refusals, "moved")


def count(vms: int) -> str:
    """A number of VMs in words."""
    return "1 VM" if vms == 1 else f"{vms} VMs"


def patterns(given: Sequence[str] | None) -> tuple[str, ...]:
    """The names and patterns of a flag that may be repeated and holds several with commas.

    Raises Refused when it was given and names nothing: that must not mean all VMs.
    """
    found = tuple(part.strip() for text in given or () for part in text.split(",") if part.strip())
    if given and not found:
        raise Refused("--only and --exclude want names of VMs or patterns, not nothing.")
    return found


def show_result(op: Operator, result: Result) -> None:
    """The verified table, then what needs a look."""
    show_outcomes(op, result.outcomes)
    for warning in result.warnings:
        op.warn(warning)


def show_outcomes(op: Operator, outcomes: Sequence[Outcome]) -> None:
    """A row per move: VM, from, to, result, how it stopped, downtime; then every detail."""
    rows, styles = [], []
    for o in outcomes:
        downtime = "" if o.downtime is None else f"{o.downtime:.1f} s"
        rows.append((o.move.vm.name, o.move.source, o.move.target, MEANING[o.result], o.stopped_by, downtime))
        styles.append(_STYLE.get(o.result, "yellow"))
    columns = ("VM", "from", "to", "result", "stopped by", "downtime")
    op.output.table(Table(columns, rows, right=frozenset({"downtime"}), styles=styles))
    for o in outcomes:
        if o.detail:
            op.warn(f"{o.move.vm.name}: {o.detail}")
        for warning in o.warnings:
            op.warn(f"{o.move.vm.name}: {warning}")


def summary(result: Result) -> str:
    """One line: how many moved, how long it took."""
    moved = sum(o.ok for o in result.outcomes)
    text = f"{moved} of {count(len(result.outcomes))} moved and verified in {result.took:.1f} s."
    downtimes = [o.downtime for o in result.outcomes if o.downtime is not None]
    if downtimes:
        least, most = f"{min(downtimes):.1f}", f"{max(downtimes):.1f}"
        text += f" Downtime: {least} s." if least == most else f" Downtime: {least} to {most} s."
    return text


def document(plan: Plan, result: Result | None, code: int) -> dict[str, Any]:
    """The document of --json for migrate, drain and undrain.

    {"schema": 1, "plan": [{vm, uuid, source, target, memory_kib, shutdown_timeout}],
     "refusals": [{vm, host, reason, flag}],
     "outcomes": [{vm, uuid, source, target, result, running_on, stopped_by, downtime, detail, warnings}],
     "took": seconds or null, "code": exit code}
    """
    return {
        "schema": 1,
        "plan": [_move(m) | {"shutdown_timeout": m.shutdown_timeout} for m in plan.moves],
        "refusals": [{"vm": r.vm, "host": r.host, "reason": r.reason, "flag": r.flag} for r in plan.refusals],
        "outcomes": [_outcome(o) for o in (result.outcomes if result else ())],
        "took": None if result is None else round(result.took, 3),
        "code": code,
    }


def _move(m: Move) -> dict[str, Any]:
    return {
        "vm": m.vm.name,
        "uuid": m.vm.uuid,
        "source": m.source,
        "target": m.target,
        "memory_kib": m.memory_kib,
    }


def _outcome(o: Outcome) -> dict[str, Any]:
    return _move(o.move) | {
        "result": o.result,
        "running_on": o.running_on,
        "stopped_by": o.stopped_by,
        "downtime": None if o.downtime is None else round(o.downtime, 3),
        "detail": o.detail,
        "warnings": list(o.warnings),
    }
