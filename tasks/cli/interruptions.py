"""Interrupted operations as an operator sees them: what was found, what is to be done, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.cli.context import Operator
from tasks.cli.moves import count
from tasks.cli.text import Table, duration, moment
from tasks.cluster.model import OpenOperation, Outcome
from tasks.cluster.resume.interrupted import Case, Found, Interrupted
from tasks.cluster.resume.resume import Resumed, next_command

#: Version of the document of --json; raised when a field changes its meaning or goes away.
SCHEMA = 1


def show(op: Operator, found: Found, todo: Sequence[Interrupted], *, chosen: bool) -> None:
    """What is under way, what cannot be read, and a table per interrupted operation; `chosen`: by its ID."""
    now = op.clock.now()
    for one in found.under_way:
        op.say(f"Under way: {_who(one, now)}. It is left alone.")
    for text in found.damaged:
        op.warn(f"{text}; it is left alone. Look at it on the store, in .vmfab/moves.")
    for item in found.interrupted:
        record = item.record
        if not item.resumable and not chosen:
            op.warn(f"Interrupted: '{record.command}' by {record.by}, {_ago(record.at, now)}.")
            op.say(f"  The same command goes on with it: {record.command}")
    for item in todo:
        record = item.record
        op.say(f"Interrupted: '{record.command}' by {record.by}, {_ago(record.at, now)} ({record.id})")
        rows = [
            (
                case.move.vm.name,
                case.move.source,
                case.move.target,
                case.step.step if case.step else "-",
                ", ".join(case.running_on) or "nowhere",
                case.words,
            )
            for case in item.cases
        ]
        if rows:
            styles = ["bold red" if c.action.value in ("twice", "look") else "" for c in item.cases]
            columns = ("VM", "from", "to", "last step", "runs on", "what to do")
            op.output.table(Table(columns, rows, styles=styles))
        else:
            op.say("  Every move had ended; only the end of the operation was not written.")
    if not todo and not chosen:
        op.say("Nothing to resume.")


def _who(one: OpenOperation, now: float) -> str:
    if one.at is None:
        return f"operation {one.id}"
    return f"'{one.command}' by {one.by}, begun {_ago(one.at, now)}"


def _ago(at: float, now: float) -> str:
    return f"{duration(max(0.0, now - at))} ago ({moment(at)})"


def question(todo: Sequence[Interrupted]) -> str:
    """What is asked before anything is done."""
    vms = sum(len(item.changing) for item in todo)
    what = "this operation" if len(todo) == 1 else f"these {len(todo)} operations"
    return f"Do this for {count(vms)} and end {what}?"


def document(
    found: Found, todo: Sequence[Interrupted], results: Mapping[str, Resumed], code: int
) -> dict[str, Any]:
    """The document of --json; its fields are described at the task resume."""
    operations = []
    for item in todo:
        record, done = item.record, results.get(item.record.id)
        outcomes = {o.move.vm.uuid: o for o in done.outcomes} if done else {}
        operations.append({
            "id": record.id,
            "command": record.command,
            "by": record.by,
            "at": record.at,
            "kind": record.kind,
            "ended": done is not None and done.ended,
            "next": next_command(record, item.cases),
            "vms": [_vm(case, outcomes.get(case.move.vm.uuid)) for case in item.cases],
        })  # fmt: skip
    return {
        "schema": SCHEMA,
        "code": code,
        "under_way": [
            {"id": one.id, "command": one.command, "by": one.by, "at": one.at} for one in found.under_way
        ],
        "operations": operations,
        "damaged": list(found.damaged),
    }


def _vm(case: Case, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "vm": case.move.vm.name,
        "uuid": case.move.vm.uuid,
        "source": case.move.source,
        "target": case.move.target,
        "step": case.step.step if case.step else None,
        "running_on": [outcome.running_on] if outcome and outcome.running_on else list(case.running_on),
        "action": case.action.value,
        "words": case.words,
        "result": outcome.result if outcome else None,
        "detail": outcome.detail if outcome else "",
    }
