"""The simulated cluster: hosts, one store, guests, laptops, time; the same seed gives the same run."""

from __future__ import annotations

import random
import uuid as uuids
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from types import TracebackType
from typing import TypeVar

from tasks.cluster.asking.session import Session
from tasks.cluster.model import Host, Inventory, Vm
from tasks.cluster.setup import afterboot, guard
from tests.sim import hooks
from tests.sim.beside import Beside
from tests.sim.clock import SimClock
from tests.sim.domains import Disk, domain_xml
from tests.sim.faults import Call, Faults
from tests.sim.guests import Behaviour, Guest
from tests.sim.host import SimHost
from tests.sim.law import Law
from tests.sim.link import Laptop
from tests.sim.scheduler import Scheduler, Waiter
from tests.sim.store import MOUNT, SimStore
from tests.sim.threads import installed

T = TypeVar("T")


class SimCluster:
    """Open it as a context manager: inside, every thread runs on simulated time.

    Leaving it without another error checks the law.
    """

    def __init__(
        self,
        names: Sequence[str] = ("vmhost1", "vmhost2", "vmhost3", "vmhost4"),
        *,
        memory_gib: int | Mapping[str, int] = 64,
        cpus: int = 16,
        seed: int = 0,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.scheduler = Scheduler()
        self.clock = SimClock(self.scheduler)
        self.history: list[str] = []
        self.calls: list[Call] = []
        self.faults = Faults()
        self.law = Law(self)
        self.behaviours: dict[str, Behaviour] = {}
        self.store = SimStore(self._uuid("store"))
        #: seconds until the survivors free the flocks of a host that lost its power (measured on o2cb: 75)
        self.eviction = 75.0
        #: seconds of the way to a host, one way
        self.delay = 0.002
        self.hosts = {
            name: SimHost(self, name, memory_gib if isinstance(memory_gib, int) else memory_gib[name], cpus)
            for name in names
        }
        self.laptop = Laptop(self, "laptop")
        self._laptops = [self.laptop]
        self._waiting: dict[str, list[Waiter]] = {name: [] for name in names}
        self._stack = ExitStack()

    def __enter__(self) -> SimCluster:
        self._stack.enter_context(installed(self.scheduler))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        if error is None:
            self.assert_law()

    @cached_property
    def folder(self) -> Path:
        """A folder of this machine for what has to be a real file; gone at the end."""
        return Path(self._stack.enter_context(TemporaryDirectory(prefix="vmfab-sim-")))

    def __getitem__(self, host: str) -> SimHost:
        return self.hosts[host]

    # -- making --------------------------------------------------------------------------------------

    def add_vm(
        self,
        name: str,
        on: str,
        *,
        running: bool = True,
        memory_mib: int = 1024,
        vcpus: int = 1,
        behaviour: Behaviour | None = None,
        disks: Sequence[Disk] | None = None,
        also_defined_on: Sequence[str] = (),
        machine: str = "pc-q35-6.2",
        bridge: str = "br0",
        extra: str = "",
        uuid: str = "",
    ) -> Vm:
        """Define a VM on a host (default disk: an image of its own on the store) and start it.

        Images that its disks name below /vmstorage are made.
        """
        vm = Vm(uuid or self._uuid(name), name)
        if behaviour is not None:
            self.behaviours[name] = behaviour
        if disks is None:
            disks = [Disk(f"{MOUNT}/{vm.uuid[:8]}.qcow2")]
        for disk in disks:
            if disk.path.startswith(MOUNT + "/"):
                self.store.image(self.store.resolve(disk.path[len(MOUNT) + 1 :]))
        xml = domain_xml(
            name,
            vm.uuid,
            memory_mib=memory_mib,
            vcpus=vcpus,
            disks=disks,
            bridge=bridge,
            machine=machine,
            password="secret",
            extra=extra,
        )
        for host in (on, *also_defined_on):
            self.hosts[host].define(xml)
        if running:
            machine_host = self.hosts[on]
            machine_host.start(vm.uuid)
            machine_host.running_vms = (machine_host.running_vms or "") + f"{name}\n"
        return vm

    def guard(self, *names: str) -> None:
        """Put the guard's hook on hosts (all without a name), as host.guard does before a VM runs."""
        for name in names or self.hosts:
            host = self.hosts[name]
            host.disk.files[hooks.FILE] = (guard.hook_text(self.inventory(), name), 0o755)
            host.hook.look()

    def autostart(self, *names: str) -> None:
        """Let hosts (all without a name) run the restart script at boot, as host.autostart leaves them."""
        for name in names or self.hosts:
            disk = self.hosts[name].disk
            disk.files[afterboot.SCRIPT] = (afterboot.script(MOUNT, name), 0o755)
            disk.crontab = f"@reboot {afterboot.SCRIPT}\n"

    def behaviour(self, name: str) -> Behaviour:
        """How this VM's guest acts; change it at any time."""
        return self.behaviours.setdefault(name, Behaviour())

    def inventory(self, **changes: object) -> Inventory:
        """The inventory of these hosts; `changes` are fields of Inventory."""
        hosts = {
            name: Host(name=name, address=f"192.0.2.{number}") for number, name in enumerate(self.hosts, 1)
        }
        said = {"path": "hosts.ini", "hosts": hosts, "stores": {}, **changes}
        return Inventory(**said)  # type: ignore[arg-type]

    def another_laptop(self, name: str) -> Laptop:
        """A second operator, or the machine from which a killed one's work goes on."""
        laptop = Laptop(self, name)
        self._laptops.append(laptop)
        return laptop

    def session(self, laptop: Laptop | None = None, **changes: object) -> Session:
        """A session of the domain code with all hosts, from a laptop."""
        return Session(self.inventory(**changes), (laptop or self.laptop).connector, self.clock)

    # -- looking -------------------------------------------------------------------------------------

    def where(self, vm: Vm | str) -> tuple[str, ...]:
        """The hosts with a qemu process of this VM, in truth."""
        name = vm if isinstance(vm, str) else vm.name
        return tuple(h.name for h in self.hosts.values() for g in h.guests if g.name == name)

    def guest(self, vm: Vm | str) -> Guest | None:
        """The running guest of this VM, wherever it is."""
        name = vm if isinstance(vm, str) else vm.name
        return next((g for h in self.hosts.values() for g in h.guests if g.name == name), None)

    def assert_law(self) -> None:
        """Raise LawBroken, with the history, if two ever ran or wrote at the same time."""
        self.law.check()

    def forgive(self) -> None:
        """Forget violations that a test planted; the images' counters are not asked about them any more."""
        self.law.forgive()

    def note(self, host: SimHost, what: str) -> None:
        """Add a line to the history."""
        self.history.append(f"{self.stamp()} {host.name}: {what}")

    def stamp(self) -> str:
        return f"{self.scheduler.time:9.3f}"

    # -- time ----------------------------------------------------------------------------------------

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        """Let something happen after so many simulated seconds; it must not wait itself."""
        self.scheduler.after(seconds, do)

    def spawn(self, work: Callable[[], object]) -> Thread:
        """Run something beside, in a thread that belongs to no laptop."""
        owner, self.scheduler.current.owner = self.scheduler.current.owner, None
        thread = Thread(target=work, name="beside", daemon=True)
        thread.start()
        self.scheduler.current.owner = owner
        return thread

    def beside(self, work: Callable[[], T], laptop: Laptop) -> Beside[T]:
        """Run code on a laptop, at the side."""
        return Beside(self.scheduler, work, laptop)

    def wait(self, seconds: float) -> None:
        """Let simulated time go by."""
        self.scheduler.sleep(seconds)

    def latency(self) -> float:
        """The way to a host, with some jitter, so that runs of different seeds interleave differently."""
        return self.delay * (0.5 + self.random.random())

    def wait_for_change(self, host: SimHost, seconds: float) -> None:
        """Wait until something changes on a host, at most so long."""
        waiter = self.scheduler.waiter()
        self._waiting[host.name].append(waiter)
        self.scheduler.wait(waiter, max(seconds, 0.0))

    def changed(self, host: SimHost) -> None:
        """Wake those who wait for a change on a host."""
        waiting, self._waiting[host.name] = self._waiting[host.name], []
        for waiter in waiting:
            waiter.fire("changed")

    def links_broken(self, host: SimHost, *, grace: float) -> None:
        """Break every link to a host; its agents' locks go `grace` seconds later."""
        for laptop in self._laptops:
            for link in laptop.links:
                if link.host == host.name:
                    link.cut(grace=grace)
        self.changed(host)

    def _uuid(self, name: str) -> str:
        return str(uuids.uuid5(uuids.UUID(int=self.seed), name))
