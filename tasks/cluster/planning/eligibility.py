"""Whether a VM may move at all: every reason against it that holds whatever the target is.

Filters run in order, each answers for the VM, and all their answers are reported together. A reason that the
operator may decide against names the flag that does it; nothing overrides a host that does not answer, a VM
that runs twice, a foreign store or a managed save. The reasons that depend on the target are in `targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from tasks.cluster import domainxml
from tasks.cluster.domainxml import Source
from tasks.cluster.model import Refusal
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.overrides import ALLOW_LOCAL_ISO, ALLOW_SHARED_IMAGE
from tasks.cluster.planning.subject import Subject, kept, store_problem, unanswered

#: What to do about states in which a guest cannot be shut down the normal way.
REMEDIES = {
    "paused": "resume it or destroy it first",
    "pmsuspended": "wake it up (virsh dompmwakeup) or destroy it first",
    "crashed": "destroy it first",
    "in shutdown": "wait until it is off",
}
#: Images behind these protocols are reached from every host alike.
LOOPBACK = ("localhost", "127.", "::1", "[::1]", "unix:")


def _unsure_hosts(census: Census, vm: Subject) -> Iterator[Refusal]:
    for silent in census.unsure.values():
        yield vm.refusal(unanswered(silent.reason), host=silent.host)


def _elsewhere(census: Census, vm: Subject) -> Iterator[Refusal]:
    for seen in census.other_evidence(vm.domain, vm.images):
        yield vm.refusal(f"it runs, or its image is in use, a second time: {seen.what}", host=seen.host)


def _state(census: Census, vm: Subject) -> Iterator[Refusal]:
    if vm.domain.state not in ("running", "idle"):
        remedy = REMEDIES.get(vm.domain.state, "bring it to a known state first")
        yield vm.refusal(f"it is {vm.domain.state} and cannot be shut down: {remedy}")


def _definition(census: Census, vm: Subject) -> Iterator[Refusal]:
    if not vm.domain.persistent:
        yield vm.refusal("it is transient: its definition is gone once it is off (virsh define keeps it)")
    elif vm.xml is None:
        yield vm.refusal(f"its definition cannot be checked: {vm.why}")


def _managed_save(census: Census, vm: Subject) -> Iterator[Refusal]:
    for domain in census.definitions(vm.domain.vm):
        if domain.managed_save:
            yield vm.refusal(
                "has a managed save of it: a start there would bring back old memory over a newer disk "
                "(virsh managedsave-remove drops it)",
                host=domain.host,
            )


def _host_devices(census: Census, vm: Subject) -> Iterator[Refusal]:
    for device in vm.xml.hostdevs if vm.xml else ():
        yield vm.refusal(f"it uses hardware of this host: {device}")


def _source_store(census: Census, vm: Subject) -> Iterator[Refusal]:
    if problem := store_problem(vm.facts.store):
        yield vm.refusal(f"its images cannot be checked: {problem}")


def _disks(census: Census, vm: Subject) -> Iterator[Refusal]:
    for disk in vm.xml.disks if vm.xml else ():
        if disk.source is None:
            continue
        if disk.removable and disk.readonly:
            if reason := _local(vm, disk.source):
                yield vm.refusal(f"{disk} {reason}: the drive would be empty elsewhere", ALLOW_LOCAL_ISO)
            continue
        for source in (disk.source, *disk.also_writes, *disk.backing):
            if reason := _local(vm, source):
                through = "" if source == disk.source else f" needs {source}, which"
                yield vm.refusal(f"{disk}{through} {reason}")


def _local(vm: Subject, source: Source) -> str:
    """Why an image cannot be used from another host; empty when it can."""
    if source.kind == "network":
        here = any(h.startswith(LOOPBACK) for h in source.hosts)
        return "is served by this host only" if here else ""
    if source.kind == "volume":
        return "cannot be told to lie on the shared store (use its path in the definition)"
    if not source.path:
        return ""  # hardware: reported with the host's devices
    if not vm.on_store(source.path):
        return f"is not on {vm.facts.store.mount}"
    file = vm.facts.files.get(source.path)
    return "does not exist" if file is not None and not file.exists else ""


def _local_state(census: Census, vm: Subject) -> Iterator[Refusal]:
    xml, mount = vm.xml, vm.facts.store.mount
    if xml is None:
        return
    if xml.nvram is not None and xml.nvram.path:
        if not vm.on_store(xml.nvram.path):
            yield vm.refusal(f"its UEFI variables ({xml.nvram}) are not on {mount}")
    elif xml.wants_nvram and xml.nvram is None:
        yield vm.refusal(f"its UEFI variables lie where libvirt puts them, not on {mount}")
    for tpm in xml.tpms:
        if tpm.backend != "emulator":
            yield vm.refusal(f"it uses a TPM of this host: {tpm.backend} {tpm.path}".rstrip())
        elif not (tpm.path and vm.on_store(tpm.path)):
            yield vm.refusal(f"its TPM's state is not on {mount}")
    boot = {"kernel": xml.kernel, "initrd": xml.initrd, "device tree": xml.dtb, "firmware": xml.loader}
    for what, path in boot.items():
        # Below /usr lies what the distribution's packages bring to every host.
        if path and not vm.on_store(path) and not (what == "firmware" and path.startswith("/usr/")):
            yield vm.refusal(f"its {what} ({path}) is not on {mount}")
    for path in xml.filesystems:
        if not vm.on_store(path):
            yield vm.refusal(f"it uses a folder of this host: {path}")


def _shared_images(census: Census, vm: Subject) -> Iterator[Refusal]:
    for other in census.sharers(vm.domain.vm, vm.images):
        if not other.running:
            yield vm.refusal(
                f"defines {other.vm.name!r} (off), which writes the same image",
                ALLOW_SHARED_IMAGE,
                other.host,
            )


def _unsaved_disks(census: Census, vm: Subject) -> Iterator[Refusal]:
    if vm.xml is None or not vm.domain.live_xml:
        return
    try:
        live = domainxml.parse(vm.domain.live_xml)
    except ValueError as error:
        yield vm.refusal(f"what runs cannot be checked: {error}")
        return
    # A block copy's destination is no disk of the VM: the job ends with the shutdown.
    used = {
        s.key(vm.facts.files): s
        for d in live.disks
        if d.written() and not d.transient
        for s in (d.source,)
        if s
    }
    kept = domainxml.writable_keys(vm.xml, vm.facts.files)
    for key in sorted(used.keys() - kept):
        yield vm.refusal(
            f"it writes {used[key]}, which its definition lacks and a start elsewhere would miss "
            "(virsh attach-disk --config keeps it)"
        )


VmFilter = Callable[[Census, Subject], Iterable[Refusal]]
VM_FILTERS: tuple[VmFilter, ...] = (
    _unsure_hosts,
    _elsewhere,
    _state,
    _definition,
    _managed_save,
    _host_devices,
    _source_store,
    _disks,
    _local_state,
    _shared_images,
    _unsaved_disks,
)

#: Those of them that are about the definition alone.
TIES: tuple[VmFilter, ...] = (_definition, _host_devices, _source_store, _disks, _local_state)


def refusals_for_vm(census: Census, vm: Subject, overrides: Collection[str] = ()) -> tuple[Refusal, ...]:
    """Every reason why the VM must not move at all; those in `overrides` (flags) are left out."""
    return kept((r for vm_filter in VM_FILTERS for r in vm_filter(census, vm)), overrides)


def ties(census: Census, vm: Subject, overrides: Collection[str] = ()) -> tuple[Refusal, ...]:
    """Every reason why the VM could not run on another host with its definition, whether it is on or off."""
    return kept((r for vm_filter in TIES for r in vm_filter(census, vm)), overrides)


def media_left_behind(vm: Subject) -> tuple[str, ...]:
    """Drives (sda ...) whose medium another host has not: `domainxml.for_target` makes them optional."""
    disks = vm.xml.disks if vm.xml else ()
    return tuple(d.target for d in disks if d.removable and d.readonly and d.source and _local(vm, d.source))
