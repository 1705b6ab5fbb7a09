"""Hosts for the rendered hook: each has mounts, /run, a boot and a list of its own; all have one store.

Made of mount namespaces, so that the hook runs as it is: what it finds mounted is mounted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid as uuids
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

from tasks.cluster.setup.guard import rendered_hook

#: What runs in a host's namespaces: it keeps them, and writes what comes to syslog into a file.
INIT = """
set -e
[ -z "$1" ] || mount -t tmpfs -o size=64m store "$1"
mount -t tmpfs run /run
mount -t tmpfs dev /dev
mount -t tmpfs etc /etc
mkdir -p /etc/libvirt/qemu /run/libvirt/qemu
mknod -m 666 /dev/null c 1 3
mount --bind "$2" /proc/sys/kernel/random/boot_id
exec "$4" -c '
import socket, sys
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind("/dev/log")
print(flush=True)
with open(sys.argv[1], "ab", 0) as file:
    while True: file.write(log.recv(65536) + b"\\n")
' "$3"
"""


#: Hosts made here see all processes of the machine: a VM must not be taken for one of another test run's.
RUN = uuids.uuid4()


class Space:
    """The mount namespace of a process that is kept."""

    def __init__(self, inside: Sequence[str], store: str, boot_id: Path, syslog: Path) -> None:
        words = ["unshare", "--mount", "--propagation=private", "sh", "-c", INIT, "sh"]
        self.process = subprocess.Popen(
            [*inside, *words, store, boot_id, syslog, sys.executable], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"\n"
        self.prefix = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", "--"]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class HookHost:
    """A host as far as libvirt's hook sees one."""

    def __init__(self, cluster: HookCluster, name: str, deadline: float = 20.0) -> None:
        self.name = name
        self.cluster = cluster
        self.disk = cluster.folder / name
        (self.disk / "root").mkdir(parents=True)
        self.hook = self.disk / "qemu"
        self.render(deadline)
        self._boot = self.disk / "boot_id"
        self.boot()

    def render(self, deadline: float) -> None:
        text = rendered_hook(
            self.name,
            str(self.cluster.mount),
            running_vms=str(self.disk / "root/running_vms"),
            deadline=deadline,
        )
        self.hook.write_text(text)
        self.hook.chmod(0o755)

    def boot(self) -> None:
        """Begin anew, as after a power cut: another boot, an empty /run."""
        self.boot_id = str(uuids.uuid4())
        self._boot.write_text(self.boot_id + "\n")
        space = Space(self.cluster.anchor.prefix, "", self._boot, self.disk / "syslog")
        if hasattr(self, "_space"):
            self._space.end()
        self._space = space

    def end(self) -> None:
        self._space.end()

    @property
    def prefix(self) -> list[str]:
        """The words that make a command run on it."""
        return self._space.prefix

    def sh(self, script: str, *words: object) -> str:
        line = [*self._space.prefix, "sh", "-ec", script, "sh", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    def call(
        self, operation: str, xml: str, *more: str, name: str = "web"
    ) -> subprocess.CompletedProcess[str]:
        """Call the hook as libvirt does."""
        words = more or (("end", "-") if operation in ("stopped", "release") else ("begin", "-"))
        # libvirt's own environment.
        return subprocess.run(
            [*self._space.prefix, str(self.hook), name, operation, *words],
            input=xml,
            capture_output=True,
            text=True,
            env={"LC_ALL": "C", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
            timeout=60,
        )

    def start(self, xml: str) -> str:
        """All calls of a start, up to the first that says no; what it said, "" when the VM starts.

        A refused start is followed by stopped and release, as libvirt does it.
        """
        for operation in ("prepare", "start", "started"):
            done = self.call(operation, xml)
            assert done.stdout == ""
            if done.returncode:
                self.stop(xml)
                assert operation == "prepare"
                assert done.stderr.count("\n") == 1
                return done.stderr.strip()
            assert done.stderr == ""
        return ""

    def stop(self, xml: str) -> None:
        for operation in ("stopped", "release"):
            done = self.call(operation, xml)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def arrive(self, xml: str) -> str:
        """The destination's calls of a live migration, before any memory is copied."""
        done = self.call("migrate", xml)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        return self.start(xml)

    @property
    def list(self) -> list[str]:
        path = self.disk / "root/running_vms"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def syslog(self) -> str:
        path = self.disk / "syslog"
        return path.read_text() if path.exists() else ""


class HookCluster:
    """Hosts and their store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mount = folder / "vmstorage"
        self.mount.mkdir()
        boot_id = folder / "anchor-boot"
        boot_id.write_text("anchor\n")
        self.anchor = Space([], str(self.mount), boot_id, folder / "anchor-syslog")
        #: the store as this process sees it
        self.store = Path(f"/proc/{self.anchor.process.pid}/root{self.mount}")
        self.hosts: list[HookHost] = []

    def host(self, name: str, deadline: float = 20.0) -> HookHost:
        made = HookHost(self, name, deadline)
        self.hosts.append(made)
        return made

    def end(self) -> None:
        for host in self.hosts:
            host.end()
        self.anchor.end()

    def image(self, name: str, data: bytes = b"raw") -> str:
        """Make an image; its path on the hosts."""
        (self.store / name).write_bytes(data)
        return str(self.mount / name)

    def owners(self) -> dict[str, Any]:
        """Owner records by the image's file name."""
        folder = self.store / ".vmfab/owners"
        records = [json.loads(p.read_text()) for p in folder.iterdir()] if folder.exists() else []
        return {Path(r["path"]).name: r for r in records}

    def owner(self, name: str) -> str:
        """Who owns an image: "", "vmhost1", "vmhost1>vmhost2"."""
        record = self.owners().get(name)
        if record is None:
            return ""
        return str(record["host"]) + (f">{record['to']['host']}" if "to" in record else "")

    @property
    def log(self) -> list[str]:
        path = self.store / ".vmfab/guard.log"
        return path.read_text().splitlines() if path.exists() else []


def disk(path: str, extra: str = "", *, kind: str = "file", driver: str = "raw", device: str = "disk") -> str:
    attribute = {"file": "file", "block": "dev", "dir": "dir"}[kind]
    return (
        f"<disk type='{kind}' device='{device}'><driver name='qemu' type='{driver}'/>"
        f"<source {attribute}={quoteattr(path)}/><target dev='vda'/>{extra}</disk>"
    )


def domain(*disks: str, name: str = "web", uuid: str = "", more: str = "") -> str:
    """A definition with these disks, each a path or XML."""
    uuid = uuid or str(uuids.uuid5(RUN, name))
    devices = "".join(d if d.startswith("<") else disk(d) for d in disks)
    return (
        f"<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>{name}</name>"
        f"<uuid>{uuid}</uuid><memory unit='KiB'>1024</memory>{more}<devices>{devices}</devices></domain>"
    )
