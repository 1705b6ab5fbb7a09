"""The contract's bench made of the practice cluster: real hosts, reached over ssh as the operator's are."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.link import Link
from tasks.cluster.inventory import inventory
from tasks.cluster.model import Host, Vm
from tasks.cluster.remote import links as remote
from tasks.lab import image
from tasks.lab.lab import Lab
from tests.contract.bench import HOST

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class LabBench:
    """See `tests.contract.bench.Bench`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._inventory = inventory.load(str(lab.root / "hosts.ini"))
        self._connect = remote.connector(self._inventory)
        self._opened: list[HostOps] = []

    def close(self) -> None:
        """Close every link that a test opened."""
        for ops in self._opened:
            ops.close()

    def open(self, host: str = HOST, patience: float = 1.0) -> HostOps:
        link = self._in_the_network(self._inventory.hosts[host])
        ops = HostOps(link, self._inventory.mount, patience=patience)
        self._opened.append(ops)
        return ops

    def _in_the_network(self, host: Host) -> Link:
        """Open a link from the lab's network: a thread goes there, and the threads that it starts with it."""
        links: list[Link] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                with Path(self._lab.leaders()["laptop"].file("net")).open("rb") as namespace:
                    if _libc.setns(namespace.fileno(), CLONE_NEWNET):
                        raise OSError(ctypes.get_errno(), "setns")
                links.append(self._connect(host, 10.0))
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return links[0]

    def add_vm(self, name: str, *, running: bool = False, acpi: str = "now", booted: bool = False) -> Vm:
        return Vm(self._lab.add_vm(name, HOST, acpi=acpi, start=running, booted=booted), name)

    def xml(self, name: str, uuid: str, image_of: str) -> str:
        return self._lab.xml(name, uuid=uuid, image_of=image_of)

    def image_exists(self, name: str) -> bool:
        return self._lab.image(name).exists()

    def add_image(self, file: str) -> None:
        image.create(self._lab.image("x").with_name(file))

    def suspend(self, vm: Vm) -> None:
        self._lab.virsh(HOST, "suspend", vm.uuid)

    def managed_save(self, vm: Vm) -> None:
        self._lab.virsh(HOST, "managedsave", vm.uuid)

    @property
    def _list(self) -> Path:
        return self._lab.disk(HOST) / "root/running_vms"

    def running_vms(self) -> str | None:
        return os.fsdecode(self._list.read_bytes()) if self._list.exists() else None

    def set_running_vms(self, text: str) -> None:
        self._list.write_bytes(os.fsencode(text))

    def fail_next_start(self) -> None:
        self._lab.fail_next_start(HOST)

    def die_after_start(self, seconds: float) -> None:
        self._lab.die_after_start(HOST, seconds)

    @contextmanager
    def frozen_libvirt(self) -> Iterator[None]:
        self._lab.freeze(HOST, "libvirtd")
        yield
        self._lab.thaw(HOST, "libvirtd")

    @contextmanager
    def unmounted_store(self) -> Iterator[None]:
        self._lab.unmount_store(HOST)
        yield
        self._lab.mount_store(HOST)

    @contextmanager
    def read_only_store(self) -> Iterator[None]:
        self._lab.read_only_store(HOST)
        yield
        self._lab.mount_store(HOST)

    @contextmanager
    def full_store(self) -> Iterator[None]:
        self._lab.fill_store()
        yield
        self._lab.unfill_store()

    @contextmanager
    def cut_network(self) -> Iterator[None]:
        self._lab.cut_network(HOST)
        yield
        self._lab.mend_network(HOST)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)
