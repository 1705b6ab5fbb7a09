"""The answers of a host's agent, turned from JSON into the model. Surprise raises ValueError."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.cluster import domainxml
from tasks.cluster.model import (
    Cordon,
    Domain,
    FileId,
    HostFacts,
    OpenOperation,
    QemuProcess,
    RunningNow,
    Store,
    Vm,
    require,
)


def host_facts(host: str, reply: Mapping[str, Any]) -> HostFacts:
    """The answer to `observe`."""
    found = files(host, reply)
    running = reply.get("running_vms")
    return HostFacts(
        host=host,
        at=float(require(reply, "at", (int, float))),
        boot_id=require(reply, "boot_id", str),
        uptime=float(require(reply, "uptime", (int, float))),
        cpus=require(reply, "cpus", int),
        load1=float(require(reply, "load1", (int, float))),
        memory_total_kib=require(reply, "memory_total_kib", int),
        memory_available_kib=require(reply, "memory_available_kib", int),
        libvirt_version=require(reply, "libvirt_version", str),
        libvirt_problem=require(reply, "libvirt_problem", str),
        store=_store(require(reply, "store", dict)),
        domains=tuple(_domain(host, d, found) for d in require(reply, "domains", list)),
        processes=_processes(host, reply),
        cordons=tuple(cordon(text) for text in require(reply, "cordons", list)),
        operations=tuple(_operation(o) for o in require(reply, "operations", list)),
        guarded=None if "guarded" not in reply else require(reply, "guarded", bool),
        guard_version=str(reply.get("guard_version", "")),
        running_vms=None if running is None else tuple(str(n) for n in running),
        bridges=_names(reply, "bridges"),
        networks=_names(reply, "networks"),
        machines=_names(reply, "machines"),
        files=found,
    )


def cordon(text: str) -> Cordon:
    """One file of the folder cordons/. One that cannot be read raises ValueError: it is not "no cordon"."""
    data = json.loads(text)
    if not isinstance(data, dict):
        raise ValueError(f"unexpected cordon: {text!r}")
    return Cordon(
        host=require(data, "host", str),
        by=require(data, "by", str),
        at=float(require(data, "at", (int, float))),
        why=require(data, "why", str),
        drains=tuple(str(d) for d in require(data, "drains", list)),
    )


def _operation(o: Mapping[str, Any]) -> OpenOperation:
    """An operation's lock; its text is empty when the store was full, or while it is being written."""
    name, held = require(o, "id", str), require(o, "held", bool)
    try:
        data = json.loads(require(o, "holder", str))
        by, command, at = str(data["by"]), str(data["command"]), float(data["at"])
    except (ValueError, KeyError, TypeError):
        return OpenOperation(name, held)
    return OpenOperation(name, held, command, by, at)


def running_now(host: str, reply: Mapping[str, Any]) -> RunningNow:
    """The answer to `running`: active domains with their live XML, and qemu processes."""
    found = files(host, reply)
    return RunningNow(
        host=host,
        at=float(require(reply, "at", (int, float))),
        active=tuple(_domain(host, d, found) for d in require(reply, "domains", list)),
        processes=_processes(host, reply),
        store_problem=require(require(reply, "store", dict), "problem", str),
    )


def files(host: str, reply: Mapping[str, Any]) -> dict[str, FileId]:
    """The answer to `look`: what paths on the host really are."""
    return {path: _file_id(host, path, f) for path, f in require(reply, "files", dict).items()}


def _names(reply: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(str(n) for n in require(reply, key, list))


def _file_id(host: str, path: str, f: Mapping[str, Any]) -> FileId:
    real = require(f, "real", str)
    exists = require(f, "exists", bool)
    on_store = require(f, "on_store", bool)
    # On the shared store the inode number is the same on every host; elsewhere it needs host and device.
    if on_store:
        key = f"store:{f['ino']}" if exists else f"store:{real}"
    elif f.get("block"):
        # A block device of the same stable name (LUN, LV) is taken for the same on every host.
        key = f"block:{require(f, 'block', str)}"
    else:
        key = f"{host}:{f['dev']}:{f['ino']}" if exists else f"{host}:{real}"
    return FileId(path=path, real=real, exists=exists, on_store=on_store, key=key)


def _store(s: Mapping[str, Any]) -> Store:
    return Store(
        mount=require(s, "mount", str),
        mounted=require(s, "mounted", bool),
        problem=require(s, "problem", str),
        store_id=require(s, "store_id", str),
        fstype=require(s, "fstype", str),
        source=require(s, "source", str),
        total_bytes=require(s, "total_bytes", int),
        free_bytes=require(s, "free_bytes", int),
    )


def _domain(host: str, d: Mapping[str, Any], files: Mapping[str, FileId]) -> Domain:
    xml, live_xml = require(d, "xml", str), require(d, "live_xml", str)
    images: set[str] = set()
    for text in (xml, live_xml):
        if text:
            images |= domainxml.writable_keys(domainxml.parse(text), files)
    pid, since, last_ran = d.get("pid"), d.get("since"), d.get("last_ran")
    return Domain(
        vm=Vm(require(d, "uuid", str), require(d, "name", str)),
        host=host,
        state=require(d, "state", str),
        reason=require(d, "reason", str),
        persistent=require(d, "persistent", bool),
        autostart=require(d, "autostart", bool),
        managed_save=require(d, "managed_save", bool),
        memory_kib=require(d, "memory_kib", int),
        vcpus=require(d, "vcpus", int),
        pid=None if pid is None else int(pid),
        since=None if since is None else float(since),
        last_ran=None if last_ran is None else float(last_ran),
        xml=xml,
        live_xml=live_xml,
        images=frozenset(images),
    )


def _processes(host: str, reply: Mapping[str, Any]) -> tuple[QemuProcess, ...]:
    entries: Sequence[Mapping[str, Any]] = require(reply, "processes", list)
    found = []
    for p in entries:
        # "files" holds only regular files and block devices that the process has open for writing.
        images = frozenset(_file_id(host, str(f.get("path", "")), f).key for f in require(p, "files", list))
        found.append(
            QemuProcess(require(p, "pid", int), require(p, "uuid", str), require(p, "name", str), images)
        )
    return tuple(found)
