"""The benchmark's parts, and the clusters that they are measured on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.bench import drains, listing, moves, planner, statuses
from tests.bench.ansible import Ansible
from tests.bench.result import Row
from tests.bench.workbench import Workbench, machine

PARTS = ("list", "planner", "move", "drain", "status", "delay")
NEED_ROOT = frozenset({"move", "drain", "status", "delay"})
FEW_HOSTS, MANY_HOSTS = 4, 16


class Suite:
    """One run: parts are measured one after another; parts that want the same cluster share it."""

    def __init__(self, root: Path, *, quick: bool, say: Callable[[str], object]) -> None:
        self._root = root
        self._quick = quick
        self._say = say
        self._bench: Workbench | None = None
        self._used: list[Workbench] = []
        self._ansible: Ansible | None = None
        self._load = os.getloadavg()[0]

    def install_ansible(self) -> None:
        """Install baseline (b), for this run only. Raises BenchError."""
        self._say("Installing ansible-core into a throw-away environment (for this benchmark only)")
        ansible = Ansible(self._root / "ansible")
        ansible.install()
        self._ansible = ansible

    def measure(self, part: str) -> list[Row]:
        """Measure one of PARTS. Raises BenchError or LabError."""
        if part == "list":
            self._say("fab --list")
            return listing.measure(self._root / "empty", self._times(15, 5))
        if part == "planner":
            self._say("Planner")
            return planner.measure(self._times(5, 2))
        if part == "move":
            return moves.measure(self._cluster(FEW_HOSTS), self._times(7, 2))
        if part == "drain":
            return drains.measure(self._cluster(FEW_HOSTS), self._times(3, 1), self._ansible)
        if part == "status":
            return statuses.against_shell(self._cluster(FEW_HOSTS), self._times(9, 3))
        if part == "delay":
            return statuses.with_delay(self._cluster(MANY_HOSTS), self._times(9, 3))
        raise ValueError(part)

    def connections(self) -> list[Row]:
        """How often vmfab connected in all of this run; nothing when it never had to."""
        return [statuses.connections(self._used)] if self._used else []

    def notes(self) -> list[str]:
        """On what, and against what, this was measured."""
        notes = [
            f"Medians (lowest-highest, number of repetitions) of one run on one machine: {machine()}, "
            f"load {self._load:.1f} before it began."
        ]
        if self._used:
            how = "KVM" if self._used[0].kvm else "software emulation: no KVM here"
            notes.append(
                f"Hosts are cells of the practice cluster on this machine; guests run with {how}. "
                "(a) is tests/bench/baseline/move.sh and status.sh."
            )
        if self._ansible:
            notes.append(f"(b) is tests/bench/baseline/drain.yml, run by {self._ansible.version}.")
        return notes

    def close(self) -> None:
        """Take the cluster down."""
        if self._bench:
            self._bench.down()
            self._bench = None

    def _cluster(self, hosts: int) -> Workbench:
        if self._bench is None or len(self._bench.lab.hosts) != hosts:
            self.close()
            self._bench = Workbench(self._root / f"lab-{hosts}", self._say)
            self._bench.up(hosts)
            self._used.append(self._bench)
        return self._bench

    def _times(self, usual: int, quick: int) -> int:
        return quick if self._quick else usual
