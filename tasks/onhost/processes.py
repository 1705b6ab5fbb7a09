"""QEMU processes as /proc shows them, whatever libvirt says: who they are, what they have open to write."""

from __future__ import annotations

import os
import time

from .mounts import Mount, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WRITABLE = (os.O_WRONLY, os.O_RDWR)
_DEVICES = ("/dev/kvm", "/dev/null", "/dev/net/", "/dev/vhost", "/dev/ptmx", "/dev/pts/")


class Process:
    """A living qemu process. `task` is the folder in /proc to read it from."""

    def __init__(self, pid: int, task: str, uuid: str, name: str) -> None:
        self.pid = pid
        self.task = task
        self.uuid = uuid
        self.name = name

    def alive(self) -> bool:
        """Whether it is still there (and not another process of the same number)."""
        return any(p.uuid == self.uuid and p.name == self.name for p in _of(self.pid))

    def since(self) -> float | None:
        """When it started, seconds since the epoch; None when it is gone."""
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8", errors="replace") as file:
                ticks = int(file.read().rpartition(")")[2].split()[19])
            with open("/proc/uptime", encoding="ascii") as file:
                uptime = float(file.read().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            return None
        return time.time() - uptime + ticks / float(os.sysconf("SC_CLK_TCK"))


def all_qemu() -> list[Process]:
    """Every qemu process; libvirt's short-lived probes of QEMU (`-machine none`) are not VMs."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            found += _of(int(entry))
    return found


def with_uuid(uuid: str) -> list[Process]:
    return [p for p in all_qemu() if p.uuid == uuid]


def _of(pid: int) -> list[Process]:
    """The qemu process of this number as a list of one, else of none."""
    task = f"/proc/{pid}"
    argv = _argv(task)
    if argv is None:
        return []
    if not argv:
        # A killed QEMU with a thread stuck in a write looks empty itself; the thread still has it all.
        for task in _stuck_threads(pid):
            argv = _argv(task)
            if argv:
                break
        else:
            return []
    found = identity(argv or [])
    return [] if found is None else [Process(pid, task, *found)]


def _argv(task: str) -> list[str] | None:
    try:
        with open(f"{task}/cmdline", "rb") as file:
            data = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return [os.fsdecode(part) for part in data.split(b"\0")][:-1] if data else []


def _stuck_threads(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            if not _is_qemu(os.fsdecode(file.read().rstrip(b"\n"))):
                return []
        return [f"/proc/{pid}/task/{tid}" for tid in os.listdir(f"/proc/{pid}/task") if int(tid) != pid]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_qemu(program: str) -> bool:
    return program.startswith(("qemu-system", "qemu-kvm")) or program == "kvm"


def identity(argv: list[str]) -> tuple[str, str] | None:
    """(uuid, name) of a VM's command line, "" where it has none; None if it is no VM's."""
    if not argv or not _is_qemu(argv[0].rpartition("/")[2]):
        return None
    options: dict[str, str] = {}
    for option, value in zip(argv[1:], argv[2:]):
        if option.startswith("-"):
            options.setdefault(option.lstrip("-"), value)
    if options.get("machine", options.get("M", "")).partition(",")[0] == "none":
        return None
    return options.get("uuid", "").lower(), _name(options.get("name", ""))


def _name(value: str) -> str:
    """The guest's name in `-name guest=NAME,key=value...`, where a comma in the name is doubled."""
    parts = value.replace(",,", "\0").split(",")
    for index, part in enumerate(parts):
        part = part.replace("\0", ",")
        if part.startswith("guest="):
            return part[len("guest=") :]
        if index == 0 and "=" not in part:
            return part
    return ""


class OpenFile:
    """A file that a process has open for writing, told from /proc without touching the file itself."""

    def __init__(self, link: str, path: str, ino: int, mount: Mount | None) -> None:
        self.link = link
        self.path = path
        self.ino = ino
        self.mount = mount


def open_to_write(process: Process) -> list[OpenFile]:
    """Regular files and block devices; a process that ends meanwhile has none."""
    found = []
    try:
        with open(f"{process.task}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = {m.id: m for m in parse(file.read())}
        for fd in os.listdir(f"{process.task}/fd"):
            link = f"{process.task}/fd/{fd}"
            try:
                path = os.readlink(link)
                if not path.startswith("/") or path.startswith(_DEVICES):
                    continue
                facts = _fdinfo(f"{process.task}/fdinfo/{fd}")
            except FileNotFoundError:
                continue  # closed in this moment
            if int(facts["flags"], 8) & os.O_ACCMODE in _WRITABLE:
                found.append(
                    OpenFile(link, path, int(facts.get("ino", "0")), mounts.get(int(facts["mnt_id"])))
                )
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def _fdinfo(path: str) -> dict[str, str]:
    with open(path, encoding="ascii", errors="replace") as file:
        pairs: list[Any] = [line.partition(":") for line in file.read().splitlines()]
    return {key: value.strip() for key, _, value in pairs}
