"""What tests have left on this machine, known by marks: ended when a run ends, however it ends.

A test that passes or fails puts its own things away. This is for what is cut short: by Ctrl-C, by a signal,
by a process of pytest that died.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from tasks.lab import namespaces
from tasks.lab.lab import Lab
from tasks.lab.problem import LabError

#: All processes of a run inherit it, save those of practice clusters, which have marks of their own.
MARK = "VMFAB_TEST_RUN"


def begin() -> str:
    """Mark what this process starts from now on; the mark, or "" for a part of a run that has one."""
    if MARK in os.environ:
        return ""
    os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"
    return os.environ[MARK]


def end(mark: str, folder: Path) -> list[str]:
    """End the practice clusters below the folder, then every process of this run; what these were."""
    found = []
    for root in sorted({Path(root) for _, root in _marked("VMFAB_LAB_ROOT")}):
        if root.is_relative_to(folder):
            found.append(f"the practice cluster in {root}")
            with contextlib.suppress(LabError):
                for role in ("anchor", *namespaces.leaders(root)):
                    namespaces.end(root, role)
                Lab(root).down()
    for pid, value in _marked(MARK):
        # Between the look and the signal the number may have been given to another process.
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if value == mark and (pid, value) in set(_marked(MARK, pid)):
                    found.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)
    return found


def tell_children(number: signal.Signals) -> None:
    """Send a signal to the processes that this one has begun itself."""
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(child), number)


def _marked(name: str, *pids: int) -> Iterator[tuple[int, str]]:
    """Processes that were started with this variable in their environment, each with its value."""
    wanted = name.encode() + b"="
    for pid in pids or [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                if entry.startswith(wanted):
                    yield pid, os.fsdecode(entry.removeprefix(wanted))
