"""Change the hosts' definitions: define and undefine, each under the VM's lock and verified afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tasks.cluster import domainxml
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent, Refused, Unknown, VmfabError
from tasks.cluster.model import Domain, HostFacts, Refusal, Silent, Snapshot, Vm, evidence_of
from tasks.cluster.moving.proof import look
from tasks.cluster.planning.subject import unanswered
from tasks.cluster.store.locks import lock_of_vm
from tasks.cluster.store.operation import Operation
from tasks.cluster.vm.definitions import DefinePlan, misunderstood
from tasks.cluster.vm.home import definitions
from tasks.cluster.vm.result import VmResult


def define(session: Session, plan: DefinePlan, operation: Operation) -> None:
    """Define it on the plan's host, and read it back.

    Raises Locked, Refused or HostSilent when nothing was changed there, Unknown when the host's answer was
    lost, Failed when libvirt stored something else.
    """
    lock = lock_of_vm(session, plan.new.vm, operation)
    try:
        lock.hold_through(plan.host)
    except HostError as error:
        raise Refused(f"{error}.") from error
    try:
        _define(session, plan)
        _verify(session, plan)
    finally:
        lock.release()


def _define(session: Session, plan: DefinePlan) -> None:
    try:
        with session.using(plan.host) as ops:
            ops.define(plan.new.text)
        return
    except HostError as error:
        if error.kind == "virsh":
            raise Refused(f"{plan.host} does not take the definition: {error.detail}.") from error
        reason = error.detail
    except HostSilent as error:
        reason = error.reason
    raise Unknown(
        f"{plan.host} did not say whether it defined {plan.new.vm.name} ({reason}).",
        f"Look: fab -H {plan.host} vm.dumpxml {plan.new.vm.uuid}",
    )


def _verify(session: Session, plan: DefinePlan) -> None:
    try:
        with session.using(plan.host) as ops:
            dumped = ops.dumpxml(plan.new.vm.uuid, inactive=True, security=True)
        wrong = misunderstood(plan.new, dumped)
    except (HostSilent, HostError, ValueError) as error:
        message = f"{plan.new.vm.name} is defined on {plan.host}, but cannot be read back: {error}."
        raise Unknown(message) from error
    if wrong:
        raise Failed(
            f"{plan.new.vm.name} is defined on {plan.host}, but libvirt changed {wrong}.",
            f"See fab -H {plan.host} vm.dumpxml {plan.new.vm.uuid}",
        )


@dataclass(frozen=True, slots=True)
class Undefine:
    """One definition to remove, and what stays: `kept` are the files of the VM that nobody deletes."""

    domain: Domain
    kept: tuple[str, ...]
    noted: bool

    @property
    def vm(self) -> Vm:
        return self.domain.vm

    @property
    def host(self) -> str:
        return self.domain.host


def plan_undefine(
    snapshot: Snapshot, vms: Sequence[Vm], hosts: Sequence[str] = ()
) -> tuple[tuple[Undefine, ...], tuple[Refusal, ...]]:
    """All definitions of the VMs, or those on `hosts`, or every reason against removing them.

    The snapshot must have been made for planning, of all hosts.
    """
    removals: list[Undefine] = []
    refusals: list[Refusal] = []
    for vm in vms:
        found = [Refusal(vm.name, s.host, unanswered(s.reason)) for s in snapshot.unsure()]
        for facts in snapshot.facts():
            found += [
                Refusal(vm.name, e.host, f"it is not off: {e.what}")
                for e in evidence_of(vm, frozenset(), facts)
            ]
        there = definitions(snapshot, vm, hosts)
        saved = "has a managed save of it, which would be lost (virsh managedsave-remove drops it)"
        found += [Refusal(vm.name, d.host, saved) for d in there if d.managed_save]
        refusals += found
        if not found:
            removals += [_undefine(snapshot, d) for d in there]
    return tuple(removals), tuple(dict.fromkeys(refusals))


def _undefine(snapshot: Snapshot, domain: Domain) -> Undefine:
    facts = snapshot.hosts[domain.host]
    noted = isinstance(facts, HostFacts) and domain.vm.name in (facts.running_vms or ())
    return Undefine(domain, files_of(domain), noted)


def files_of(domain: Domain) -> tuple[str, ...]:
    """The images and UEFI variables of a VM, as its definition names them; empty if it cannot be read."""
    try:
        xml = domainxml.parse(domain.xml)
    except ValueError:
        return ()
    found = [str(d.source) for d in xml.disks if d.source is not None and not d.removable]
    if xml.nvram is not None:
        found.append(str(xml.nvram))
    return tuple(dict.fromkeys(found))


def undefine(session: Session, removal: Undefine, operation: Operation) -> VmResult:
    """Remove one definition once more proved off everywhere; raises nothing foreseeable."""
    vm, host = removal.vm, removal.host
    lock = lock_of_vm(session, vm, operation)
    warnings: list[str] = []
    try:
        lock.hold_through(host)
        trace = look(session, vm, frozenset())
        if not trace.off:
            return VmResult(vm, host, "left", f"no longer as planned: {trace.words()}")
        try:
            with session.using(host) as ops:
                ops.undefine(vm.uuid)
        except HostSilent:
            return _seen_undefined(session, vm, host)
        except HostError as error:
            seen = _seen_undefined(session, vm, host)
            return replace(seen, detail=error.detail) if seen.result == "failed" else seen
        if removal.noted:
            try:
                with session.using(host) as ops:
                    ops.note_running(remove=[vm.name])
            except (HostSilent, HostError) as error:
                warnings.append(f"/root/running_vms: {error}")
    except VmfabError as error:
        return VmResult(vm, host, "left", str(error))
    finally:
        lock.release()
    return VmResult(vm, host, _seen_undefined(session, vm, host).result, "", tuple(warnings))


def _seen_undefined(session: Session, vm: Vm, host: str) -> VmResult:
    facts = session.observe(hosts=(host,)).hosts[host]
    if isinstance(facts, Silent):
        return VmResult(vm, host, "unknown", f"{host} does not answer ({facts.reason})")
    if facts.libvirt_problem:
        return VmResult(vm, host, "unknown", facts.libvirt_problem)
    if any(d.vm.uuid == vm.uuid for d in facts.domains):
        return VmResult(vm, host, "failed", f"{host} still defines it")
    return VmResult(vm, host, "done")
