"""Snapshots observed for planning, made by hand: hosts with VMs whose definitions can be read."""

from __future__ import annotations

import dataclasses
import uuid as uuids
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tasks.cluster import domainxml
from tasks.cluster.model import (
    Domain,
    FileId,
    Host,
    HostFacts,
    Inventory,
    QemuProcess,
    Silent,
    Snapshot,
    Store,
    Vm,
)

GIB = 1 << 20
MACHINE = "pc-q35-8.2"
STORE = Store("/vmstorage", True, store_id="s1", total_bytes=1 << 40, free_bytes=1 << 39)


def vm_named(name: str) -> Vm:
    return Vm(str(uuids.uuid5(uuids.NAMESPACE_DNS, name)), name)


def disk_xml(
    path: str, *, device: str = "disk", target: str = "vda", kind: str = "file", inside: str = ""
) -> str:
    attribute = "dev" if kind == "block" else "file"
    source = f"<source {attribute}={quoteattr(path)}/>" if path else ""
    return f"<disk type='{kind}' device='{device}'>{source}<target dev='{target}'/>{inside}</disk>"


def domain(
    name: str,
    *,
    memory_kib: int = GIB,
    image: str = "",
    devices: str = "<interface type='bridge'><source bridge='br0'/></interface>",
    os: str = "",
    uuid: str = "",
    state: str = "running",
    machine: str = MACHINE,
    **changes: Any,
) -> Domain:
    """A VM with one image on the store, /vmstorage/NAME.img unless `image` says otherwise."""
    vm = Vm(uuid or vm_named(name).uuid, name)
    xml = (
        f"<domain type='kvm'><name>{escape(name)}</name><uuid>{vm.uuid}</uuid><memory>{memory_kib}</memory>"
        f"<os><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>"
        f"<devices>{disk_xml(image or f'/vmstorage/{name}.img')}{devices}</devices></domain>"
    )
    made = Domain(
        vm=vm,
        host="",
        state=state,
        reason="",
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=memory_kib,
        vcpus=1,
        xml=xml,
        live_xml=xml if state == "running" else "",
    )
    return dataclasses.replace(made, **changes)


def file_ids(host: str, paths: set[str], *, mounted: bool = True) -> dict[str, FileId]:
    """What a host finds behind paths: what lies below /vmstorage is the same on each, the rest its own."""
    found = {}
    for path in paths:
        on_store = mounted and path.startswith("/vmstorage/")
        key = f"store:{path}" if on_store else f"{host}:{path}"
        found[path] = FileId(path, path, exists=not path.endswith(".gone"), on_store=on_store, key=key)
    return found


def host(name: str, *domains: Domain, processes: tuple[QemuProcess, ...] = (), **changes: Any) -> HostFacts:
    """A host of 64 GiB with the everyday bridge and machine type."""
    store = changes.get("store", STORE)
    here = []
    files: dict[str, FileId] = {}
    for d in domains:
        images: frozenset[str] = frozenset()
        for text in filter(None, (d.xml, d.live_xml)):
            try:
                xml = domainxml.parse(text)
            except ValueError:
                continue
            paths = {s.path for x in xml.disks for s in (x.source, *x.backing) if s and s.path}
            files |= file_ids(name, paths, mounted=store.mounted)
            images |= domainxml.writable_keys(xml, files)
        here.append(dataclasses.replace(d, host=name, images=images))
    made = HostFacts(
        host=name,
        at=0.0,
        boot_id="boot",
        uptime=1.0,
        cpus=16,
        load1=0.5,
        memory_total_kib=64 * GIB,
        memory_available_kib=64 * GIB,
        libvirt_version="10.0.0",
        libvirt_problem="",
        store=STORE,
        domains=tuple(here),
        processes=processes,
        bridges=frozenset({"br0"}),
        machines=frozenset({f"x86_64/{MACHINE}"}),
        files=files,
    )
    return dataclasses.replace(made, **changes)


def snapshot(*hosts: HostFacts | Silent) -> Snapshot:
    return Snapshot({h.host: h for h in hosts})


def inventory(*names: str, reserve_kib: int = 0, **changes: Any) -> Inventory:
    hosts = {n: Host(n, n, reserve_kib=reserve_kib) for n in names}
    return dataclasses.replace(Inventory("hosts.ini", hosts, {}), **changes)
