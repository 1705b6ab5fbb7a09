"""Type vmfab's real command line on the practice cluster's laptop, and look from outside at what it did.

What is said here about the cluster comes from processes, files on the hosts' disks and the store, never from
vmfab itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.lab import law
from tasks.lab.lab import PROJECT, Lab
from tasks.lab.namespaces import until
from tests.lab import freezer
from tests.lab.terminal import Terminal

ONE, TWO, THREE, FOUR = "vmhost1", "vmhost2", "vmhost3", "vmhost4"

#: One VM's move, and what gives guests on a busy machine time enough to shut down.
MIGRATE = ("migrate", "web", "--to", TWO, "--yes", "--json")
LONG = ("--timeout", "200")

#: Seconds for what takes a few on an idle machine.
PATIENCE = 120.0

#: Seconds that silent hosts may add to a command: 10 until they are given up, and some for a busy machine.
SILENT = 15.0


@dataclass(frozen=True)
class Done:
    """How a command ended. Never with a traceback: that is asserted when it is made."""

    code: int
    out: str
    err: str
    seconds: float

    def __post_init__(self) -> None:
        assert "Traceback" not in self.said, self.said
        assert "fault in vmfab itself" not in self.said, self.said

    @property
    def said(self) -> str:
        return self.out + self.err

    @property
    def document(self) -> Any:
        """The one document of --json; standard output holds nothing else."""
        return json.loads(self.out)

    @property
    def outcomes(self) -> dict[str, dict[str, Any]]:
        """How each VM's move ended, by name."""
        return {str(one["vm"]): one for one in self.document["outcomes"]}

    @property
    def results(self) -> dict[str, str]:
        return {vm: str(one["result"]) for vm, one in self.outcomes.items()}

    def reason(self) -> tuple[str, str]:
        """The one sentence on standard error that says why it ended, and what is to be typed next."""
        lines = self.err.splitlines()
        first = [number for number, line in enumerate(lines) if line.startswith("fab: ")]
        assert len(first) == 1, self.said
        return lines[first[0]].removeprefix("fab: "), " ".join(lines[first[0] + 1 :])


