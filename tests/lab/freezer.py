"""The kernel's freezer: what is in it is in state D, and a signal to end it waits until it is let go."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tasks.lab.namespaces import until


@contextmanager
def frozen(pids: Sequence[int], mount: Path) -> Iterator[None]:
    """Freeze these processes; `mount` is the folder, made here, where the control group is seen."""
    mount.mkdir()
    subprocess.run(["mount", "-t", "cgroup", "-o", "freezer", "freezer", str(mount)], check=True)
    group = mount / f"vmfab-{pids[0]}"
    group.mkdir()
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(f"{pid}\n", encoding="ascii")
        (group / "freezer.state").write_text("FROZEN\n", encoding="ascii")
        until(lambda: (group / "freezer.state").read_text() == "FROZEN\n", 10, "the freezer")
        yield
    finally:
        (group / "freezer.state").write_text("THAWED\n", encoding="ascii")
        for member in (group / "cgroup.procs").read_text().split():
            (mount / "cgroup.procs").write_text(member, encoding="ascii")
        until(lambda: (group / "cgroup.procs").read_text() == "", 10, "the freezer to be empty")
        group.rmdir()
        subprocess.run(["umount", str(mount)], check=True)
