"""audit: every breach of the law, and every drift, in the whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli import Operator, vmtask

if TYPE_CHECKING:
    from tasks.cluster.audit.finding import Finding
    from tasks.cluster.audit.judge import Report

#: Version of the document of --json; raised when a field changes its meaning or goes away.
SCHEMA = 1
_STYLES = {"breach": "bold red", "danger": "bold red", "unknown": "yellow", "drift": "yellow"}


@vmtask()
def audit(op: Operator, json: bool = False) -> int:
    """List every breach of the law and every drift.

    Asks every host at the same time and changes nothing. Each finding says how grave it is, what was seen,
    and what to type next; the gravest come first:
        BREACH   a VM runs on two hosts, or one image has two writers
        DANGER   one more start, or a reboot, may lead there
        UNKNOWN  something could not be looked at; what could not be judged is said
        DRIFT    not as it should be, and harmless until somebody relies on it
    What may have been caught in the middle of a move or a start is looked at again 2 s later, and told only
    if it is still so.

    Exit code 0 when nothing was found, 1 when something was, 3 when something could not be looked at
    (whatever else was found).

    --json prints one document:
        schema: 1; at: seconds since the epoch; inventory: its path; complete: whether all could be looked at
        findings: [{severity, kind, hosts: [host], vms: [name], text, evidence: [line], advice: [line]}],
            gravest first; severity is breach, danger, unknown or drift; kinds are those of README
        notes: [line], about what looks odd and is as it should be
        asked: {hosts, hosts_answering, vms, images: null when they could not be searched for}

    Examples:
        fab audit
        fab audit --json | jq '.findings[] | select(.severity == "breach")'
    """
    from tasks.cluster.audit import judge

    with op.session() as session:
        report = judge.audit(session, op.clock)
    if json:
        op.output.document(document(report))
    else:
        show(op, report)
    return report.code


def show(op: Operator, report: Report) -> None:
    """A block per finding, then the notes, then one sentence that counts."""
    for finding in report.findings:
        _show(op, finding)
        op.say()
    for note in report.notes:
        op.say(f"Note: {note}")
    op.say(summary(report))


def _show(op: Operator, finding: Finding) -> None:
    op.say(f"{finding.severity.upper()}: {finding.text}", _STYLES[finding.severity])
    for line in finding.evidence:
        op.say(f"    {line}")
    for line in finding.advice:
        op.say(f"  > {line}")


def summary(report: Report) -> str:
    """What was looked at, and how much was found."""
    from tasks.cluster.audit.finding import SEVERITIES, listed

    counts = asked(report)
    text = f"{counts['hosts_answering']} of {counts['hosts']} hosts answered, {_number(counts['vms'], 'VM')}"
    text += "" if counts["images"] is None else f", {_number(counts['images'], 'image')}"
    number = {s: sum(f.severity == s for f in report.findings) for s in SEVERITIES}
    found = [f"{n} {s}" for s, n in number.items() if n]
    text += f": {listed(found)}." if found else ": nothing found."
    return text if report.complete else text + " Not everything could be looked at."


def _number(number: int | None, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def asked(report: Report) -> dict[str, int | None]:
    """How much was looked at."""
    snapshot, survey = report.seen.snapshot, report.seen.survey
    return {
        "hosts": len(snapshot.hosts),
        "hosts_answering": len(snapshot.facts()),
        "vms": len({d.vm.uuid for d in snapshot.domains()}),
        "images": None if survey is None else len(survey.images),
    }


def document(report: Report) -> dict[str, Any]:
    """The document of --json; its fields are described at `audit`."""
    return {
        "schema": SCHEMA,
        "at": round(report.seen.at, 3),
        "inventory": report.seen.inventory.path,
        "complete": report.complete,
        "findings": [
            {
                "severity": f.severity,
                "kind": f.kind,
                "hosts": list(f.hosts),
                "vms": list(f.vms),
                "text": f.text,
                "evidence": list(f.evidence),
                "advice": list(f.advice),
            }
            for f in report.findings
        ],
        "notes": list(report.notes),
        "asked": asked(report),
    }