class Running:
    """A command that is under way; its end is waited for when a test is left."""

    def __init__(self, words: Sequence[str], env: dict[str, str]) -> None:
        self._begin = time.monotonic()
        self.process = subprocess.Popen(
            words, text=True, env=env, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._texts = {"out": "", "err": ""}
        self._readers = [
            threading.Thread(target=self._read, args=(name, stream), daemon=True)
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            self._texts[name] += line

    @property
    def said(self) -> str:
        return self._texts["out"] + self._texts["err"]

    def await_words(self, words: str, seconds: float = PATIENCE) -> None:
        """Wait until it says this; fails when it ends before."""
        until(lambda: words in self.said or self.process.poll() is not None, seconds, repr(words), 0.005)
        if words not in self.said:
            for reader in self._readers:
                reader.join(10)
        assert words in self.said, f"ended without saying {words!r}:\n{self.said}"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Close the laptop's lid on it: all its processes stand still."""
        os.killpg(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGCONT)

    def done(self, seconds: float = 240.0) -> Done:
        """Wait for its end."""
        code = self.process.wait(seconds)
        for reader in self._readers:
            reader.join(10)
        return Done(code, self._texts["out"], self._texts["err"], time.monotonic() - self._begin)

    def kill(self) -> None:
        """End it if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


class Fab:
    """An operator at a laptop of the lab: calls fab, and knows who runs what. Use it with `with`."""

    def __init__(self, lab: Lab, home: Path, seconds: float = 240.0) -> None:
        """`home` is the operator's, `seconds` the time in which any command ends."""
        self.lab = lab
        self._home = home
        self._seconds = seconds
        home.mkdir(parents=True, exist_ok=True)
        self._inventory: Path | None = None
        self._running: list[Running] = []
        self._starts = len(law.starts(lab))

    def other_laptop(self) -> Fab:
        """The same operator somewhere else: another, empty home."""
        return Fab(self.lab, self._home.with_name("elsewhere"), self._seconds)

    def use_inventory(self, *more: str, host_variables: str = "") -> None:
        """From now on use the lab's inventory with these lines appended."""
        text = (self.lab.root / "hosts.ini").read_text(encoding="utf-8")
        text = text.replace("ansible_user=root", f"ansible_user=root {host_variables}".rstrip())
        text = text.replace("=ssh_config", f"={self.lab.root}/ssh_config")
        self._inventory = self._home / "hosts.ini"
        self._inventory.write_text(text + "".join(f"{line}\n" for line in more), encoding="utf-8")

    def use_inventory_bytes(self, text: bytes) -> None:
        """From now on use exactly this inventory."""
        self._inventory = self._home / "hosts.ini"
        self._inventory.write_bytes(text)

    # -- commands ------------------------------------------------------------------------------------

    def __call__(self, *words: str) -> Done:
        """Run `fab WORDS` without a terminal to its end."""
        return self.begin(*words).done(self._seconds)

    def begin(self, *words: str) -> Running:
        """Begin `fab WORDS` without a terminal."""
        return self.begin_words([str(PROJECT / "fab"), *words])

    def shell(self, script: str) -> Done:
        """Run a line of shell in which `fab` is vmfab."""
        function = f'fab() {{ "{PROJECT}/fab" "$@"; }}\n'
        return self.begin_words(["bash", "-c", function + script]).done()

    @contextmanager
    def terminal(self, *words: str) -> Iterator[Terminal]:
        """Begin `fab WORDS` on a terminal."""
        env = {**self._env(), "TERM": "vt100"}
        terminal = Terminal([*self.lab.laptop_prefix(), str(PROJECT / "fab"), *words], env)
        try:
            yield terminal
        finally:
            terminal.close()

    def begin_words(self, words: Sequence[str]) -> Running:
        """Begin any command on the laptop."""
        running = Running([*self.lab.laptop_prefix(), *words], self._env())
        self._running.append(running)
        return running

    def _env(self) -> dict[str, str]:
        env = {**os.environ, **self.lab.laptop_environment(), "HOME": str(self._home)}
        env.pop("SSH_AUTH_SOCK", None)
        if self._inventory:
            env["VMFAB_INVENTORY"] = str(self._inventory)
        return env

    def __enter__(self) -> Fab:
        return self

    def __exit__(self, *_: object) -> None:
        """End what a failed test left running."""
        for running in self._running:
            running.kill()

    # -- VMs -----------------------------------------------------------------------------------------

    def add(self, host: str, *names: str, acpi: str = "now", memory_mib: int = 128, **more: str) -> None:
        """Make VMs on a host, all booted at the end; `more` gives other VMs and how they take a shutdown."""
        wanted = {**dict.fromkeys(names, acpi), **more}
        for name, takes in wanted.items():
            self.lab.add_vm(name, host, acpi=takes, memory_mib=memory_mib)
        self.counting(*wanted)

    def also_define(self, name: str, *hosts: str) -> None:
        """Let other hosts know a VM of the first host, as admins do who copy definitions."""
        xml = self.lab.virsh(ONE, "dumpxml", "--inactive", "--security-info", name)
        for host in hosts:
            self.lab.define_vm(host, xml)

    def counting(self, *names: str) -> None:
        """Wait until each of these guests really runs: it writes its counter."""
        with ThreadPoolExecutor(max_workers=max(1, len(names))) as pool:
            list(pool.map(lambda name: self.lab.wait_counting(name, PATIENCE), names))

    def uuid(self, name: str) -> str:
        return next(start.uuid for start in reversed(law.starts(self.lab)) if start.name == name)

    def where(self) -> dict[str, tuple[str, ...]]:
        """On which hosts each VM has a living emulator; a VM that is off is not in it."""
        found: dict[str, tuple[str, ...]] = {}
        for one in law.emulators(self.lab):
            found[one.name] = tuple(sorted((*found.get(one.name, ()), one.host)))
        return found

    def starts(self, name: str) -> list[str]:
        """The hosts where its start was tried in this test, in this order; its very first start left out."""
        made = [start.host for start in law.starts(self.lab)[self._starts :] if start.name == name]
        return made[1:]

    def await_start(self, name: str, number: int = 1, seconds: float = PATIENCE) -> None:
        """Wait until so many starts of it were tried."""
        until(lambda: len(self.starts(name)) >= number, seconds, f"a start of {name}", 0.005)

    def await_free(self, name: str, seconds: float = PATIENCE) -> None:
        """Wait until nobody holds the lock of a VM on the store any more."""
        lock = self.lab.store / f".vmfab/locks/vm-{self.uuid(name)}"
        free = ["flock", "--nonblock", str(lock), "true"]
        until(lambda: subprocess.run(free).returncode == 0, seconds, f"the end of the lock of {name}", 0.2)

    def await_given_up(self, seconds: float = PATIENCE) -> None:
        """Wait until the hosts have let go of all that a killed fab had locked."""
        locks = self.lab.store / ".vmfab/locks"
        until(lambda: not any(map(_is_locked, locks.iterdir())), seconds, "the end of all locks", 0.1)

    def await_off(self, name: str, seconds: float = PATIENCE) -> None:
        """Wait until no host runs it."""
        pids = [one.pid for one in law.emulators(self.lab) if one.name == name]
        until(lambda: not any(map(_alive, pids)), seconds, f"the end of {name}", 0.02)
        assert name not in self.where()

    def console(self, host: str, name: str) -> str:
        """What the guest has printed on this host."""
        path = self.lab.disk(host) / f"var/log/libvirt/console-{self.uuid(name)}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def await_pressed(self, host: str, name: str, seconds: float = PATIENCE) -> None:
        """Wait until the guest has noticed its power button: it goes off after its time, or ignores it."""
        words = ("power button pressed", "power button ignored")
        until(lambda: any(w in self.console(host, name) for w in words), seconds, f"{name} to notice", 0.05)

    @contextmanager
    def unkillable(self, *names: str) -> Iterator[None]:
        """Let their qemu processes survive SIGKILL, as a process does whose disk hangs."""
        pids = [one.pid for one in law.emulators(self.lab) if one.name in names]
        assert len(pids) == len(names)
        with freezer.frozen(pids, self._home / "freezer"):
            yield

    # -- what is written -----------------------------------------------------------------------------

    def definitions(self, host: str) -> dict[str, str]:
        """The definition files on a host's disk, by name of the VM's file, without libvirt's comment."""
        folder = self.lab.disk(host) / "etc/libvirt/qemu"
        return {path.stem: path.read_text(encoding="utf-8") for path in folder.glob("*.xml")}

    def autostart(self, host: str) -> set[str]:
        """The VMs that libvirt would start at a host's boot."""
        return {path.stem for path in (self.lab.disk(host) / "etc/libvirt/qemu/autostart").glob("*.xml")}

    def running_vms(self, host: str) -> list[str] | None:
        """The names in /root/running_vms, in their order; None when there is no such file."""
        path = self.lab.disk(host) / "root/running_vms"
        return list(filter(None, path.read_text(encoding="utf-8").splitlines())) if path.exists() else None

    def kept(self) -> dict[str, str]:
        """What vmfab keeps on the store: text by path.

        Left out is what changes by itself: locks, of which free ones tell of the past, and hosts' beats.
        """
        root = self.lab.store / ".vmfab"
        files = [path for path in root.rglob("*") if path.is_file()] if root.exists() else []
        texts = {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}
        return {path: text for path, text in texts.items() if not re.match(r"locks/|hosts/.*\.beat$", path)}

    def cordons(self) -> list[str]:
        """The hosts that are cordoned."""
        return sorted(Path(path).stem for path in self.kept() if path.startswith("cordons/"))

    def journal(self) -> list[dict[str, Any]]:
        """All lines of all journals, oldest operation first."""
        texts = [text for path, text in sorted(self.kept().items()) if path.startswith("moves/")]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def state(self) -> dict[str, Any]:
        """All that a command may change, to be compared before and after."""
        return {
            "processes": sorted((one.host, one.pid, one.uuid) for one in law.emulators(self.lab)),
            "starts": len(law.starts(self.lab)),
            "definitions": {host: self.definitions(host) for host in self.lab.hosts},
            "autostart": {host: self.autostart(host) for host in self.lab.hosts},
            "running_vms": {host: self.running_vms(host) for host in self.lab.hosts},
            "kept": self.kept(),
        }


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        pass  # removed by who held it
    return False


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
