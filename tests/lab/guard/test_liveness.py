"""The service that holds a host's lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.cluster.templates import render
from tasks.lab.namespaces import until
from tests.lab.guard.hooks import HookCluster, HookHost


@pytest.fixture
def lock(cluster: HookCluster) -> Path:
    return cluster.store / ".vmfab/hosts/vmhost1"


class Service:
    """The rendered program, run on a host."""

    def __init__(self, host: HookHost) -> None:
        program = host.disk / "vmfab-liveness"
        text = render("vmfab-liveness.py.j2", host=host.name, mount=str(host.cluster.mount))
        program.write_text(text.replace("PAUSE = 5.0", "PAUSE = 0.05"))
        program.chmod(0o755)
        self.process = subprocess.Popen([*host.prefix, program], stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def service(one: HookHost) -> Iterator[Service]:
    made = Service(one)
    yield made
    made.end()


def held(path: Path) -> bool:
    if not path.exists():
        return False
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def test_the_lock_is_held_until_the_end(one: HookHost, service: Service, lock: Path) -> None:
    until(lambda: held(lock), 20, "the lock")
    until(lambda: bool(lock.read_text()), 20, "its text")
    record = json.loads(lock.read_text())
    assert (record["host"], record["boot_id"]) == ("vmhost1", one.boot_id)
    service.end()
    assert not held(lock)


def test_it_waits_for_the_mount(cluster: HookCluster, one: HookHost, lock: Path) -> None:
    one.sh('mkdir -p /run/kept; mount --move "$1" /run/kept', cluster.mount)
    service = Service(one)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(1)
        assert not lock.exists()
        assert one.sh('ls -A "$1"', cluster.mount) == ""
        one.sh('mount --move /run/kept "$1"', cluster.mount)
        until(lambda: held(lock), 20, "the lock")
    finally:
        service.end()


def test_it_waits_for_a_lock_from_before_and_takes_a_new_file(service: Service, lock: Path) -> None:
    until(lambda: held(lock), 20, "the lock")
    lock.unlink()
    # Somebody has removed the file: the lock on it protects nothing any more.
    until(lambda: held(lock), 20, "the lock on a new file")
