"""vm.start, vm.shutdown, vm.destroy, vm.reboot: what virsh does to a VM, cluster-wide and safe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.cli import Hosts, Operator, vmtask
from tasks.cli.text import DRY
from tasks.cluster.planning.overrides import OF_A_START

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.cluster.model import Refusal, Snapshot, Vm
    from tasks.cluster.vm.result import VmResult
    from tasks.cluster.vm.stopplan import Stop, Verb


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={
        "partial": "Start the others although some VMs are refused.",
        "ignore_cordon": "Start on a host that takes no new VMs.",
        "ignore_reserve": "Use the memory that hosts.ini keeps for the host itself.",
        "ignore_apart": "Start beside a VM that hosts.ini wants apart.",
        "allow_local_iso": "Start although its CD stays behind on the host that its definition comes from.",
    },
    overrides=OF_A_START,
)
def start(
    op: Operator,
    vm: str,
    parallel: int = 4,
    partial: bool = False,
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    json: bool = False,
) -> int:
    """Start VMs where they ran last, or on the host of -H.

    Without -H the host is the only one that defines the VM, else the one whose /root/running_vms names it,
    else the one where it ran last; when nothing tells, it is refused with the candidates. With -H the VM
    takes its definition along if that host has none. Refused when any host does not answer, runs the VM or
    uses one of its writable images, and when the host is cordoned, has not the memory, network or store, or
    another host has a managed save; all reasons are shown at once. It is watched for 3 s and noted in
    /root/running_vms; libvirt's autostart stays as it is. A VM that runs there already is fine.

    Exit codes: 0 running and verified, 1 it failed and is off, 2 refused, 3 the outcome is unknown.

    Examples:
        fab vm.start web
        fab -H vmhost2 vm.start 'web*,db'
    """
    from tasks.cli import guarding, vmreport, vmwork
    from tasks.cluster.store import sharedstore
    from tasks.cluster.vm.result import VmResult, exit_code
    from tasks.cluster.vm.startplan import plan_starts

    with op.session() as session:
        snapshot = sharedstore.observe(session, dry_run=dry_run)
        plan = plan_starts(snapshot, op.inventory, _to_start(op, snapshot, vm), op.hosts, overrides)
        for chosen in plan.starts:
            op.say(f"{chosen.vm.name}: to start on {chosen.host} ({chosen.why})")
        vmreport.refuse(
            op, plan.refusals, "started", partial=partial, others=bool(plan.starts or plan.already)
        )
        guarding.note_unguarded(op, snapshot)
        there = [VmResult(v, host, "already", "runs there already") for v, host in plan.already]
        if dry_run:
            planned = [VmResult(s.vm, s.host, "planned", s.why, s.warnings) for s in plan.starts]
            return _end(op, [*there, *planned], plan.refusals, {"already": "running"}, 0, dry_run=True)
        results, interrupted = vmwork.start_all(
            op, session, plan.starts, parallel=parallel, overrides=overrides
        )
        ended = [*there, *results]
        code = exit_code(ended, interrupted=interrupted) or (1 if plan.refusals else 0)
        return _end(op, ended, plan.refusals, {"done": "started", "already": "running"}, code)


def _to_start(op: Operator, snapshot: Snapshot, vm: str) -> tuple[Vm, ...]:
    """With -H patterns choose among the VMs of these hosts, exact names and UUIDs among all."""
    from tasks.cli.select import select
    from tasks.cluster.errors import Refused

    try:
        return select(snapshot, vm, hosts=op.hosts)
    except Refused:
        if not op.hosts or any(c in vm for c in "*?["):
            raise
        return select(snapshot, vm)


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={
        "timeout": "Seconds to wait for it; otherwise what hosts.ini says, else 180.",
        "partial": "Shut down the others although some VMs are refused.",
    },
)
def shutdown(
    op: Operator,
    vm: str,
    timeout: float | None = None,
    parallel: int = 8,
    partial: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Shut VMs down and wait until they are off.

    The guest is asked (by its agent, else ACPI), asked again every 15 s, and waited for on its host. At the
    end every host is asked: off means that none shows a trace of it; with -H only these hosts count. The
    name is taken out of /root/running_vms. A VM that does not go off in time still runs (exit code 1):
    vm.destroy ends it. Asks before several VMs at once. Already off is fine.

    Exit codes: 0 off and verified, 1 still running, 2 refused, 3 the outcome is unknown.

    Examples:
        fab vm.shutdown web
        fab vm.shutdown 'test-*' --timeout 60
    """
    from tasks.cluster.vm.stopplan import Verb

    return _stop(op, vm, Verb.SHUTDOWN, timeout, parallel, partial=partial, dry_run=dry_run)


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={"partial": "Destroy the others although some VMs are refused."},
)
def destroy(
    op: Operator,
    vm: str,
    parallel: int = 8,
    partial: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Stop VMs hard, as if their power were cut.

    Asks. Ends the VM's process with SIGTERM, if that does not help with SIGKILL, and proves that it is
    gone. What the guest has not written yet is lost; its images and definition stay. The name is taken out of
    /root/running_vms. A VM that runs on two hosts is stopped on the one of -H. Already off is fine.

    Exit codes: 0 off and verified, 2 refused, 3 it could not be killed or is not proved to be off, and counts
    as running.

    Example: fab vm.destroy web
    """
    from tasks.cluster.vm.stopplan import Verb

    return _stop(op, vm, Verb.DESTROY, None, parallel, partial=partial, dry_run=dry_run)


@vmtask(
    Hosts.FILTER,
    positional=["vm"],
    help={"partial": "Reboot the others although some VMs are refused."},
)
def reboot(
    op: Operator,
    vm: str,
    parallel: int = 4,
    partial: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    json: bool = False,
) -> int:
    """Ask VMs to reboot, where they are.

    libvirt asks the guest, and nobody can see from outside when it has rebooted: verified is that it still
    runs. A changed definition has no effect before vm.shutdown and vm.start. Refused for a VM that is off,
    and for one whose on_reboot would end it. Asks before several VMs at once.

    Example: fab vm.reboot web
    """
    from tasks.cluster.vm.stopplan import Verb

    return _stop(op, vm, Verb.REBOOT, None, parallel, partial=partial, dry_run=dry_run)


def _stop(
    op: Operator,
    vm: str,
    verb: Verb,
    timeout: float | None,
    parallel: int,
    *,
    partial: bool,
    dry_run: bool,
) -> int:
    from tasks.cli import vmreport, vmwork
    from tasks.cli.select import select
    from tasks.cluster.vm.result import VmResult, exit_code
    from tasks.cluster.vm.stopplan import Verb, plan_stops

    done = {Verb.SHUTDOWN: "shut down", Verb.DESTROY: "destroyed", Verb.REBOOT: "rebooted"}[verb]
    words = {"done": "asked" if verb is Verb.REBOOT else done, "already": "off"}
    with op.session() as session:
        snapshot = session.observe(plan=True)
        vms = select(snapshot, vm, hosts=op.hosts, running=verb is Verb.REBOOT)
        plan = plan_stops(snapshot, vms, verb, op.hosts)
        vmreport.show_doubts(op, snapshot)
        for stop in plan.stops:
            gone = "; it is transient: its definition is gone then" if stop.transient else ""
            op.say(f"{stop.vm.name}: {stop.state} on {stop.host}, to be {done}{gone}")
        vmreport.refuse(
            op,
            plan.refusals,
            done,
            partial=partial,
            others=bool(plan.stops or plan.off),
            waits_for=[silent.host for silent in snapshot.unsure()],
        )
        off = [VmResult(v, "", "already", "is off already") for v in plan.off]
        if dry_run:
            planned = [VmResult(s.vm, s.host, "planned") for s in plan.stops]
            return _end(op, [*off, *planned], plan.refusals, words, 0, dry_run=True)
        _ask(op, verb, plan.stops)
        results, interrupted = vmwork.stop_all(
            op, session, plan.stops, verb, parallel=parallel, timeout=timeout
        )
        ended = [*off, *results]
        code = exit_code(ended, interrupted=interrupted) or (1 if plan.refusals else 0)
        return _end(op, ended, plan.refusals, words, code)


def _ask(op: Operator, verb: Verb, stops: Sequence[Stop]) -> None:
    """Destroy always asks; the others when there are several, or a definition would be lost."""
    from tasks.cli.vmreport import count
    from tasks.cluster.vm.stopplan import Verb

    if not stops:
        return
    lost = verb is not Verb.REBOOT and any(stop.transient for stop in stops)
    if verb is Verb.DESTROY:
        op.confirm(f"Cut the power of {count(len(stops))}? What is not on the disks yet is lost.")
    elif len(stops) > 1 or lost:
        op.confirm(f"{'Reboot' if verb is Verb.REBOOT else 'Shut down'} {count(len(stops))}?")


def _end(
    op: Operator,
    results: Sequence[VmResult],
    refusals: Sequence[Refusal],
    words: Mapping[str, str],
    code: int,
    *,
    dry_run: bool = False,
) -> int:
    from tasks.cli import vmreport

    vmreport.show_results(op, results, words)
    if dry_run:
        op.say(DRY)
    if op.output.json:
        op.output.document(vmreport.document(results, refusals, code))
    return code
