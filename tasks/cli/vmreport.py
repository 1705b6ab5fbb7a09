"""Plans and results of operations on single VMs, as an operator sees them: tables, sentences, JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.cli import reasons
from tasks.cli.context import Operator
from tasks.cli.text import Table
from tasks.cluster.errors import Refused
from tasks.cluster.model import Refusal, Snapshot
from tasks.cluster.overview import next_step
from tasks.cluster.vm.result import GOOD, VmResult

_STYLES: Mapping[str, str] = {
    "done": "green",
    "already": "green",
    "failed": "bold red",
    "unknown": "bold red",
}


def count(number: int) -> str:
    """A number of VMs in words."""
    return "1 VM" if number == 1 else f"{number} VMs"


def show_doubts(op: Operator, snapshot: Snapshot) -> None:
    """Name the hosts whose VMs are not known, and what to do about each."""
    for silent in snapshot.unsure():
        op.warn(f"{silent.host} cannot be asked what runs there ({silent.reason}).")
        op.say(f"  {next_step(snapshot.hosts[silent.host])}")


def refuse(
    op: Operator,
    refusals: Sequence[Refusal],
    verb: str,
    *,
    partial: bool = False,
    others: bool = False,
    waits_for: Sequence[str] = (),
) -> None:
    """Show every reason; raise Refused unless the others may go on (`partial`) and there are any.

    `verb` completes "cannot be ...", as in "started"; `waits_for` are hosts that have to answer first.
    """
    if not refusals:
        return
    waiting = [refusal.host for refusal in refusals if refusal.host in waits_for]
    again = f" When {', '.join(dict.fromkeys(waiting))} answers, type the same again." if waiting else ""
    if len(refusals) == 1 and not others:
        (only,) = refusals
        advice = f"{only.flag} overrides this." if only.flag else f"Nothing was changed.{again}"
        where = f"{only.host}: " if only.host else ""
        _document(op, refusals)
        raise Refused(f"{only.vm} cannot be {verb}: {where}{only.reason.rstrip('.')}.", advice)
    reasons.show(op, refusals, verb)
    if partial and others:
        return
    _document(op, refusals)
    advice = f"Nothing was changed.{' --partial goes on with the others.' if others else ''}{again}"
    names = dict.fromkeys(refusal.vm for refusal in refusals)
    raise Refused(f"Cannot be {verb}: {', '.join(names)}.", advice)


def _document(op: Operator, refusals: Sequence[Refusal]) -> None:
    if op.output.json:
        op.output.document(document((), refusals, Refused.code))


def show_results(op: Operator, results: Sequence[VmResult], words: Mapping[str, str]) -> None:
    """The table of how it ended; `words` say what the results mean here ("done": "started")."""
    if not results:
        return
    rows, styles = [], []
    for r in results:
        took = "" if r.seconds is None else f"{r.seconds:.1f} s"
        rows.append((r.vm.name, r.host, words.get(r.result, r.result), took))
        styles.append(_STYLES.get(r.result, "yellow"))
    op.output.table(Table(("VM", "host", "result", "took"), rows, right=frozenset({"took"}), styles=styles))
    for r in results:
        if r.detail:
            say = op.say if r.result in GOOD else op.warn
            say(f"{r.vm.name}: {r.detail}")
        for warning in r.warnings:
            op.warn(f"{r.vm.name}: {warning}")


def document(results: Sequence[VmResult], refusals: Sequence[Refusal], code: int) -> dict[str, Any]:
    """The document of --json for operations on VMs.

    {"schema": 1, "results": [{vm, uuid, host, result, detail, warnings, seconds}],
     "refusals": [{vm, host, reason, flag}], "code": exit code}; result is done, already, left, failed or
    unknown; a dry run has "planned" instead.
    """
    return {
        "schema": 1,
        "results": [
            {
                "vm": r.vm.name,
                "uuid": r.vm.uuid,
                "host": r.host,
                "result": r.result,
                "detail": r.detail,
                "warnings": list(r.warnings),
                "seconds": None if r.seconds is None else round(r.seconds, 3),
            }
            for r in results
        ],
        "refusals": [{"vm": r.vm, "host": r.host, "reason": r.reason, "flag": r.flag} for r in refusals],
        "code": code,
    }
