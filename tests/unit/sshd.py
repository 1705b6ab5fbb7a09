"""A real sshd on 127.0.0.1 for a test: own keys, own home, own configuration, gone afterwards."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tasks.cluster.model import Host, Inventory
from tests import leftovers

#: Without this folder sshd does not start as root; the system makes it for its own service.
PRIVSEP = Path("/run/sshd")


def new_key(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """Make a key pair, PATH and PATH.pub."""
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


class Sshd:
    """One sshd that lets the present user in with the key `key`; `ssh_config` trusts it and names the key."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.extra = extra
        self.home = folder / "home"
        self.bin = folder / "bin"
        #: of the sessions; `bin` is for programs of the test
        self.path = f"{self.bin}:/usr/bin:/bin"
        for made in (self.home, self.bin):
            made.mkdir(parents=True)
        self.host_key = new_key(folder / "host_key")
        self.key = new_key(folder / "key")
        self.authorized_keys = folder / "authorized_keys"
        shutil.copy(f"{self.key}.pub", self.authorized_keys)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.known_hosts = folder / "known_hosts"
        self.trust(self.host_key)
        self.ssh_config = folder / "ssh_config"
        self.configure("")
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, blocks: str) -> None:
        """Write the client's configuration: `blocks`, then what holds for every machine."""
        common = (
            f"Host *\n  IdentityFile {self.key}\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n  GlobalKnownHostsFile none\n"
        )
        self.ssh_config.write_text(blocks + common)

    def trust(self, key: Path, name: str = "") -> None:
        """Make `key` the only known one, under `name` or this sshd's address and port."""
        kind, text, *_ = Path(f"{key}.pub").read_text().split()
        self.known_hosts.write_text(f"{name or f'[127.0.0.1]:{self.port}'} {kind} {text}\n")

    def start(self) -> None:
        config = self.folder / "sshd_config"
        config.write_text(
            f"ListenAddress 127.0.0.1:{self.port}\nHostKey {self.host_key}\n"
            f"AuthorizedKeysFile {self.authorized_keys}\nPidFile none\nUsePAM no\nStrictModes no\n"
            "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
            f"SetEnv PATH={self.path} HOME={self.home}{self._mark()}\n{self.extra}\n"
        )
        log = (self.folder / "log").open("ab")
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or "/usr/sbin/sshd"
        command = [sshd, "-D", "-e", "-f", str(config)]
        with log:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                if self.process is None or self.process.poll() is not None:
                    # A process that the one before was just making may have the port for another moment.
                    self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
                with (
                    contextlib.suppress(OSError),
                    socket.create_connection(("127.0.0.1", self.port), 1) as probe,
                ):
                    if probe.recv(4) == b"SSH-":
                        return
                time.sleep(0.02)
        raise AssertionError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def _mark(self) -> str:
        """What lets the end of the run find what a session has left."""
        mark = os.environ.get(leftovers.MARK)
        return f" {leftovers.MARK}={mark}" if mark else ""

    def sessions(self) -> list[int]:
        """Processes of sshd that serve connections."""
        assert self.process
        parents = _parents()
        return [pid for pid in parents if self.process.pid in _ancestors(pid, parents)]

    def kill_sessions(self) -> None:
        for pid in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the listening sshd and all its sessions, as a machine out of memory would."""
        assert self.process
        os.kill(self.process.pid, signal.SIGSTOP)
        for pid in self.sessions():
            # A session of the test before may be ending just now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def stop(self) -> None:
        if self.process:
            self.process.send_signal(signal.SIGCONT)
            self.kill_sessions()
            self.process.kill()
            self.process.wait()
            self.process = None

    def host(self, name: str = "one", **values: object) -> Host:
        given: dict[str, object] = {"address": "127.0.0.1", "port": self.port, "user": getpass.getuser()}
        return Host(name, **(given | values))  # type: ignore[arg-type]

    def inventory(self) -> Inventory:
        return Inventory(path="hosts.ini", hosts={}, stores={}, ssh_config=str(self.ssh_config))


def _parents() -> dict[int, int]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError):
                found[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
    return found


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid in parents:
        pid = parents[pid]
        yield pid


@contextlib.contextmanager
def running(folder: Path, extra: str = "") -> Iterator[Sshd]:
    """An sshd for the length of a with block."""
    if os.geteuid() == 0:
        # Stays: another sshd may be using it by the time this one ends.
        PRIVSEP.mkdir(mode=0o755, exist_ok=True)
    sshd = Sshd(folder, extra)
    try:
        sshd.start()
        yield sshd
    finally:
        sshd.stop()
