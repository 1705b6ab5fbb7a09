"""Find, enter and end the processes that hold the lab's namespaces.

Each namespace set is held by the PID 1 of an own pid namespace that carries two marks in its environment:
the lab's root folder and its role. They are found by these marks, never by recorded numbers, so a crash or
a reboot leaves nothing stale behind, and no process of anybody else can be mistaken for one of the lab's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.problem import LabError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CLEAN_ENV = {"PATH": PATH, "HOME": "/root", "USER": "root", "LOGNAME": "root", "LANG": "C.UTF-8"}


@dataclass(frozen=True)
class Leader:
    """A PID 1 of one of the lab's pid namespaces; `pid` as this process sees it."""

    role: str
    pid: int

    def file(self, kind: str) -> str:
        """Name its namespace of a kind: net, mnt, pid, ..."""
        return f"/proc/{self.pid}/ns/{kind}"


def marks(root: Path, role: str) -> dict[str, str]:
    """Return the environment that marks a leader."""
    return {"VMFAB_LAB_ROOT": str(root), "VMFAB_LAB_ROLE": role}


def leaders(root: Path) -> dict[str, Leader]:
    """Find this lab's living leaders by role."""
    wanted = f"VMFAB_LAB_ROOT={root}".encode()
    own = inode("/proc/self/ns/pid")
    found = {}
    for pid in pids():
        try:
            # The cheapest question first: this is called many times a second.
            if inode(f"/proc/{pid}/ns/pid") == own:
                continue
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            if wanted not in environment or not _is_leader(pid):
                continue
        except OSError:
            continue
        for entry in environment:
            if entry.startswith(b"VMFAB_LAB_ROLE="):
                role = entry.partition(b"=")[2].decode()
                found[role] = Leader(role, pid)
    return found


def pids() -> list[int]:
    """List all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _is_leader(pid: int) -> bool:
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"State:") and b"Z" in line:
                return False
            if line.startswith(b"NSpid:"):
                numbers = line.split()[1:]
                return len(numbers) > 1 and numbers[-1] == b"1"
    return False


def inode(path: str) -> int:
    """Return what tells one namespace from another."""
    return os.stat(path).st_ino


def started(leader: Leader) -> bool:
    """Tell whether the leader has finished its preparations (it has become tini)."""
    process = Path(f"/proc/{leader.pid}")
    try:
        if (process / "comm").read_text(encoding="utf-8").strip() != "tini":
            return False
        # A process that becomes another has that one's name a moment before its environment.
        return bool((process / "environ").read_bytes())
    except OSError:
        return False


def members(leader: Leader) -> list[int]:
    """List the processes in the leader's pid namespace, itself included."""
    space = inode(leader.file("pid"))
    found = []
    for pid in pids():
        try:
            if inode(f"/proc/{pid}/ns/pid") == space:
                found.append(pid)
        except OSError:
            continue
    return found


def prefix(leader: Leader, *kinds: str) -> list[str]:
    """Return the words that make a command run inside the leader's namespaces."""
    return ["nsenter", *(f"--{_LONG[kind]}={leader.file(kind)}" for kind in kinds), "--"]


_LONG = {"mnt": "mount", "net": "net", "pid": "pid", "uts": "uts", "ipc": "ipc", "time": "time"}
ALL = ("mnt", "net", "pid", "uts", "ipc", "time")


def run(
    words: Sequence[str], *, stdin: str = "", timeout: float = 30.0, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run one of the lab's own commands in a clean environment; raises LabError."""
    try:
        done = subprocess.run(
            list(words), input=stdin, capture_output=True, text=True, timeout=timeout, env=CLEAN_ENV,
            check=False, errors="replace",
        )  # fmt: skip
    except FileNotFoundError as error:
        raise LabError(f"{words[0]} is not installed.", "Type: fab lab.up (it names the packages)") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"No end within {timeout:g} s: {' '.join(words)}") from error
    if check and done.returncode:
        raise LabError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()} (rc {done.returncode})")
    return done


def spawn(words: Sequence[str], environment: dict[str, str], log: Path) -> None:
    """Start a process that outlives this one and has no part in its terminal."""
    with log.open("ab") as output:
        subprocess.run(
            ["setsid", "--fork", *words], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env={**CLEAN_ENV, **environment}, cwd="/", check=True,
        )  # fmt: skip


def end(root: Path, role: str) -> None:
    """Kill a leader, and with it all that lives in its pid namespace; returns when all is gone."""
    leader = leaders(root).get(role)
    if leader is None:
        return
    try:
        # A pidfd is proof against the number being given to another process from here on.
        pidfd = os.pidfd_open(leader.pid)
    except ProcessLookupError:
        return
    try:
        if leaders(root).get(role) == leader:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            until(lambda: not _alive(leader.pid), 20.0, f"the end of {role}")
    finally:
        os.close(pidfd)


def signal_member(leader: Leader, pid: int, number: signal.Signals) -> None:
    """Send a signal to a process only if it lives in the leader's pid namespace."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if inode(f"/proc/{pid}/ns/pid") == inode(leader.file("pid")):
            signal.pidfd_send_signal(pidfd, number)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has just ended
    finally:
        os.close(pidfd)


def _alive(pid: int) -> bool:
    try:
        return _is_leader(pid)
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float, what: str, pause: float = 0.01) -> None:
    """Wait until `condition` holds; raises LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"Waited {seconds:g} s in vain for {what}.")
        time.sleep(pause)
