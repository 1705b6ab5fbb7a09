"""What the contract needs around a host: make things so, and look at them from outside."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.model import Vm

HOST, OTHER = "vmhost1", "vmhost2"


class Bench(Protocol):
    """A cluster with the hosts HOST and OTHER, one store, and no VMs."""

    def open(self, host: str = HOST, patience: float = 1.0) -> HostOps:
        """Open a link of its own. Raises HostSilent."""
        ...

    def add_vm(self, name: str, *, running: bool = False, acpi: str = "now", booted: bool = False) -> Vm:
        """Define a VM with an image of its own on HOST; `acpi` is "now", "never" or seconds."""
        ...

    def xml(self, name: str, uuid: str, image_of: str) -> str:
        """A definition that fits HOST."""
        ...

    def image_exists(self, name: str) -> bool: ...

    def add_image(self, file: str) -> None:
        """Put a file with this name beside the images of the VMs, with the content of an empty image."""
        ...

    def suspend(self, vm: Vm) -> None: ...

    def managed_save(self, vm: Vm) -> None: ...

    def running_vms(self) -> str | None:
        """The text of /root/running_vms on HOST."""
        ...

    def set_running_vms(self, text: str) -> None: ...

    def fail_next_start(self) -> None: ...

    def die_after_start(self, seconds: float) -> None: ...

    def frozen_libvirt(self) -> AbstractContextManager[None]: ...

    def unmounted_store(self) -> AbstractContextManager[None]: ...

    def read_only_store(self) -> AbstractContextManager[None]: ...

    def full_store(self) -> AbstractContextManager[None]: ...

    def cut_network(self) -> AbstractContextManager[None]: ...

    def wait(self, seconds: float) -> None: ...
