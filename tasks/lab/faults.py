"""Everything that can be made to go wrong on a practice cluster, and put right again.

Each method may be called again: what is so already stays so.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tasks.lab import namespaces, network
from tasks.lab.cells import Cells
from tasks.lab.namespaces import prefix, run
from tasks.lab.problem import LabRefused
from tasks.lab.space import HERE, PYTHON

MOUNT = "/vmstorage"
DAEMONS = {"sshd": ("sshd", "sshd-session", "sshd-auth"), "libvirtd": ("libvirtd",)}


class Faults(Cells):
    """A lab whose parts can be broken."""

    # network

    def cut_network(self, host: str) -> None:
        """Pull a host's cable: nothing gets through, connections hang, nobody is told."""
        network.cut(self.anchor, self.number(host))

    def mend_network(self, host: str) -> None:
        """Put the cable back; connections that still wait go on."""
        if self.is_on(host):
            network.mend(self.anchor, self.number(host))

    def add_latency(self, host: str, milliseconds: float) -> None:
        """Delay all that goes to and comes from a host by this much, one way; 0 ends it."""
        number = self.number(host)
        namespaces.end(self.root, f"latency:{host}")
        port = network.port(number)
        if milliseconds > 0:
            unshare = ["unshare", "--pid", "--fork", "--kill-child"]
            delayer = [*PYTHON, str(HERE / "delayer.py"), port, network.BRIDGE, str(milliseconds)]
            words = [*prefix(self.anchor, "mnt", "net", "ipc", "pid"), "setsid", "--fork", *unshare, *delayer]
            role = f"latency:{host}"
            namespaces.spawn(
                words, namespaces.marks(self.root, role), self.root / "log" / f"latency-{host}.log"
            )
            namespaces.until(lambda: self._has_master(f"late-{port}"), 10.0, f"the delay on {host}")
        elif self.is_on(host):
            namespaces.until(lambda: not self._has_master(f"late-{port}"), 10.0, f"the delay's end on {host}")
            network.ip(self.anchor, [f"link set {port} master {network.BRIDGE} up"])

    def _has_master(self, name: str) -> bool:
        words = [*prefix(self.anchor, "net"), "ip", "-o", "link", "show", name]
        return f"master {network.BRIDGE}" in run(words, check=False).stdout

    def cut_sessions(self, host: str) -> None:
        """End all ssh sessions of a host in the middle of what they do; sshd goes on listening."""
        leader = self.host(host)
        for pid in self._daemon_pids(host, "sshd"):
            if _parent(pid) != leader.pid:
                namespaces.signal_member(leader, pid, signal.SIGKILL)

    # daemons

    def freeze(self, host: str, daemon: str) -> None:
        """Stop "libvirtd" or "sshd" (with its sessions) without ending it: it answers nobody."""
        for pid in self._daemon_pids(host, daemon):
            namespaces.signal_member(self.host(host), pid, signal.SIGSTOP)

    def thaw(self, host: str, daemon: str) -> None:
        """Let a frozen daemon go on."""
        for pid in self._daemon_pids(host, daemon):
            namespaces.signal_member(self.host(host), pid, signal.SIGCONT)

    def kill(self, host: str, daemon: str) -> None:
        """Kill "libvirtd" (its guests live on) or "sshd" (with its sessions); see start_daemon."""
        for pid in self._daemon_pids(host, daemon):
            namespaces.signal_member(self.host(host), pid, signal.SIGKILL)
        namespaces.until(lambda: not self._daemon_pids(host, daemon), 10.0, f"the end of {daemon} on {host}")

    def start_daemon(self, host: str, daemon: str) -> None:
        """Start a daemon that was killed, and wait until it answers."""
        if not self._daemon_pids(host, daemon):
            self.run_on(host, ["/opt/lab/service", daemon])
        self.wait_daemon(host, daemon)

    def _daemon_pids(self, host: str, daemon: str) -> list[int]:
        if daemon not in DAEMONS:
            raise LabRefused(f"No such daemon: {daemon}.", f"There are: {', '.join(DAEMONS)}")
        return [pid for pid in namespaces.members(self.host(host)) if _comm(pid) in DAEMONS[daemon]]

    # the store

    def fill_store(self) -> None:
        """Leave no free space on /vmstorage; what is there stays writable."""
        used = os.statvfs(self.store)
        kib = (used.f_blocks - used.f_bfree) * used.f_frsize // 1024
        self._resize(max(kib, 4))

    def unfill_store(self) -> None:
        """Give /vmstorage its size back."""
        self._resize(self.settings().store_mib * 1024)

    def _resize(self, kib: int) -> None:
        where = str(self.root / "store")
        run([*prefix(self.anchor, "mnt"), "mount", "-o", f"remount,size={kib}k", where])

    def unmount_store(self, host: str) -> None:
        """Take /vmstorage off a host; guests that run there keep their open images."""
        while self._store_mounts(host):
            self.run_on(host, ["umount", "--lazy", MOUNT])

    def mount_store(self, host: str) -> None:
        """Mount /vmstorage on a host, writable."""
        while self._store_mounts(host) > 1:
            self.run_on(host, ["umount", "--lazy", MOUNT])
        if not self._store_mounts(host):
            script = [*PYTHON, str(HERE / "storemount.py"), str(self.root / "store")]
            run([*prefix(self.anchor, "mnt"), *script, str(self.host(host).pid), MOUNT])

    def read_only_store(self, host: str) -> None:
        """Make /vmstorage read-only on a host for whatever is opened from now on."""
        self.mount_store(host)
        # A mount on top: the mount itself cannot change while guests have images open for writing.
        self.run_on(host, ["mount", "--bind", MOUNT, MOUNT])
        self.run_on(host, ["mount", "-o", "remount,bind,ro", MOUNT])

    def _store_mounts(self, host: str) -> int:
        table = Path(f"/proc/{self.host(host).pid}/mountinfo").read_text(encoding="utf-8")
        return sum(line.split()[4] == MOUNT for line in table.splitlines())

    # guests

    def fail_next_start(self, host: str, times: int = 1) -> None:
        """Let QEMU refuse the next `times` starts on a host."""
        for number in range(times):
            (self._faults(host) / f"fail.{number}").touch()

    def die_after_start(self, host: str, seconds: float) -> None:
        """Let each guest that is started on a host from now on die after `seconds`."""
        (self._faults(host) / "die").write_text(f"{seconds}\n", encoding="ascii")

    def mend_starts(self, host: str) -> None:
        """Let guests start and live again."""
        for flag in self._faults(host).iterdir():
            flag.unlink(missing_ok=True)

    def _faults(self, host: str) -> Path:
        self.number(host)
        return self.disk(host).parent / "faults"

    # all

    def mend(self, host: str) -> None:
        """Put everything right on a host; it is switched on if it was off, guests are left alone."""
        self.mend_starts(host)
        self.power_on(host, wait=False)
        self.add_latency(host, 0)
        self.mend_network(host)
        self.mount_store(host)
        for daemon in DAEMONS:
            self.thaw(host, daemon)
        self.wait_booted(host)
        for daemon in DAEMONS:
            self.start_daemon(host, daemon)


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    return int(status.partition("PPid:")[2].split()[0])
