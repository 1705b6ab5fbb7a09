"""The hook on simulated hosts keeps the contract; tests/lab asks the same of the real one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.guard_contract import GuardContract
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk, domain_xml
from tests.sim.errors import VirshError
from tests.sim.store import MOUNT


class SimGuards:
    """See `tests.contract.guard_contract.GuardBench`."""

    def __init__(self, sim: SimCluster) -> None:
        self._sim = sim
        sim.guard()
        for host in sim.hosts.values():
            host.restarts_vms = False

    def _define(self, host: str, vm: str, image: str) -> None:
        self._sim.store.image(self._sim.store.resolve(image))
        disks = [Disk(f"{MOUNT}/{image}")]
        self._sim[host].define(domain_xml(vm, self._sim._uuid(vm), disks=disks))

    def start(self, host: str, vm: str, image: str) -> str:
        self._define(host, vm, image)
        try:
            self._sim[host].start(vm)
        except VirshError as error:
            return error.message
        return ""

    def stop(self, host: str, vm: str, image: str) -> None:
        self._sim[host].destroy(vm)

    def power_cycle(self, host: str) -> None:
        self._sim[host].power_off()
        self._sim[host].power_on()

    def link(self, image: str, name: str) -> None:
        self._sim.store.links[name] = image

    def owner(self, image: str) -> str:
        files = self._sim.store.files
        records = [json.loads(text) for path, text in files.items() if path.startswith("owners/")]
        return next((r["host"] for r in records if r["path"] == f"{MOUNT}/{image}"), "")

    def listed(self, host: str) -> list[str]:
        return self._sim[host].names_to_restart()

    def refusals(self) -> list[str]:
        return self._sim.store.files.get("guard.log", "").splitlines()

    @contextmanager
    def unmounted(self, host: str) -> Iterator[None]:
        self._sim[host].view.mounted = False
        yield
        self._sim[host].view.mounted = True

    @contextmanager
    def read_only(self, host: str) -> Iterator[None]:
        self._sim[host].view.read_only = True
        yield
        self._sim[host].view.read_only = False

    @contextmanager
    def full(self) -> Iterator[None]:
        self._sim.store.full = True
        yield
        self._sim.store.full = False

    @contextmanager
    def lock_held(self) -> Iterator[None]:
        self._sim.store.locks["locks/owners"] = self
        yield
        del self._sim.store.locks["locks/owners"]


@pytest.fixture
def guards() -> Iterator[SimGuards]:
    with SimCluster(("vmhost1", "vmhost2")) as sim:
        yield SimGuards(sim)


class TestSimulatedGuard(GuardContract):
    """Every test of the contract."""
