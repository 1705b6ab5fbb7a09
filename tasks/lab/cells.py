"""The practice hosts themselves: made, switched on and off, entered."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks.lab import hostfiles, namespaces, network
from tasks.lab.namespaces import Leader, prefix, run
from tasks.lab.problem import LabRefused
from tasks.lab.space import FILES, HERE, NOT_UP, PYTHON, Space, among


@dataclass(frozen=True)
class Settings:
    """What a lab is made with."""

    hosts: list[str] = field(default_factory=list)
    store_mib: int = 2048
    kvm: bool = False
    samples: list[str] = field(default_factory=list)  # the VMs that are made already


class Cells(Space):
    """A lab whose hosts are namespaces."""

    # what there is

    @property
    def hosts(self) -> list[str]:
        """Name the hosts, also those that are switched off."""
        return self.settings().hosts

    def settings(self) -> Settings:
        """Read what this lab was made with; a lab that does not exist has no hosts."""
        try:
            return Settings(**json.loads((self.root / "lab.json").read_text(encoding="utf-8")))
        except FileNotFoundError:
            return Settings()

    def save(self, settings: Settings) -> None:
        """Write what this lab is made with."""
        part = self.root / "lab.json.part"
        part.write_text(json.dumps(asdict(settings), indent=1) + "\n", encoding="utf-8")
        part.rename(self.root / "lab.json")

    def host(self, name: str) -> Leader:
        """Return a host's PID 1; raises LabError when it is off or unknown."""
        self.number(name)
        return self._leader(f"host:{name}", f"Practice host {name} is switched off.")

    def is_on(self, name: str) -> bool:
        """Tell whether a host is switched on."""
        self.number(name)
        return f"host:{name}" in self.leaders()

    def number(self, name: str) -> int:
        """Return the last byte of a host's address; raises LabError for an unknown name."""
        try:
            return network.FIRST_HOST + self.hosts.index(name)
        except ValueError:
            raise LabRefused(f"The practice cluster has no host {name}.", "Type: fab lab.status") from None

    def address(self, name: str) -> str:
        """Return a host's address."""
        return network.address(self.number(name))

    def addresses(self) -> dict[str, str]:
        """Return all hosts' addresses."""
        return {name: network.address(network.FIRST_HOST + at) for at, name in enumerate(self.hosts)}

    def disk(self, name: str) -> Path:
        """Return the folder that is a host's own disk (all but /vmstorage, /usr and what is in memory)."""
        return self.root / "cells" / name / "disk"

    @property
    def store(self) -> Path:
        """Return the path at which this machine's root sees the running lab's /vmstorage."""
        return self.store_through(self.leaders())

    def store_through(self, leaders: Mapping[str, Leader]) -> Path:
        """Return the path of `store`, given the leaders: to find them takes a look at every process."""
        anchor = among(leaders, "anchor", NOT_UP)
        return Path(f"/proc/{anchor.pid}/root{self.root}/store")

    # commands

    def run_on(
        self, host: str, words: Sequence[str], *, stdin: str = "", timeout: float = 60.0, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a host, beside ssh; raises LabError when it fails and `check` holds."""
        inside = [*prefix(self.host(host), *namespaces.ALL), *words]
        return run(inside, stdin=stdin, timeout=timeout, check=check)

    def virsh(self, host: str, *words: str, timeout: float = 60.0, check: bool = True) -> str:
        """Run virsh on a host, beside ssh; returns what it printed."""
        line = ["env", "LC_ALL=C", "virsh", "-q", "-c", "qemu:///system", *words]
        return self.run_on(host, line, timeout=timeout, check=check).stdout

    def shell(self, name: str) -> list[str]:
        """Return the words that open a shell on a host or, as `laptop`, in the lab's network."""
        if name == "laptop":
            return [*self.laptop_prefix(), os.environ.get("SHELL", "/bin/bash")]
        clean = [f"{key}={value}" for key, value in namespaces.CLEAN_ENV.items()]
        term = f"TERM={os.environ.get('TERM', 'dumb')}"
        return [*prefix(self.host(name), *namespaces.ALL), "env", "-i", *clean, term, "/bin/bash", "-l"]

    # making and unmaking

    def start_anchor(self, store_mib: int) -> None:
        """Make the anchor with the store and the bridge, and the laptop, where they are missing."""
        if "anchor" not in self.leaders():
            (self.root / "store").mkdir(exist_ok=True)
            script = (
                f'mount -t tmpfs -o size={store_mib}m,mode=755 vmstorage "$1" && '
                "exec /usr/bin/tini -- sleep infinity"
            )
            flags = ["--mount", "--net", "--pid", "--ipc", "--fork", "--kill-child", "--propagation=private"]
            words = ["unshare", *flags, "sh", "-c", script, "sh", str(self.root / "store")]
            self._spawn("anchor", words)
        network.make_bridge(self.anchor)
        (self.store / "images").mkdir(exist_ok=True)
        (self.store / "boot").mkdir(exist_ok=True)
        network.plug_in(self.anchor, self.start_laptop(), network.LAPTOP, guests_bridge=False)

    def make_disk(self, name: str, keys: Path, known_hosts: str) -> None:
        """Write a new host's disk; an existing one stays as it is."""
        disk = self.disk(name)
        if disk.exists():
            return
        for folder in ("faults", "root"):
            (disk.parent / folder).mkdir(parents=True, exist_ok=True)
        part = disk.with_name("disk.part")
        shutil.rmtree(part, ignore_errors=True)
        hostfiles.write(part, name, self.addresses(), keys, known_hosts)
        part.rename(disk)

    # power

    def power_on(self, name: str, *, store: bool = True, wait: bool = True) -> None:
        """Switch a host on: a new boot id, an empty /run and /tmp, its daemons, its @reboot jobs.

        With `wait` it returns when sshd and libvirtd answer. `store=False` boots it without /vmstorage.
        """
        if not self.is_on(name):
            cell = self.disk(name).parent
            spec = {
                "name": name,
                "disk": str(self.disk(name)),
                "root": str(cell / "root"),
                "store": str(self.root / "store") if store else "",
                "faults": str(cell / "faults"),
                "starts": str(self.root / "starts"),
                "files": str(FILES),
                "kvm": "yes" if self.settings().kvm else "no",
            }
            path = cell / "spec.json"
            path.write_text(json.dumps(spec, indent=1) + "\n", encoding="utf-8")
            # The host's clock of seconds since its boot starts now.
            uptime = Path("/proc/uptime").read_text(encoding="ascii").partition(".")[0]
            unshare = ["unshare", "--mount", "--pid", "--uts", "--ipc", "--net", "--fork", "--kill-child"]
            clock = ["--time", f"--boottime=-{uptime}"]
            words = [*self._inside_anchor(), *unshare, *clock, *PYTHON, str(HERE / "cellboot.py"), str(path)]
            self._spawn(f"host:{name}", words)
        network.plug_in(self.anchor, self.host(name), self.number(name), guests_bridge=True)
        if wait:
            self.wait_booted(name)
            self.wait_ready(name)

    def wait_booted(self, name: str, seconds: float = 60.0) -> None:
        """Wait until a host has tried to start all its daemons; raises LabError."""
        booted = Path(f"/proc/{self.host(name).pid}/root/run/booted")
        namespaces.until(booted.exists, seconds, f"{name} to boot")

    def wait_ready(self, name: str, seconds: float = 60.0) -> None:
        """Wait until a host's sshd listens and its libvirtd answers; raises LabError."""
        self.wait_daemon(name, "sshd", seconds)
        self.wait_daemon(name, "libvirtd", seconds)

    def wait_daemon(self, name: str, daemon: str, seconds: float = 60.0) -> None:
        """Wait until a host's "sshd" listens or its "libvirtd" answers; raises LabError."""
        leader = self.host(name)
        if daemon == "sshd":
            table = Path(f"/proc/{leader.pid}/net/tcp")
            listening = ":0016 00000000:0000 0A"
            namespaces.until(lambda: listening in table.read_text(), seconds, f"sshd on {name}")
        else:
            socket = Path(f"/proc/{leader.pid}/root/run/libvirt/libvirt-sock")
            namespaces.until(socket.exists, seconds, f"libvirtd on {name}")
            self.virsh(name, "list", "--name", timeout=seconds)

    def power_off(self, name: str) -> None:
        """Take a host's power away: all that runs on it is dead at once. Its disk stays."""
        self.number(name)
        namespaces.end(self.root, f"latency:{name}")
        namespaces.end(self.root, f"host:{name}")
        network.unplug(self.anchor, self.number(name))
