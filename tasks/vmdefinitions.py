"""vm.define, vm.undefine, vm.dumpxml: the definitions of VMs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cli import Hosts, Operator, vmtask
from tasks.cli.text import DRY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.cluster.asking.session import Session
    from tasks.cluster.model import FileId, Refusal, Snapshot, Vm
    from tasks.cluster.vm.definitions import DefinePlan, NewDefinition

#: Bytes of XML beyond which it is no definition of a VM.
LARGEST = 4 << 20


@vmtask(
    Hosts.FILTER, positional=["file"], help={"file": "A file with the domain's XML; - for standard input"}
)
def define(op: Operator, file: str, dry_run: bool = False, yes: bool = False, json: bool = False) -> int:
    """Define a VM from XML, or change its definition.

    With -H on these hosts, otherwise where it is defined already. The XML is checked first: well-formed, a
    domain, disks on the shared store, no writable disk of another VM unless it is shareable, no name or UUID
    of another VM on any host. Shows how it differs from the definition that is there, asks, defines, and
    reads it back. Every host has to answer. Without a <uuid> the VM keeps the one that it has. A running VM
    goes on as it is until it is shut down and started again. Nothing is started. The same again is fine.

    Exit codes: 0 defined and read back, 1 libvirt stored something else, 2 refused, 3 the outcome is unknown.

    Examples:
        fab -H vmhost1 vm.define web.xml
        fab vm.dumpxml web --security-info --inactive > web.xml; vi web.xml; fab vm.define web.xml
        ssh old virsh dumpxml web | fab -H vmhost1 vm.define - --yes
    """
    from tasks.cli import relocation, vmreport
    from tasks.cluster.errors import VmfabError
    from tasks.cluster.vm import defining, definitions
    from tasks.cluster.vm.result import VmResult, exit_code

    text = _text_of(file)
    where = "Standard input" if file == "-" else file
    with op.session() as session:
        snapshot = relocation.observe(session, "a definition", dry_run=dry_run)
        new = definitions.read(text, where, snapshot)
        plans, refusals = _plans(
            session, snapshot, new, definitions.where_to_define(snapshot, new.vm, op.hosts)
        )
        vmreport.refuse(op, refusals, "defined")
        for plan in plans:
            _show(op, plan)
        todo = [plan for plan in plans if not plan.same]
        results = [
            VmResult(new.vm, p.host, "already", "is defined like this already") for p in plans if p.same
        ]
        if dry_run:
            results += [VmResult(new.vm, p.host, "planned", "", p.warnings) for p in todo]
        elif todo:
            op.confirm(f"Define {new.vm.name} on {', '.join(p.host for p in todo)}?")
            begun = op.begin()
            for plan in todo:
                try:
                    defining.define(session, plan, begun)
                except VmfabError as error:
                    if len(plans) == 1:
                        raise
                    result = {2: "left", 3: "unknown"}.get(error.code, "failed")
                    results.append(VmResult(new.vm, plan.host, result, str(error)))
                else:
                    results.append(VmResult(new.vm, plan.host, "done"))
        vmreport.show_results(op, results, {"done": "defined", "already": "the same"})
        if dry_run:
            op.say(DRY)
        code = exit_code(results) if not dry_run else 0
        if json:
            op.output.document(vmreport.document(results, (), code))
        return code


def _text_of(file: str) -> str:
    """Read the XML. Raises Refused."""
    from tasks.cluster.errors import Refused

    try:
        if file == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise Refused("There is no XML on standard input.", "Example: fab vm.define web.xml")
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(LARGEST + 1)
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}.") from None
    if len(data) > LARGEST:
        raise Refused(f"{file} is too large for a definition of a VM.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Refused(f"{file} is not text in UTF-8.") from None


def _plans(
    session: Session, snapshot: Snapshot, new: NewDefinition, hosts: tuple[str, ...]
) -> tuple[list[DefinePlan], list[Refusal]]:
    from tasks.cluster.vm import definitions

    plans: list[DefinePlan] = []
    refusals: list[Refusal] = []
    for host in hosts:
        files: Mapping[str, FileId] = {}
        if paths := definitions.paths_of(new.xml):
            with session.using(host) as ops:
                files = ops.look(paths)
        plan, found = definitions.plan_define(snapshot, new, host, files)
        refusals += found
        if plan is not None:
            plans.append(plan)
    return plans, list(dict.fromkeys(refusals))


def _show(op: Operator, plan: DefinePlan) -> None:
    if plan.present is None:
        op.say(f"{plan.new.vm.name} (UUID {plan.new.vm.uuid}) is new on {plan.host}.")
    elif plan.diff:
        op.say(plan.diff, as_is=True)
    elif plan.secrets_differ:
        op.say(f"{plan.host}: only its passwords differ; they are not shown.")
    for warning in plan.warnings:
        op.warn(f"{plan.host}: {warning}")


@vmtask(Hosts.FILTER, positional=["vm"])
def undefine(op: Operator, vm: str, dry_run: bool = False, yes: bool = False, json: bool = False) -> int:
    """Remove VMs' definitions; their images stay.

    From all hosts, or from those of -H. Asks. Refused while the VM runs anywhere, when a host does not
    answer, and when a managed save would be lost. Images and UEFI variables are never deleted, but named.
    The name is taken out of /root/running_vms.

    Exit codes: 0 removed and verified, 1 a host did not remove it, 2 refused, 3 the outcome is unknown.

    Examples:
        fab vm.undefine old-web
        fab -H vmhost1 vm.undefine web
    """
    from tasks.cli import vmreport
    from tasks.cli.select import select
    from tasks.cluster.vm import defining
    from tasks.cluster.vm.result import VmResult, exit_code

    with op.session() as session:
        snapshot = session.observe(plan=True)
        removals, refusals = defining.plan_undefine(snapshot, select(snapshot, vm, hosts=op.hosts), op.hosts)
        for removal in removals:
            op.say(f"{removal.vm.name}: definition on {removal.host} to be removed")
        for path in dict.fromkeys(path for removal in removals for path in removal.kept):
            op.say(f"  stays: {path}")
        vmreport.refuse(op, refusals, "undefined", others=bool(removals))
        if dry_run:
            results = [VmResult(r.vm, r.host, "planned") for r in removals]
            code = 0
        else:
            op.confirm(f"Remove {'1 definition' if len(removals) == 1 else f'{len(removals)} definitions'}?")
            begun = op.begin()
            results = [defining.undefine(session, removal, begun) for removal in removals]
            code = exit_code(results)
        vmreport.show_results(op, results, {"done": "undefined"})
        if dry_run:
            op.say(DRY)
        if json:
            op.output.document(vmreport.document(results, (), code))
        return code


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={
        "vm": "One VM: its name or UUID.",
        "inactive": "What its next start uses, although it runs.",
        "security_info": "With passwords.",
    },
)
def dumpxml(op: Operator, vm: str, inactive: bool = False, security_info: bool = False) -> int:
    """Print a VM's XML on standard output.

    That of the running VM from the host that runs it, otherwise that of the host where vm.start would start
    it; with -H that of this host. Nothing else goes to standard output.

    Example: fab vm.dumpxml web --inactive --security-info > web.xml
    """
    from tasks.cli.select import select
    from tasks.cli.text import block
    from tasks.cluster.errors import Refused

    with op.session() as session:
        snapshot = session.observe()
        chosen = select(snapshot, vm, hosts=op.hosts)
        if len(chosen) > 1:
            names = ", ".join(v.name for v in chosen)
            raise Refused(f"dumpxml prints one VM, not {names}.", "Name exactly one.")
        host = _host_of(op, snapshot, chosen[0])
        if not snapshot.where_running(chosen[0]):
            for silent in snapshot.unsure():
                op.output.error(f"fab: it may run on {silent.host}, which cannot be asked ({silent.reason}).")
        with session.using(host) as ops:
            text = ops.dumpxml(chosen[0].uuid, inactive=inactive, security=security_info)
    op.output.out.write(block(text) if op.output.out.isatty() else text)
    op.output.out.flush()
    return 0


def _host_of(op: Operator, snapshot: Snapshot, vm: Vm) -> str:
    from tasks.cluster.errors import Refused
    from tasks.cluster.vm.home import home_of

    running = [d.host for d in snapshot.where_running(vm) if not op.hosts or d.host in op.hosts]
    if len(running) > 1:
        raise Refused(
            f"{vm.name} RUNS ON {', '.join(running)}.", f"Choose one: fab -H {running[0]} vm.dumpxml ..."
        )
    return running[0] if running else home_of(snapshot, vm, op.hosts).host
