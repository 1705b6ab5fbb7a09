"""Look at the VMs from outside: when their processes end, and when libvirt says that they run.

All stamps are seconds since the epoch of this machine, which is every practice host's clock as well.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import select
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from tasks.lab import namespaces
from tasks.lab.lab import Lab
from tests.bench.result import BenchError

EVENT = re.compile(r"(\S+ \S+): event 'lifecycle' for domain '(.+)': (\w+) \w+")


class Observer:
    """Keeps libvirt's events of all hosts. A context manager."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._listeners: list[subprocess.Popen[str]] = []
        self._seen: list[tuple[float, str, str, str]] = []

    def __enter__(self) -> Observer:
        for host in self._lab.hosts:
            inside = namespaces.prefix(self._lab.host(host), *namespaces.ALL)
            virsh = ["virsh", "-q", "-c", "qemu:///system", "event", "--event", "lifecycle", "--loop"]
            listener = subprocess.Popen(
                [*inside, "env", "LC_ALL=C", "stdbuf", "-oL", *virsh, "--timestamp"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            self._listeners.append(listener)
            threading.Thread(target=self._listen, args=(host, listener), daemon=True).start()
        for host in self._lab.hosts:
            self._wait_listening(host)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            listener.terminate()
            listener.wait()

    def _listen(self, host: str, listener: subprocess.Popen[str]) -> None:
        assert listener.stdout is not None
        for line in listener.stdout:
            if match := EVENT.match(line):
                stamp = datetime.datetime.strptime(match[1], "%Y-%m-%d %H:%M:%S.%f%z").timestamp()
                self._seen.append((stamp, host, match[2], match[3]))

    def _wait_listening(self, host: str) -> None:
        """Define and undefine a VM until the host's listener tells of it."""
        xml = self._lab.xml("bench-probe")

        def heard() -> bool:
            self._lab.define_vm(host, xml)
            self._lab.virsh(host, "undefine", "bench-probe")
            time.sleep(0.05)
            return any(where == host for _, where, _, _ in list(self._seen))

        namespaces.until(heard, 20.0, f"libvirt's events of {host}")

    def when(self, what: str, name: str, host: str, after: float) -> float:
        """When a VM was first "Started" or "Stopped" on a host after a moment, by libvirt's word.

        Waits a little for the event to arrive. Raises LabError when none does.
        """

        def found() -> list[float]:
            return [
                stamp
                for stamp, where, vm, what in list(self._seen)
                if (where, vm, what) == (host, name, what) and stamp >= after
            ]

        namespaces.until(lambda: bool(found()), 10.0, f"{name} to be {what} on {host}")
        return min(found())

    def executed(self, uuid: str, host: str, after: float) -> float:
        """When QEMU was first executed for a VM on a host after a moment, by the lab's own log.

        Raises BenchError.
        """
        log = self._lab.root / "starts/starts.log"
        for line in map(json.loads, log.read_text(encoding="utf-8").splitlines()):
            if (line["uuid"], line["host"]) == (uuid, host) and line["time"] >= after:
                return float(line["time"])
        raise BenchError(f"QEMU was not executed for {uuid} on {host}")


class Ends:
    """When the QEMU processes of VMs end."""

    def __init__(self, uuids: Sequence[str]) -> None:
        """Watch the processes that run these VMs now."""
        self._fds: dict[int, str] = {}
        self.at: dict[str, float] = {}
        for uuid in uuids:
            self._fds[os.pidfd_open(process_of(uuid))] = uuid

    @contextlib.contextmanager
    def watched(self) -> Iterator[Ends]:
        """Watch while the block runs. Raises BenchError when one of them still runs at its end."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        yield self
        thread.join(5.0)
        if thread.is_alive():
            raise BenchError("a VM that was to be stopped still runs")

    def _watch(self) -> None:
        poller = select.poll()
        for fd in self._fds:
            poller.register(fd, select.POLLIN)
        while self._fds:
            for fd, _ in poller.poll():
                self.at[self._fds.pop(fd)] = time.time()
                poller.unregister(fd)
                os.close(fd)


def process_of(uuid: str) -> int:
    """The QEMU process that runs a VM, as this machine numbers it. Raises BenchError."""
    wanted = b"\0-uuid\0" + uuid.encode() + b"\0"
    for pid in namespaces.pids():
        with contextlib.suppress(OSError):
            if wanted in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    raise BenchError(f"no process runs the VM {uuid}")
