"""The service that holds a host's lock."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
import uuid as uuids
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.cluster.setup.templates import render
from tasks.lab.namespaces import until
from tests.lab.guard.hooks import HookCluster, HookHost
from tests.unit.onhost.fakes import fake_qemu


@pytest.fixture
def lock(cluster: HookCluster) -> Path:
    return cluster.store / ".vmfab/hosts/vmhost1"


class Service:
    """The rendered program, run on a host."""

    def __init__(self, host: HookHost) -> None:
        self.host = host
        program = host.disk / "vmfab-liveness"
        text = render("vmfab-liveness.py.j2", host=host.name, mount=str(host.cluster.mount), tend="/none")
        # Guests of a practice cluster on this machine count as this host's, too: they are waited for as well.
        for constant, quick in (("BEAT = 5.0", 0.2), ("RETRY = 1.0", 0.1), ("VMS_END = 60.0", 10.0)):
            assert constant in text
            text = text.replace(constant, f"{constant.split()[0]} = {quick}")
        program.write_text(text)
        program.chmod(0o755)
        self.process = subprocess.Popen([*host.prefix, program], stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as systemd does."""
        self.process.terminate()
        assert self.process.wait(60) == 0


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


def record(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def beats(lock: Path, seconds: float = 20) -> None:
    """Wait for another beat."""
    beat = lock.with_name("vmhost1.beat")
    before = beat.read_text() if beat.exists() else ""
    until(lambda: beat.exists() and beat.read_text() != before, seconds, "a beat")


def test_the_lock_is_held_until_the_end(one: HookHost, service: Service, lock: Path) -> None:
    until(lambda: held(lock), 20, "the lock")
    until(lambda: bool(lock.read_text()), 20, "its text")
    found = record(lock)
    assert abs(found.pop("since") - time.time()) < 20
    assert found == {"host": "vmhost1", "boot_id": one.boot_id, "released": None}
    beats(lock)
    beats(lock)
    service.end()
    assert not held(lock)
    # Killed: nothing says that the host lives, but that it will beat again.
    assert record(lock)["released"] is None


def test_a_service_that_is_stopped_says_so(one: HookHost, service: Service, lock: Path) -> None:
    until(lambda: held(lock) and bool(lock.read_text()), 20, "the lock")
    process = fake_qemu(str(uuids.uuid4()))
    try:
        service.stop()
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    released = record(lock)["released"]
    assert abs(released.pop("at") - time.time()) < 20
    assert released.pop("running") >= 1
    assert released == {"shutting_down": False}
    again = Service(one)
    try:
        until(lambda: held(lock) and record(lock)["released"] is None, 20, "the lock again")
    finally:
        again.end()


def test_a_host_that_goes_down_keeps_its_lock_until_its_vms_have_ended(
    one: HookHost, service: Service, lock: Path
) -> None:
    until(lambda: held(lock) and bool(lock.read_text()), 20, "the lock")
    one.sh("mkdir -p /run/vmfab; : >/run/vmfab/stopping")
    process = fake_qemu(str(uuids.uuid4()))
    service.process.terminate()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            service.process.wait(1)
        assert held(lock)
        beats(lock)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    assert service.process.wait(60) == 0
    assert record(lock)["released"]["shutting_down"] is True


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
        # Mounted no more: the lock counts all the same, for its VMs may live.
        one.sh('mount --move "$1" /run/kept', cluster.mount)
        beats(lock)
        assert held(lock)
    finally:
        service.end()


def test_it_takes_a_new_file_for_one_that_is_removed(service: Service, lock: Path) -> None:
    until(lambda: held(lock), 20, "the lock")
    lock.unlink()
    # Somebody has removed the file: the lock on it protects nothing any more.
    until(lambda: held(lock), 20, "the lock on a new file")
    lock.with_name("vmhost1.beat").unlink()
    beats(lock)


def test_it_beats_while_somebody_else_holds_its_lock(cluster: HookCluster, one: HookHost, lock: Path) -> None:
    lock.parent.mkdir(parents=True)
    lock.write_text("from before")
    fd = os.open(lock, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    service = Service(one)
    try:
        beats(lock)
        beats(lock)
        found = record(lock.with_name("vmhost1.beat"))
        assert (found["host"], found["boot_id"]) == ("vmhost1", one.boot_id)
        assert lock.read_text() == "from before"
        os.close(fd)
        until(lambda: "since" in lock.read_text(), 20, "the lock")
    finally:
        service.end()


def test_a_full_store_ends_neither_beats_nor_words(
    cluster: HookCluster, service: Service, lock: Path
) -> None:
    until(lambda: held(lock) and bool(lock.read_text()), 20, "the lock")
    beats(lock)
    space = os.statvfs(cluster.store)
    with (cluster.store / "fill").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize)
    beats(lock)
    service.stop()
    assert record(lock)["released"]["running"] >= 0
