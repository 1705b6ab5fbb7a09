"""What every practice cluster has: a folder, an anchor that all else lives below, and a laptop."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tasks.lab import namespaces
from tasks.lab.namespaces import Leader, prefix
from tasks.lab.problem import LabError, LabRefused

HERE = Path(__file__).parent
FILES = HERE / "files"
# -I -S: neither the operator's environment nor site-packages have a say in the lab's own processes.
PYTHON = (sys.executable, "-I", "-S")
KEPT = ("cache", "lock")
#: By one of these a folder is known to be a lab's.
MADE = ("lab.json", "cells", "machines.json", "machines")
NOT_UP = "The practice cluster is not up."


class Space:
    """One lab: all its state lies below `root`, all its processes below its anchor."""

    def __init__(self, root: Path, cache: Path | None = None) -> None:
        """Point at a lab, which need not exist yet; nothing is done."""
        self.root = root.resolve()
        self.cache = (cache or root / "cache").resolve()

    def leaders(self) -> dict[str, Leader]:
        """Find the lab's living leaders: anchor, laptop, host:NAME, latency:NAME."""
        return namespaces.leaders(self.root)

    @property
    def anchor(self) -> Leader:
        """Return the leader that all others live below; raises LabError when the lab is down."""
        return self._leader("anchor", NOT_UP)

    def _leader(self, role: str, otherwise: str) -> Leader:
        return among(self.leaders(), role, otherwise)

    def laptop_prefix(self) -> list[str]:
        """Return the words that make a command run on the lab's laptop, that is in its network."""
        return prefix(self._leader("laptop", NOT_UP), "net")

    def run_on_laptop(
        self, words: Sequence[str], *, env: dict[str, str] | None = None, stdin: str = "",
        timeout: float = 300.0, cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command on the laptop with VMFAB_INVENTORY set; the caller judges the exit code."""
        return subprocess.run(
            [*self.laptop_prefix(), *words], input=stdin, capture_output=True, text=True, timeout=timeout,
            env={**os.environ, **self.laptop_environment(), **(env or {})}, cwd=cwd, check=False,
        )  # fmt: skip

    def laptop_environment(self) -> dict[str, str]:
        """Return the variables that aim vmfab at this lab."""
        return {"VMFAB_INVENTORY": str(self.root / "hosts.ini"), "VMFAB_LAB": str(self.root)}

    def _inside_anchor(self) -> list[str]:
        # The double fork makes the anchor's PID 1 the parent: it reaps, and its end is theirs.
        return [*prefix(self.anchor, "mnt", "net", "ipc", "pid"), "setsid", "--fork"]

    def _spawn(self, role: str, words: Sequence[str]) -> Leader:
        """Start a leader and wait until it is ready; raises LabError with the log's end."""
        log = self.root / "log" / f"{role.replace(':', '-')}.log"
        namespaces.spawn(words, namespaces.marks(self.root, role), log)

        def ready() -> bool:
            leader = self.leaders().get(role)
            return leader is not None and namespaces.started(leader)

        try:
            namespaces.until(ready, 15.0, f"{role} to start")
        except LabError as error:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise LabError(f"{error.message} {' '.join(last)}", f"The log is {log}") from error
        return self._leader(role, f"{role} ended at once.")

    def start_laptop(self) -> Leader:
        """Make the laptop where it is missing: a network of its own, which ./fab --lab finds by its pid."""
        if "laptop" not in self.leaders():
            unshare = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
            words = [*self._inside_anchor(), *unshare, "/usr/bin/tini", "--", "sleep", "infinity"]
            self._spawn("laptop", words)
        laptop = self._leader("laptop", "The practice cluster's laptop did not start.")
        (self.root / "laptop.pid").write_text(f"{laptop.pid}\n", encoding="ascii")
        return laptop

    def down(self) -> None:
        """End everything and remove the lab's files, all but the cache; already down is fine."""
        if not self.root.exists():
            return
        with self._lock():
            namespaces.end(self.root, "anchor")
            for role in self.leaders():
                namespaces.end(self.root, role)
            self._clean()
        (self.root / "lock").unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.root.rmdir()

    def _clean(self) -> None:
        """Remove all files of a lab that has no process any more."""
        if not any((self.root / name).exists() for name in MADE):
            return
        for path in self.root.iterdir():
            if path.name in KEPT:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Let only one at a time bring this lab up or down."""
        with (self.root / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def among(leaders: Mapping[str, Leader], role: str, otherwise: str) -> Leader:
    leader = leaders.get(role)
    if leader is None:
        raise LabRefused(otherwise, "Type: fab lab.up")
    return leader
