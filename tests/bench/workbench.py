"""A practice cluster to measure on: brought up for one part of the benchmark, with stop-watches."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.lab import PROJECT, Lab
from tests.bench.result import BenchError

BASELINE = Path(__file__).parent / "baseline"
FAB = PROJECT / "fab"
#: A drain of VMs that need 5 s each must not take longer than this with any tool.
TIMEOUT = 900.0


@dataclass(frozen=True, slots=True)
class Timed:
    """A command that ended well; `seconds` from its start to its end."""

    seconds: float
    out: str


class Workbench:
    """One practice cluster of the benchmark's own."""

    def __init__(self, root: Path, say: Callable[[str], object]) -> None:
        self.lab = Lab(root, cache=PROJECT / ".lab/cache")
        self.say = say
        self.kvm = False
        #: the most connections that one command of vmfab made to one host
        self.connections = 0
        #: commands of vmfab that were watched for it
        self.commands = 0

    def up(self, hosts: int) -> None:
        """Bring it up, without VMs. Raises LabError."""
        self.say(f"Bringing up a practice cluster of {hosts} hosts")
        self.lab.up(hosts, vms=0)
        self.kvm = self.lab.settings().kvm

    def down(self) -> None:
        """Take it down; nothing of it stays."""
        self.lab.down()

    @property
    def ssh_config(self) -> str:
        return str(self.lab.root / "ssh_config")

    # commands

    def run(self, words: Sequence[str], env: Mapping[str, str] | None = None) -> Timed:
        """Run a command on the lab's laptop. Raises BenchError when it fails."""
        begin = time.monotonic()
        done = self.lab.run_on_laptop(words, env=dict(env or {}), timeout=TIMEOUT)
        took = time.monotonic() - begin
        if done.returncode:
            raise BenchError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return Timed(took, done.stdout)

    def fab(self, *words: str, inventory: Path | None = None) -> Timed:
        """Run vmfab as an operator does, counting its connections to each host."""
        before = self._accepted()
        env = {"VMFAB_INVENTORY": str(inventory)} if inventory else {}
        done = self.run([str(FAB), *words], env)
        # sshd writes its line before it lets the client go on: they are there by now.
        made = {host: count - before[host] for host, count in self._accepted().items()}
        self.connections = max(self.connections, *made.values())
        self.commands += 1
        return done

    def shell(self, script: str, *words: str) -> Timed:
        """Run a script of baseline (a)."""
        return self.run([str(BASELINE / script), *words])

    def _accepted(self) -> dict[str, int]:
        return {host: self._log(host).count("Accepted ") for host in self.lab.hosts}

    def _log(self, host: str) -> str:
        return (self.lab.disk(host) / "var/log/sshd.log").read_text(encoding="utf-8", errors="replace")

    # VMs

    def add_vms(self, names: Sequence[str], host: str, acpi: str = "now") -> dict[str, str]:
        """Make and boot VMs on a host; their UUIDs by name."""
        made = {name: self.lab.add_vm(name, host, acpi=acpi) for name in names}
        self.wait_booted(names)
        return made

    def wait_booted(self, names: Sequence[str]) -> None:
        """Wait until the guests of just started VMs run: from then on they react to a shutdown."""
        before = {name: self.lab.testimony(name).counter for name in names}
        end = time.monotonic() + 180
        while before:
            time.sleep(0.2)
            before = {name: n for name, n in before.items() if self.lab.testimony(name).counter < n + 3}
            if time.monotonic() > end:
                raise BenchError(f"these guests did not boot: {', '.join(before)}")

    def fresh(self) -> None:
        """Remove all VMs and all that tools left on the hosts."""
        self.lab.restore()


def python_version() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def machine() -> str:
    """Say on what this was measured."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    count = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{count} processors ({model}), Python {python_version()}"
