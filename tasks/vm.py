"""vm.list and vm.console: see the VMs of the whole cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli import Hosts, Operator, Table, vmtask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.cluster.model import Snapshot
    from tasks.cluster.overview import VmLine

#: Version of the document of vm.list --json; raised when a field changes its meaning or goes away.
SCHEMA = 1


@vmtask(Hosts.FILTER, name="list")
def list_(op: Operator, all: bool = False, json: bool = False) -> int:
    """List the VMs of the whole cluster.

    One row per VM, wherever it is: those that run, with --all also those that are off (the hosts that
    define it stand in parentheses). With -H only VMs that run or are defined there; all hosts are asked all
    the same, so that a VM which runs elsewhere is not called off. A host that does not answer is named, and
    a VM that runs twice is shown loudly.

    Exit code 0 when every host (of -H) answered, 3 when the list may lack VMs because one did not.

    --json prints one document:
        schema: 1; vms: [{name, uuid, state, running_on: [host], defined_on: [host], memory_kib, vcpus,
            since}], as in status; silent: [{host, reason}]; findings: [{kind, vm, text, advice}], VMs that
            run or write an image twice

    Examples:
        fab vm.list
        fab -H vmhost1 vm.list --all
    """
    from tasks.cluster.overview import findings, vm_lines

    with op.session() as session:
        snapshot = session.observe()
        grave = [f for f in findings(snapshot, {}) if f.grave]
        if any(f.kind == "image-twice" for f in grave):
            # Only the definitions say whether it is a disk that VMs may share.
            snapshot = session.observe(plan=True)
            grave = [f for f in findings(snapshot, {}) if f.grave]
    lines = [line for line in vm_lines(snapshot) if (all or line.running) and _concerns(line, op.hosts)]
    if json:
        op.output.document({
            "schema": SCHEMA,
            "vms": [_row(line) for line in lines],
            "silent": [{"host": s.host, "reason": s.reason} for s in snapshot.unsure()],
            "findings": [{"kind": f.kind, "vm": f.vm, "text": f.text, "advice": f.advice} for f in grave],
        })  # fmt: skip
    else:
        _show_list(op, snapshot, lines, all=all)
    for finding in grave:
        op.say(f"! {finding.text}", "bold red")
        op.say(f"  {finding.advice}")
    return 3 if any(not op.hosts or s.host in op.hosts for s in snapshot.unsure()) else 0


def _concerns(line: VmLine, hosts: Sequence[str]) -> bool:
    return not hosts or any(host in hosts for host in (*line.running_on, *line.defined_on))


def _show_list(op: Operator, snapshot: Snapshot, lines: Sequence[VmLine], *, all: bool) -> None:
    from tasks.cli import vmreport
    from tasks.cli.select import natural
    from tasks.cli.text import moment, size

    rows, styles = [], []
    for line in sorted(lines, key=lambda v: (not v.running, natural(v.vm.name))):
        host = ", ".join(line.running_on) or f"({', '.join(line.defined_on)})"
        memory = "?" if line.memory_kib is None else size(line.memory_kib * 1024)
        since = "" if line.since is None else moment(line.since)
        rows.append((line.vm.name or line.vm.uuid or "?", host, line.state, memory, since))
        styles.append(_style(line))
    columns = ("VM", "host", "state", "memory", "since")
    if rows:
        op.output.table(Table(columns, rows, right=frozenset({"memory"}), styles=styles))
    else:
        where = f" on {', '.join(op.hosts)}" if op.hosts else ""
        known = " as far as is known" if snapshot.unsure() else ""
        op.say(f"No VM {'is there' if all else 'runs'}{where}{known}.")
    vmreport.show_doubts(op, snapshot)


def _style(line: VmLine) -> str:
    if len(line.running_on) > 1:
        return "bold red"
    if line.state == "running":
        return ""
    return "dim" if line.state == "shut off" else "yellow"


def _row(line: VmLine) -> dict[str, Any]:
    return {
        "name": line.vm.name,
        "uuid": line.vm.uuid,
        "state": line.state,
        "running_on": list(line.running_on),
        "defined_on": list(line.defined_on),
        "memory_kib": line.memory_kib,
        "vcpus": line.vcpus,
        "since": line.since,
    }


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={"vm": "One VM: its name or UUID.", "force": "Take the console from whoever has it."},
)
def console(op: Operator, vm: str, force: bool = False) -> None:
    """Open the serial console of a running VM.

    Connects with ssh to the host that runs it and opens virsh console there. Leave it with Ctrl-]. Needs a
    terminal.

    Example: fab vm.console web
    """
    from tasks.cli import terminal
    from tasks.cli.select import select
    from tasks.cluster.errors import Refused

    terminal.need("A console")
    with op.session() as session:
        snapshot = session.observe()
        chosen = select(snapshot, vm, hosts=op.hosts, running=True)
        if len(chosen) > 1:
            raise Refused(f"A console is of one VM, not of {', '.join(v.name for v in chosen)}.")
        running = [d for d in snapshot.where_running(chosen[0]) if not op.hosts or d.host in op.hosts]
    if len(running) > 1:
        hosts = ", ".join(d.host for d in running)
        raise Refused(
            f"{chosen[0].name} RUNS ON {hosts}.", f"Choose one: fab -H {running[0].host} vm.console ..."
        )
    flags = ["--force"] if force else []
    # By its UUID: names may look like options.
    words = ["virsh", "-c", "qemu:///system", "console", running[0].vm.uuid, *flags]
    op.say(f"Console of {running[0].vm.name} on {running[0].host}. Leave it with Ctrl-].")
    terminal.open(op, running[0].host, words)
