"""Everything about this host in one answer, in parts that cannot hold each other up."""

from __future__ import annotations

import os
import time

from . import children, domains, images, mounts, processes, runninglist, storefacts, virsh
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .mounts import Mount

HOOK = "/etc/libvirt/hooks/qemu"
#: What QEMU offers does not change while one command runs, and costs libvirtd up to a second.
_machines: list[str] = []


def observe(mount: str, *, plan: bool) -> dict[str, Any]:
    """The answer to `observe`. What libvirt or the store cannot tell is named as their problem."""
    facts: dict[str, Any] = {"at": time.time(), "boot_id": boot_id(), "machines": []}
    facts["guard_version"] = guard_version()
    facts["guarded"] = bool(facts["guard_version"])
    facts.update(_load(), running_vms=runninglist.read(runninglist.PATH), bridges=_bridges())
    table = mounts.table()
    libvirt, machines, facts["store"] = children.together(
        lambda: _libvirt(plan),
        lambda: _machine_types() if plan else [],
        lambda: storefacts.facts(mount, table, operations=True),
    )
    facts["cordons"] = facts["store"].pop("cordons")
    facts["operations"] = facts["store"].pop("operations")
    facts["libvirt_problem"] = libvirt.pop("problem") or machines_problem(machines)
    facts.update(libvirt)
    if not facts["libvirt_problem"]:
        facts["machines"] = machines
    else:
        facts["domains"] = []
    _add_files(facts, mounts.at(mount, table), table)
    return facts


def running(mount: str) -> dict[str, Any]:
    """The answer to `running`; fails when libvirtd does not answer, for then nobody knows."""
    facts: dict[str, Any] = {"at": time.time()}
    table = mounts.table()
    # A VM that is down can be started from a full store: its image is there.
    facts["domains"], facts["store"] = children.together(
        lambda: domains.active(timeout=virsh.READ), lambda: storefacts.facts(mount, table, full=0)
    )
    _add_files(facts, mounts.at(mount, table), table)
    return facts


def look(mount: str, paths: list[str]) -> dict[str, Any]:
    """The answer to `look`: what these absolute paths are."""
    table = mounts.table()
    return {"files": images.look(paths, table, mounts.at(mount, table))}


def boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _libvirt(plan: bool) -> dict[str, Any]:
    try:
        found = domains.everything(xml=plan, timeout=virsh.READ)
    except Problem as problem:
        if problem.kind not in ("no-libvirt", "libvirt-silent", "virsh"):
            raise
        return {"libvirt_version": "", "domains": [], "networks": [], "problem": problem.message}
    version = found.pop("version")
    return {"libvirt_version": version, "problem": "", **found}


def _machine_types() -> list[str] | Problem:
    if not _machines:
        try:
            _machines.extend(virsh.machines(virsh.run("capabilities")))
        except Problem as problem:
            if problem.kind not in ("no-libvirt", "libvirt-silent", "virsh"):
                raise
            return problem
    return list(_machines)


def machines_problem(found: list[str] | Problem) -> str:
    return found.message if isinstance(found, Problem) else ""


def _load() -> dict[str, Any]:
    with open("/proc/uptime", encoding="ascii") as file:
        uptime = float(file.read().split()[0])
    memory = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            memory[key] = value
    return {
        "uptime": uptime,
        "cpus": os.cpu_count() or 1,
        "load1": os.getloadavg()[0],
        "memory_total_kib": int(memory["MemTotal"].split()[0]),
        "memory_available_kib": int(memory["MemAvailable"].split()[0]),
    }


def guard_version() -> str:
    """The version of vmfab's hook here; "" without one."""
    try:
        with open(HOOK, "rb") as file:
            text = file.read()
    except OSError:
        return ""
    return version_in(text) if os.access(HOOK, os.X_OK) else ""


def version_in(hook: bytes) -> str:
    """The version of a hook by its text; "edited" if that is not what its third line says, "" if not ours."""
    import hashlib

    first, second, third, rest = (hook.split(b"\n", 3) + [b""] * 3)[:4]
    if not second.startswith(b"# vmfab guard"):
        return ""
    words = third.decode("ascii", "replace").split()
    digest = hashlib.sha256(b"\n".join([first, second, rest])).hexdigest()[:16]
    return words[1] if len(words) == 3 and words[2] == digest else "edited"


def _bridges() -> list[str]:
    folder = "/sys/class/net"
    return sorted(n for n in os.listdir(folder) if os.path.isdir(f"{folder}/{n}/bridge"))


def _add_files(facts: dict[str, Any], mount: Mount | None, table: list[Mount]) -> None:
    """Add the processes, what they hold open, and what the definitions' paths are."""
    # Asked after libvirt, so that what started in between shows as a process at least.
    found = processes.all_qemu()
    opened = [processes.open_to_write(p) for p in found]
    paths: set[str] = set()
    for domain in facts["domains"]:
        for xml in (domain["xml"], domain["live_xml"]):
            paths |= images.named(xml) if xml else set()
    facts["files"], entries = children.together(
        lambda: images.look(paths, table, mount),
        lambda: images.look_open([file for files in opened for file in files], mount),
    )
    rest = iter(entries)
    facts["processes"] = [
        {"pid": p.pid, "uuid": p.uuid, "name": p.name, "files": [e for _, e in zip(files, rest) if e]}
        for p, files in zip(found, opened)
    ]
    by_uuid = {p.uuid: p for p in found if p.uuid}
    for domain in facts["domains"]:
        process = by_uuid.get(domain["uuid"])
        domain["pid"] = None if process is None else process.pid
        domain["since"] = None if process is None else process.since()
        domain["last_ran"] = _last_ran(domain["name"])


def _last_ran(name: str) -> float | None:
    """When libvirt last wrote to the VM's log here: it does so when QEMU starts and ends."""
    try:
        return os.stat(f"/var/log/libvirt/qemu/{name}.log").st_mtime
    except OSError:
        return None
