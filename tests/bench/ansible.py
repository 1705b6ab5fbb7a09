"""Baseline (b): Ansible, in a throw-away environment of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.result import BenchError
from tests.bench.workbench import BASELINE, Timed, Workbench


class Ansible:
    """ansible-core from the Python package index, below `root`; used by the benchmark and nothing else."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bin = root / "venv/bin"
        self.version = ""

    def install(self) -> None:
        """Install it. Raises BenchError."""
        uv = shutil.which("uv")
        python = self._bin / "python"
        make, get = [sys.executable, "-m", "venv"], [str(python), "-m", "pip", "-q", "install"]
        if uv:
            make, get = [uv, "-q", "venv"], [uv, "-q", "pip", "install", "--python", str(python)]
        for words in ([*make, str(self._root / "venv")], [*get, "ansible-core"]):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BenchError(f"ansible-core could not be installed:\n{done.stdout}{done.stderr}")
        self._config.touch()
        ask = [f"{self._bin}/ansible", "--version"]
        told = subprocess.run(ask, capture_output=True, text=True, check=True, env=self._env(""))
        self.version = told.stdout.splitlines()[0]

    def drain(self, bench: Workbench, source: str, targets: Sequence[str]) -> Timed:
        """Drain a host with the playbook, over connections that are shared while it runs."""
        given = json.dumps({"source": source, "targets": list(targets)})
        inventory = str(bench.lab.root / "hosts.ini")
        playbook = str(BASELINE / "drain.yml")
        words = [str(self._bin / "ansible-playbook"), "-i", inventory, "-e", given, playbook]
        try:
            return bench.run(words, self._env(bench.ssh_config))
        finally:
            self._hang_up()

    def _env(self, ssh_config: str) -> dict[str, str]:
        """Its settings: only ours, and the fast ones (shared connections, no files copied per task)."""
        return {
            "PATH": f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(self._config),
            "ANSIBLE_HOME": str(self._root / "home"),
            "ANSIBLE_SSH_ARGS": f"-F {ssh_config} -o ControlMaster=auto -o ControlPersist=60s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_PIPELINING": "True",
        }

    @property
    def _config(self) -> Path:
        """An empty file, so that no other settings are found."""
        return self._root / "ansible.cfg"

    @property
    def _sockets(self) -> Path:
        return self._root / "s"

    def _hang_up(self) -> None:
        """End the shared connections: each run is to begin without any."""
        for socket in self._sockets.glob("*"):
            words = ["ssh", "-F", "/dev/null", "-o", f"ControlPath={socket}", "-O", "exit", "host"]
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
