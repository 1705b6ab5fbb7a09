"""status: hosts and VMs of the whole cluster at one glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.cli import Hosts, Operator, Table, vmtask
from tasks.cli.text import duration, moment, size

if TYPE_CHECKING:
    from tasks.cluster.asking.session import Session
    from tasks.cluster.model import Cordon, Host, HostFacts, Silent, Snapshot
    from tasks.cluster.overview import Finding, VmLine

#: Version of the document of --json; raised when a field changes its meaning or goes away.
SCHEMA = 1


@vmtask(Hosts.FILTER)
def status(op: Operator, json: bool = False) -> int:
    """Show hosts and VMs of the whole cluster.

    Asks every host at the same time and changes nothing. A host that does not answer within 10 s, or whose
    libvirtd does not, is shown as that and holds up nothing else. With -H only these hosts are asked, so a VM
    that runs elsewhere is not seen. Memory "used" and "free" is the host's own, "reserved" what hosts.ini
    keeps from VMs. The host of a VM that is off stands in parentheses: it is defined there.

    Exit code 0 when at least one host answered, 1 when none did; what is wrong with a host or a VM is shown
    and does not change it (that is what audit is for).

    --json prints one document:
        schema: 1; at: seconds since the epoch; inventory: its path
        hosts: [{name, address, answering, reason, libvirt_problem, cordon: null or {by, at, why},
            guard: absent, present or outdated (not what host.guard would install now),
            vms_running, cpus, load1, uptime (s), memory_kib: {total, used, free, reserved},
            store: {mount, mounted, problem, id, total_bytes, free_bytes}}]; what a silent host did not say
            is null
        vms: [{name, uuid, state, running_on: [host], defined_on: [host], memory_kib, vcpus, since}]; state is
            libvirt's, or "not known" when it runs nowhere that was seen and a host's VMs are not known
        operations: [{id, command, by, at, under_way}], commands that have not ended; those that are not under
            way were interrupted
        findings: [{kind, host, vm, text, advice}], gravest first; kinds are those of tasks.cluster.overview

    Examples:
        fab status
        fab -H vmhost1 status
        fab status --json | jq '.vms[] | select(.state != "running")'
    """
    report = observe(op)
    if json:
        op.output.document(document(report))
    else:
        show(op, report)
    return 0 if report.snapshot.facts() else 1


@dataclass(frozen=True, slots=True)
class Report:
    """What was seen, and what follows from it."""

    inventory: str
    hosts: Sequence[Host]
    snapshot: Snapshot
    cordons: Mapping[str, Cordon]
    lines: tuple[VmLine, ...]
    findings: tuple[Finding, ...]
    #: absent, present or outdated, by host; None where it is not known
    guards: Mapping[str, str | None] = field(default_factory=dict)


def observe(op: Operator) -> Report:
    """Ask the hosts of -H, else all."""
    with op.session() as session:
        report = _look(op, session, plan=False)
        if any(f.kind == "image-twice" for f in report.findings):
            # Only the definitions say whether it is a disk that VMs may share.
            report = _look(op, session, plan=True)
        return report


def _look(op: Operator, session: Session, *, plan: bool) -> Report:
    from tasks.cluster.overview import findings, vm_lines
    from tasks.cluster.setup import guard

    snapshot = session.observe(plan=plan, hosts=op.hosts or None)
    hosts = [op.inventory.hosts[name] for name in snapshot.hosts]
    cordons = {name: cordon for name, cordon in snapshot.cordons().items() if name in snapshot.hosts}
    lines = vm_lines(snapshot)
    guards = {facts.host: guard.state_on(facts, op.inventory) for facts in snapshot.facts()}
    found = findings(snapshot, cordons, lines=lines)
    return Report(op.inventory.path, hosts, snapshot, cordons, lines, found, guards)


# -- for people ----------------------------------------------------------------------------------------------


def show(op: Operator, report: Report) -> None:
    """Two tables, then what needs a look and what to type about it."""
    from tasks.cli import guarding

    op.output.table(host_table(report))
    op.say()
    if report.lines:
        op.output.table(vm_table(report))
        op.say()
    op.say(summary(report))
    if op.hosts:
        were = "were" if len(op.hosts) > 1 else "was"
        op.say(f"Only {', '.join(op.hosts)} {were} asked: a VM may run elsewhere, too.")
    for finding in report.findings:
        text = finding.text + (f" (since {moment(finding.at)})" if finding.at else "")
        op.say(f"! {text}", "bold red" if finding.grave else "yellow")
        if finding.advice:
            op.say(f"  {finding.advice}")
    guarding.note_unguarded(op, report.snapshot)
    guarding.note_outdated(op, report.snapshot)
    for one in report.snapshot.operations():
        if one.held:
            since = f" (since {moment(one.at)})" if one.at else ""
            op.say(
                f"Under way: '{one.command}' by {one.by}{since}" if one.command else "A command is under way."
            )


def summary(report: Report) -> str:
    """One sentence that counts."""
    answering = len(report.snapshot.facts())
    running = sum(line.running for line in report.lines)
    unknown = len(report.snapshot.unsure())
    text = f"{answering} of {len(report.hosts)} hosts answered; {running} VMs run"
    text += f", {len(report.lines) - running} are off" if not unknown else " as far as is known"
    well = not report.findings and set(report.guards.values()) <= {"present"}
    return text + (". Nothing needs a look." if well else ".")


def host_table(report: Report) -> Table:
    """A row per host, in the order of the inventory."""
    rows, styles = [], []
    for host in report.hosts:
        seen = report.snapshot.hosts[host.name]
        state, style = _state(seen, host.name in report.cordons)
        rows.append((host.name, state, *_figures(seen, host)))
        styles.append(style)
    columns = ("host", "state", "VMs", "load/CPUs", "used", "free", "reserved", "store free", "up")
    right = frozenset(columns[2:])
    return Table(columns, rows, right=right, fixed=frozenset({"state"}), styles=styles)


def _state(seen: HostFacts | Silent, cordoned: bool) -> tuple[str, str]:
    """The one word that matters most about a host, and its style."""
    from tasks.cluster.model import HostFacts

    if not isinstance(seen, HostFacts):
        return "silent", "bold red"
    if seen.libvirt_problem:
        return "libvirtd", "bold red"
    if seen.store.problem or not seen.store.mounted:
        return "bad store" if seen.store.mounted else "no store", "bold red"
    return ("cordoned", "yellow") if cordoned else ("ok", "")


def _figures(seen: HostFacts | Silent, host: Host) -> tuple[str, ...]:
    from tasks.cluster.model import HostFacts

    if not isinstance(seen, HostFacts):
        return ("?", "", "", "", _reserve(host), "", "")
    store = seen.store
    usable = store.mounted and not store.problem
    return (
        "?" if seen.libvirt_problem else str(sum(d.running for d in seen.domains)),
        f"{seen.load1:.1f}/{seen.cpus}",
        size((seen.memory_total_kib - seen.memory_available_kib) * 1024),
        size(seen.memory_available_kib * 1024),
        _reserve(host),
        size(store.free_bytes) if usable else "-",
        duration(seen.uptime),
    )


def _reserve(host: Host) -> str:
    return size(host.reserve_kib * 1024) if host.reserve_kib else "-"


def vm_table(report: Report) -> Table:
    """A row per VM: those that run by host, then the others; each by name."""
    from tasks.cli.select import natural

    order = {host.name: number for number, host in enumerate(report.hosts)}
    lines = sorted(
        report.lines,
        key=lambda v: (order[v.running_on[0]] if v.running else len(order), natural(v.vm.name)),
    )
    rows = [
        (
            line.vm.name or line.vm.uuid or "?",
            ", ".join(line.running_on) or f"({', '.join(line.defined_on)})",
            line.state,
            "?" if line.memory_kib is None else size(line.memory_kib * 1024),
            "" if line.since is None else moment(line.since),
        )
        for line in lines
    ]
    columns = ("VM", "host", "state", "memory", "since")
    right = frozenset({"memory"})
    return Table(
        columns, rows, right=right, fixed=frozenset({"since"}), styles=[_vm_style(line) for line in lines]
    )


def _vm_style(line: VmLine) -> str:
    if len(line.running_on) > 1:
        return "bold red"
    if not line.running:
        return "dim" if line.state == "shut off" else "yellow"
    return "" if line.state == "running" else "yellow"


# -- for programs --------------------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    """The document of --json; its fields are described at `status`."""
    import time

    guards = report.guards
    return {
        "schema": SCHEMA,
        "at": round(time.time(), 3),
        "inventory": report.inventory,
        "hosts": [
            _host(
                host, report.snapshot.hosts[host.name], report.cordons.get(host.name), guards.get(host.name)
            )
            for host in report.hosts
        ],
        "vms": [
            {
                "name": line.vm.name,
                "uuid": line.vm.uuid,
                "state": line.state,
                "running_on": list(line.running_on),
                "defined_on": list(line.defined_on),
                "memory_kib": line.memory_kib,
                "vcpus": line.vcpus,
                "since": line.since,
            }
            for line in report.lines
        ],
        "operations": [
            {"id": o.id, "command": o.command, "by": o.by, "at": o.at, "under_way": o.held}
            for o in report.snapshot.operations()
        ],
        "findings": [
            {"kind": f.kind, "host": f.host, "vm": f.vm, "text": f.text, "advice": f.advice}
            for f in report.findings
        ],
    }


def _host(host: Host, seen: HostFacts | Silent, cordon: Cordon | None, guard: str | None) -> dict[str, Any]:
    from tasks.cluster.model import HostFacts

    facts = seen if isinstance(seen, HostFacts) else None
    known = facts if facts and not facts.libvirt_problem else None
    return {
        "name": host.name,
        "address": host.address,
        "answering": facts is not None,
        "reason": None if isinstance(seen, HostFacts) else seen.reason,
        "libvirt_problem": facts.libvirt_problem or None if facts else None,
        "cordon": {"by": cordon.by, "at": cordon.at, "why": cordon.why} if cordon else None,
        "guard": guard,
        "vms_running": sum(d.running for d in known.domains) if known else None,
        "cpus": facts.cpus if facts else None,
        "load1": facts.load1 if facts else None,
        "uptime": facts.uptime if facts else None,
        "memory_kib": {
            "total": facts.memory_total_kib if facts else None,
            "used": facts.memory_total_kib - facts.memory_available_kib if facts else None,
            "free": facts.memory_available_kib if facts else None,
            "reserved": host.reserve_kib,
        },
        "store": _store(facts) if facts else None,
    }


def _store(facts: HostFacts) -> dict[str, Any]:
    store = facts.store
    return {
        "mount": store.mount,
        "mounted": store.mounted,
        "problem": store.problem or None,
        "id": store.store_id or None,
        "total_bytes": store.total_bytes,
        "free_bytes": store.free_bytes,
    }
