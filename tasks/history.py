"""history: who moved what, when, with which downtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli import Hosts, Operator, Table, vmtask
from tasks.cli.text import moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.cluster.model import Vm
    from tasks.cluster.store.history import Entry

#: Version of the document of --json; raised when a field changes its meaning or goes away.
SCHEMA = 1


@vmtask(Hosts.FILTER, may_name="vm", help={"limit": "Only so many, the newest (a number; 30 unless given)."})
def history(op: Operator, vm: str = "", limit: int = 30, json: bool = False) -> int:
    """Show who moved what, when, with which downtime.

    One line per VM and command of migrate, drain, undrain and evacuate, newest last, for the whole cluster,
    or for the VMs that are named, also such that are gone. With -H only moves from or to these hosts. Reads
    the journals on the store through any host that answers. A journal that cannot be read is named and left
    out. They are kept for vmfab_journal_days (hosts.ini).

    "stopped by" is shutdown (the guest did it), destroyed (after its time was up) or was off. The downtime is
    from the end of the guest to the moment it was seen running again; it is not known for what was resumed.

    Exit code 0, also when nothing is found; 1 when no host can read the store.

    --json prints one document:
        schema: 1; entries, oldest first: [{operation, at, ended_at, by, resumed_by: [who], kind, command, vm,
            uuid, source, target, result, running_on, stopped_by, downtime (s or null), detail}]; at and
            ended_at are seconds since the epoch; result is moved, already-there, left, kept, back, failed,
            unknown, or not-begun, interrupted, under-way where no end was written
        left_out: number of older entries that --limit left out; damaged: [text]

    Examples:
        fab history
        fab history 'web*' --limit 100
        fab -H vmhost1 history --json | jq '.entries[] | select(.downtime > 10)'
    """
    from tasks.cluster.store.history import history as read
    from tasks.cluster.store.journal import FOLDER
    from tasks.cluster.store.sharedstore import store_of

    with op.session() as session:
        snapshot = session.observe()
        texts = store_of(session, snapshot).read_folder(FOLDER)
    found = read(texts, snapshot.operations(), vm=_wanted(vm), hosts=op.hosts)
    shown = found.entries[-limit:]
    if json:
        op.output.document({
            "schema": SCHEMA,
            "entries": [_document(entry) for entry in shown],
            "left_out": len(found.entries) - len(shown),
            "damaged": list(found.damaged),
        })  # fmt: skip
        return 0
    if shown:
        op.output.table(_table(shown))
    else:
        op.say("No move is in the journals." if not (vm or op.hosts) else "No such move is in the journals.")
    if len(shown) < len(found.entries):
        op.say(f"{len(found.entries) - len(shown)} older ones are left out: --limit {len(found.entries)}")
    for text in found.damaged:
        op.warn(f"{text}; it is left out.")
    if any(entry.result == "interrupted" for entry in shown):
        op.say("What was interrupted is finished or undone by: fab resume")
    return 0


def _wanted(typed: str) -> Callable[[Vm], bool]:
    """Whether a VM is one of those that were typed: exact names first, then UUIDs and patterns."""
    from tasks.cluster.planning.census import named

    parts = tuple(part.strip() for part in typed.split(",") if part.strip())
    return lambda vm: (
        not parts or vm.name == typed or vm.uuid.lower() in map(str.lower, parts) or named(vm.name, parts)
    )


def _table(entries: tuple[Entry, ...]) -> Table:
    from tasks.cli.moves import MEANING

    words = {**MEANING, "not-begun": "not begun", "interrupted": "INTERRUPTED", "under-way": "under way"}
    rows, styles = [], []
    for e in entries:
        who = ", ".join((e.by, *(f"resumed by {name}" for name in e.resumed_by)))
        downtime = "" if e.downtime is None else f"{e.downtime:.1f} s"
        result = words.get(e.result, e.result)
        command = e.command.removeprefix("fab ")
        rows.append(
            (moment(e.at), e.vm.name, e.source, e.target, result, e.stopped_by, downtime, who, command)
        )
        styles.append(_STYLE.get(e.result, "yellow"))
    columns = ("time", "VM", "from", "to", "result", "stopped by", "downtime", "who", "command")
    return Table(
        columns, rows, right=frozenset({"downtime"}), fixed=frozenset({"time", "result"}), styles=styles
    )


_STYLE = {"moved": "", "already-there": "", "failed": "bold red", "unknown": "bold red"}


def _document(e: Entry) -> dict[str, Any]:
    return {
        "operation": e.operation,
        "at": e.at,
        "ended_at": e.ended_at,
        "by": e.by,
        "resumed_by": list(e.resumed_by),
        "kind": e.kind,
        "command": e.command,
        "vm": e.vm.name,
        "uuid": e.vm.uuid,
        "source": e.source,
        "target": e.target,
        "result": e.result,
        "running_on": e.running_on,
        "stopped_by": e.stopped_by,
        "downtime": None if e.downtime is None else round(e.downtime, 3),
        "detail": e.detail,
    }
