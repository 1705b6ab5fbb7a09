"""Observed hosts, made by hand for tests of what only calculates."""

from __future__ import annotations

import dataclasses
import uuid as uuids
from typing import Any

from tasks.cluster.model import Domain, HostFacts, QemuProcess, Store, Vm


def domain(name: str, *, uuid: str = "", state: str = "running", **changes: Any) -> Domain:
    """A VM's definition; `host` fills in where. The UUID follows from the name."""
    vm = Vm(uuid or str(uuids.uuid5(uuids.NAMESPACE_DNS, name)), name)
    made = Domain(
        vm=vm,
        host="",
        state=state,
        reason="booted" if state == "running" else "",
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=1 << 20,
        vcpus=1,
        since=1_800_000_000.0 if state == "running" else None,
    )
    return dataclasses.replace(made, **changes)


def host(name: str, *domains: Domain, processes: tuple[QemuProcess, ...] = (), **changes: Any) -> HostFacts:
    """A host's answer: all well, unless `changes` say otherwise."""
    made = HostFacts(
        host=name,
        at=1_800_000_000.0,
        boot_id="boot",
        uptime=90_000.0,
        cpus=16,
        load1=0.5,
        memory_total_kib=64 << 20,
        memory_available_kib=60 << 20,
        libvirt_version="10.0.0",
        libvirt_problem="",
        store=Store("/vmstorage", True, store_id="s", total_bytes=1 << 40, free_bytes=1 << 39),
        domains=tuple(dataclasses.replace(d, host=name) for d in domains),
        processes=processes,
    )
    return dataclasses.replace(made, **changes)
