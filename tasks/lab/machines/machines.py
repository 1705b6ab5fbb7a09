"""Practice hosts that are whole computers, each in a QEMU of its own, with a storage machine beside them."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tasks.lab import kvm, namespaces, network, packages
from tasks.lab.lab import default_root
from tasks.lab.machines import belongings, build, outfit, qemu, recipe, wires
from tasks.lab.machines.outfit import MOST, STORAGE
from tasks.lab.namespaces import run
from tasks.lab.problem import LabError, LabRefused
from tasks.lab.space import PYTHON, Space

#: Seconds for a machine to boot under software emulation beside others.
BOOT = 600.0
#: MiB of memory.
HOST_MEMORY, STORAGE_MEMORY = 2048, 512


@dataclass(frozen=True)
class Settings:
    """What a set of machines is made with."""

    hosts: list[str] = field(default_factory=list)
    release: str = ""
    kvm: bool = False
    store_mib: int = 8192


@dataclass(frozen=True)
class MachineStatus:
    """What the lab knows about a machine."""

    name: str
    address: str
    storage_address: str
    on: bool
    console: Path


class Machines(Space):
    """Bare hosts and a storage machine. `Machines(root).up()` makes them, `.down()` leaves nothing behind."""

    # what there is

    def settings(self) -> Settings:
        """Read what these machines were made with; where there are none, there are no hosts."""
        try:
            return Settings(**json.loads((self.root / "machines.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Settings()

    @property
    def hosts(self) -> list[str]:
        """Name the hosts, also those that are switched off."""
        return self.settings().hosts

    @property
    def names(self) -> list[str]:
        """Name all machines: the storage machine, then the hosts."""
        hosts = self.hosts
        return [STORAGE, *hosts] if hosts else []

    def numbers(self) -> dict[str, int]:
        """Return the last byte of each machine's addresses."""
        names = self.names
        return {name: number for name, number in outfit.everybody().items() if name in names}

    def number(self, name: str) -> int:
        """Return the last byte of a machine's addresses; raises LabRefused for an unknown name."""
        try:
            return self.numbers()[name]
        except KeyError:
            raise LabRefused(f"There is no practice machine {name}.", "Type: fab lab.status") from None

    def address(self, name: str) -> str:
        """Return a machine's address on the LAN."""
        return wires.lan(self.number(name))

    def storage_address(self, name: str) -> str:
        """Return a machine's address in the storage network."""
        return wires.san(self.number(name))

    def folder(self, name: str) -> Path:
        """Return the folder with a machine's disk, its console's log and its serial line's socket."""
        self.number(name)
        return self.root / "machines" / name

    def console(self, name: str) -> Path:
        """Return the file with all that a machine ever wrote to its console."""
        return self.folder(name) / qemu.CONSOLE

    def serial(self, name: str) -> Path:
        """Return the Unix socket that is the other end of a machine's /dev/ttyS0."""
        return self.folder(name) / qemu.SERIAL

    def is_on(self, name: str) -> bool:
        """Tell whether a machine is switched on."""
        self.number(name)
        return f"machine:{name}" in self.leaders()

    def status(self) -> list[MachineStatus]:
        """Say which machines are on; an empty list means that they are down."""
        leaders = self.leaders()
        if "anchor" not in leaders:
            return []
        return [
            MachineStatus(
                name,
                self.address(name),
                self.storage_address(name),
                f"machine:{name}" in leaders,
                self.console(name),
            )
            for name in self.names
        ]

    # up

    def up(
        self, hosts: int = 2, *, release: str = "", store_mib: int = 8192, say: Callable[[str], object] = str
    ) -> None:
        """Bring up what is not up yet, and wait until ssh answers everywhere; raises LabError.

        `release` is one of recipe.RELEASES, or this computer's own. Hosts that are missing are made, machines
        that are off are switched on, and nothing is removed. A set whose processes are gone (crash, reboot)
        starts from nothing.
        """
        if os.geteuid() != 0:
            raise LabRefused("The practice cluster needs root.", "Type: sudo ./fab lab.up --machines")
        if hosts > MOST:
            raise LabRefused(f"There can be {MOST} practice hosts that are machines, not {hosts}.")
        chosen = recipe.choose(release)
        packages.require(packages.MACHINES)
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if "anchor" not in self.leaders():
                self._clean()
            old = self.settings()
            if old.release not in ("", chosen.name):
                raise LabRefused(f"The machines that are up run {old.release}.", "Type: fab lab.down")
            images = build.provide(self.cache, chosen, say)
            names = [*old.hosts, *(f"vmhost{number}" for number in range(len(old.hosts) + 1, hosts + 1))]
            if not old.hosts:
                say("Looking whether KVM works here")
                old = Settings(release=chosen.name, kvm=kvm.works(self.cache), store_mib=store_mib)
                say(f"Machines run {'with KVM' if old.kvm else 'in software: KVM does not work here'}")
            self._save(replace(old, hosts=names))
            self._prepare(images)
            off = [name for name in self.names if not self.is_on(name)]
            if off:
                say(f"Booting {', '.join(off)}")
            with ThreadPoolExecutor(max_workers=len(self.names)) as pool:
                list(pool.map(self.power_on, off))
                list(pool.map(self.wait_ssh, self.names))

    def _save(self, settings: Settings) -> None:
        part = self.root / "machines.json.part"
        part.write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
        part.rename(self.root / "machines.json")

    def _prepare(self, images: build.Images) -> None:
        """Make keys, networks, the archive's server, and the disks that are missing."""
        for folder in ("machines", "keys", "log"):
            (self.root / folder).mkdir(exist_ok=True)
        # The cache may be renewed while these machines are up.
        base = self.root / "machines/base"
        if not base.exists():
            part = base.with_name("base.part")
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(images.folder, part, copy_function=outfit.link)
            part.rename(base)
        outfit.make_keys(self.root / "keys")
        if "anchor" not in self.leaders():
            flags = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--propagation=private"]
            self._spawn("anchor", ["unshare", *flags, "/usr/bin/tini", "--", "sleep", "infinity"])
        wires.make_bridges(self.anchor)
        network.plug_in(self.anchor, self.start_laptop(), network.LAPTOP, guests_bridge=False)
        if "archive" not in self.leaders():
            serve = [*PYTHON, "-m", "http.server", "80", "--bind", wires.lan(wires.ARCHIVE), "--directory"]
            self._spawn("archive", [*self._apart(), *serve, str(base / "archive")])
        outfit.write_laptop_files(self.root, self.numbers(), kvm=self.settings().kvm)
        for name in self.names:
            outfit.make_machine(self.root, name, build.Images(base), self.settings().store_mib)

    def _apart(self) -> list[str]:
        """Return the words that run a program below the anchor, in a pid namespace that ends with it."""
        return [*self._inside_anchor(), "unshare", "--pid", "--fork", "--kill-child", "/usr/bin/tini", "--"]

    # power

    def power_on(self, name: str) -> None:
        """Switch a machine on, and return at once; see wait_ssh. One that is on stays so."""
        if self.is_on(name):
            return
        number = self.number(name)
        wires.plug_in(self.anchor, number)
        settings = self.settings()
        machine = qemu.Machine(
            name=name,
            cables=[(tap, mac) for tap, _, mac in wires.cables(number)],
            memory_mib=STORAGE_MEMORY if name == STORAGE else HOST_MEMORY,
            cpus=max(1, min(2, (os.cpu_count() or 1) // len(self.names))),
            kvm=settings.kvm,
        )
        script = 'cd "$1" && rm -f "$2" && shift 2 && exec /usr/bin/tini -- "$@"'
        there = ["sh", "-c", script, "sh", str(self.folder(name)), qemu.SERIAL]
        words = [*self._inside_anchor(), "unshare", "--pid", "--fork", "--kill-child", *there]
        # Whoever waits for an emulated machine counts in seconds; what runs beside it can wait.
        first = [] if settings.kvm else ["nice", "-n", "-10"]
        self._spawn(f"machine:{name}", [*words, *first, *qemu.command(machine)])

    def power_off(self, name: str) -> None:
        """Pull a machine's plug: it is dead at once. Its disk stays."""
        self.number(name)
        namespaces.end(self.root, f"machine:{name}")

    def cut_network(self, name: str, *, lan: bool = True, san: bool = False) -> None:
        """Pull a machine's cable of the LAN, or also or only that of the storage network; nobody is told."""
        wires.switch(self.anchor, self.number(name), "down", lan=lan, san=san)

    def mend_network(self, name: str) -> None:
        """Put a machine's cables back."""
        wires.switch(self.anchor, self.number(name), "up", lan=True, san=True)

    # commands

    def ssh(self, name: str) -> list[str]:
        """Return the words that run what follows them as root on a machine; quote them for its shell."""
        self.number(name)
        return [*self.laptop_prefix(), "ssh", "-F", str(self.root / "ssh_config"), name]

    def run(
        self, name: str, *words: str, stdin: str = "", timeout: float = 120.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on a machine, beside vmfab; raises LabError if it fails and `check` holds."""
        return run([*self.ssh(name), shlex.join(words)], stdin=stdin, timeout=timeout, check=check)

    def boot_id(self, name: str) -> str:
        """Return what changes with each boot of a machine."""
        return self.run(name, "cat", "/proc/sys/kernel/random/boot_id").stdout.strip()

    def wait_ssh(self, name: str, seconds: float = BOOT, *, not_boot: str = "") -> None:
        """Wait until a machine answers by ssh, with another boot id than `not_boot`; raises LabError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            asked = [*self.ssh(name), "cat /proc/sys/kernel/random/boot_id"]
            try:
                done = run(asked, timeout=30.0, check=False)
            except LabError:
                continue
            if done.returncode == 0 and done.stdout.strip() != not_boot:
                return
            if not self.is_on(name):
                raise LabError(f"{name} has switched itself off.", f"Its console: {self.console(name)}")
            time.sleep(0.5)
        raise LabError(
            f"{name} does not answer ssh after {seconds:g} s.", f"Its console: {self.console(name)}"
        )

    def shell(self, name: str) -> list[str]:
        """Return the words that open a shell on a machine or, as `laptop`, in the lab's network."""
        if name == "laptop":
            return [*self.laptop_prefix(), os.environ.get("SHELL", "/bin/bash")]
        return self.ssh(name)

    def require_chap(self, user: str, secret: str) -> None:
        """Let the VMs' store ask for a password from now on; without a user, for none."""
        store = belongings.VMSTORAGE
        text = belongings.target(store, user, secret)
        self.run(STORAGE, "sh", "-c", f"cat >{belongings.target_file(store)}", stdin=text)
        self.run(STORAGE, "tgt-admin", "--update", "ALL", "--force")


def here() -> Machines:
    """Return the machines in the lab's folder: $VMFAB_LAB, else .lab in the project."""
    return Machines(default_root())
