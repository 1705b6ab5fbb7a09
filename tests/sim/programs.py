"""The host's own files and the few programs that vmfab runs on a host, simulated."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.setup import fstab, serial
from tests.sim.apt import Apt
from tests.sim.errors import AgentError
from tests.sim.store import MOUNT

#: What is on a host from the beginning, unless a test gives it another.
GIVEN = {fstab.PATH: (f"LABEL=vmstorage {MOUNT} ocfs2 _netdev 0 0\n", 0o644)}


@dataclass(slots=True)
class OwnDisk:
    """A host's own disk: text and mode of each file, root's crontab, and how its programs behave."""

    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: None when root has no crontab
    crontab: str | None = None
    missing: set[str] = field(default_factory=set)
    #: program -> what it says when it does not like a file
    complaints: dict[str, str] = field(default_factory=dict)
    apt: Apt = field(default_factory=Apt)
    #: not booted with systemd
    container: bool = False

    def read(self, path: str) -> dict[str, Any]:
        system = self.apt.read(path)
        found = self.files.get(path, GIVEN.get(path)) if system is None else (system, 0o644)
        if found is None:
            return {"text": None, "mode": None, "sha256": None}
        return {"text": found[0], "mode": found[1], "sha256": _digest(found[0])}

    def write(self, path: str, text: str, mode: int, expect: str | None) -> dict[str, Any]:
        """Replace a file, keeping the old one aside. Raises AgentError when it is not the one expected."""
        kept = self._keep(path, expect)
        self.files[path] = (text, mode)
        return {"kept": kept}

    def remove(self, path: str, expect: str) -> dict[str, Any]:
        """Remove a file, keeping it aside. Raises AgentError as `write` does."""
        if path not in self.files:
            return {"kept": None}
        kept = self._keep(path, expect)
        del self.files[path]
        return {"kept": kept}

    def _keep(self, path: str, expect: str | None) -> str | None:
        found = self.files.get(path)
        if (None if found is None else _digest(found[0])) != expect:
            raise AgentError("file", f"{path} was changed by somebody else meanwhile")
        if found is None:
            return None
        kept = f"/var/backups/vmfab{path}.{len(self.files)}"
        self.files[kept] = (found[0], 0o600)
        return kept

    def run(self, argv: Sequence[str], stdin: str) -> dict[str, Any]:
        """Run a program. Raises AgentError "bad-request" for one that is not installed."""
        programs: Mapping[str, Callable[[], tuple[int, str, str]]] = {
            "crontab": lambda: self._crontab(argv[1], stdin),
            "sh": lambda: self._check("sh"),
            "logrotate": lambda: self._check("logrotate"),
            "test": lambda: (1 if self.container else 0, "", ""),
            "systemd-escape": lambda: (0, f"{argv[-1].strip('/').replace('/', '-')}.mount\n", ""),
            "minicom": lambda: (0, "minicom version 2.8\n", ""),
        }
        installed = self._find(argv) or self.apt.run(argv)
        if installed is not None:
            programs = {argv[0]: lambda: installed}
        if argv[0] not in programs or argv[0] in {*self.missing, *self.apt.lacking}:
            raise AgentError("bad-request", f"{argv[0]}: No such file or directory")
        rc, out, err = programs[argv[0]]()
        return {"rc": rc, "out": out, "err": err}

    def _find(self, argv: Sequence[str]) -> tuple[int, str, str] | None:
        if list(argv[:2]) != ["find", serial.FOLDER]:
            return None
        names = [path for path in self.files if path.startswith(f"{serial.FOLDER}/minirc.")]
        return 0, "".join(f"{name}\n" for name in names), ""

    def _crontab(self, option: str, stdin: str) -> tuple[int, str, str]:
        if "crontab" in self.complaints:
            return 1, "", self.complaints["crontab"]
        if option == "-":
            self.crontab = stdin
            return 0, "", ""
        return (1, "", "no crontab for root\n") if self.crontab is None else (0, self.crontab, "")

    def _check(self, program: str) -> tuple[int, str, str]:
        complaint = self.complaints.get(program, "")
        return (1 if complaint else 0), "", complaint


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
