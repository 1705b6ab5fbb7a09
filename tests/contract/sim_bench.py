"""The bench made of a simulated cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.model import Vm
from tests.contract.bench import HOST
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk, domain_xml
from tests.sim.guests import Behaviour
from tests.sim.store import MOUNT


class SimBench:
    """See `tests.contract.bench.Bench`."""

    def __init__(self, cluster: SimCluster) -> None:
        self._cluster = cluster
        self._host = cluster[HOST]
        self._dying: float | None = None

    def open(self, host: str = HOST, patience: float = 1.0) -> HostOps:
        inventory = self._cluster.inventory()
        link = self._cluster.laptop.connector(inventory.hosts[host], 5.0)
        return HostOps(link, inventory.mount, patience=patience)

    def add_vm(self, name: str, *, running: bool = False, acpi: str = "now", booted: bool = False) -> Vm:
        behaviour = Behaviour(
            off_after={"now": 0.5, "never": None}.get(acpi) if acpi in _WORDS else float(acpi)
        )
        if self._dying is not None:
            behaviour.crash_after = {"": self._dying}
        vm = self._cluster.add_vm(name, HOST, running=running, behaviour=behaviour, disks=[self._disk(name)])
        self._host.running_vms = None
        return vm

    def _disk(self, name: str) -> Disk:
        return Disk(f"{MOUNT}/images/{name}.img")

    def xml(self, name: str, uuid: str, image_of: str) -> str:
        return domain_xml(name, uuid, disks=[self._disk(image_of)])

    def image_exists(self, name: str) -> bool:
        return f"images/{name}.img" in self._cluster.store.images

    def add_image(self, file: str) -> None:
        self._cluster.store.image(f"images/{file}")

    def suspend(self, vm: Vm) -> None:
        self._host.suspend(vm.uuid)

    def managed_save(self, vm: Vm) -> None:
        self._host.managed_save(vm.uuid)

    def running_vms(self) -> str | None:
        return self._host.running_vms

    def set_running_vms(self, text: str) -> None:
        self._host.running_vms = text

    def fail_next_start(self) -> None:
        for name in self._cluster.behaviours:
            self._cluster.behaviour(name).failing_starts[HOST] = 1

    def die_after_start(self, seconds: float) -> None:
        for name in self._cluster.behaviours:
            self._cluster.behaviour(name).crash_after[HOST] = seconds

    @contextmanager
    def frozen_libvirt(self) -> Iterator[None]:
        self._host.freeze_libvirt()
        yield
        self._host.thaw_libvirt()

    @contextmanager
    def unmounted_store(self) -> Iterator[None]:
        self._host.view.mounted = False
        yield
        self._host.view.mounted = True

    @contextmanager
    def read_only_store(self) -> Iterator[None]:
        self._host.view.read_only = True
        yield
        self._host.view.read_only = False

    @contextmanager
    def full_store(self) -> Iterator[None]:
        self._cluster.store.full = True
        yield
        self._cluster.store.full = False

    @contextmanager
    def cut_network(self) -> Iterator[None]:
        self._host.cut()
        yield
        self._host.mend()

    def wait(self, seconds: float) -> None:
        self._cluster.wait(seconds)


_WORDS = ("now", "never")
