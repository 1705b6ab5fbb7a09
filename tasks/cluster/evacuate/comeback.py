"""A host that was evacuated and is back: it forgets the VMs that were started elsewhere meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent
from tasks.cluster.model import HostFacts, Snapshot, Vm
from tasks.cluster.store.sharedstore import SharedStore

#: The VMs that were taken away from a host, one "UUID NAME" a line; the host's restart script heeds it, too.
TAKEN = "evacuated"


def path_of(host: str) -> str:
    return f"{TAKEN}/{host}"


def line_of(vm: Vm) -> str:
    """What stands for a VM in the list."""
    return f"{vm.uuid} {vm.name}\n"


def read(text: str) -> tuple[Vm, ...]:
    """The VMs in a host's list, each once."""
    lines = (line.partition(" ") for line in text.splitlines())
    return tuple(dict.fromkeys(Vm(uuid, name) for uuid, _, name in lines))


def taken_from(store: SharedStore, host: str) -> tuple[Vm, ...]:
    """The VMs that evacuations took away from a host. Raises Failed when the store cannot be read."""
    return read(store.read(path_of(host)) or "")


def forget(session: Session, store: SharedStore, snapshot: Snapshot, host: str, vms: Sequence[Vm]) -> None:
    """Let the host's own list and libvirt there no longer start these VMs, and drop the list of them.

    What runs on the host now stays as it is. Raises Failed when the host or the store cannot be written to.
    """
    facts = snapshot.hosts[host]
    assert isinstance(facts, HostFacts)
    here = {d.vm.uuid: d for d in facts.domains}
    gone = [vm for vm in vms if vm.uuid not in here or not here[vm.uuid].running]
    try:
        with session.using(host) as ops:
            ops.note_running(remove=[vm.name for vm in gone])
            for vm in gone:
                if vm.uuid in here and here[vm.uuid].autostart:
                    ops.autostart(vm.uuid, on=False)
    except (HostSilent, HostError) as error:
        raise Failed(f"{host} still means to start {', '.join(vm.name for vm in gone)}: {error}") from error
    store.remove(path_of(host))
