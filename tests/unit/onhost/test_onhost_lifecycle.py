"""Waiting for a VM's end, with processes that are real and a virsh that plays one domain."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tasks.onhost import domains, lifecycle, virsh
from tasks.onhost.problem import Problem
from tests.unit.onhost.fakes import FakeVirsh, fake_qemu


@pytest.fixture
def uuid() -> str:
    return str(uuid4())


@pytest.fixture
def fake(tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeVirsh]:
    fake = FakeVirsh(tmp_path, uuid)
    fake.use(monkeypatch)
    monkeypatch.setattr(lifecycle, "_NOTICE", 2.0)
    yield fake
    # Its last look may still be under way.
    time.sleep(0.1)


def wait_off(
    uuid: str, timeout: float, again: float | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    events: list[dict[str, Any]] = []
    return lifecycle.wait_off(uuid, timeout, again, events.append), events


@pytest.fixture(params=["pidfd", "polling"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "polling":
        monkeypatch.setattr(lifecycle, "_pidfd_open", None)


@pytest.mark.usefixtures("way")
def test_the_end_is_seen_and_confirmed(fake: FakeVirsh, uuid: str) -> None:
    process = fake_qemu(uuid)
    ended: list[float] = []
    asked: list[int] = []

    def end() -> None:
        asked.append(len(fake.calls("shutdown")))
        process.kill()
        ended.append(time.time())
        time.sleep(0.8)
        fake.put("state", "shut off (shutdown)")

    timer = threading.Timer(1.2, end)
    timer.start()
    said, events = wait_off(uuid, 20, again=0.5)
    timer.join()
    process.wait()
    assert (said["off"], said["state"]) == (True, "shut off")
    # Not proved off before libvirt says so, whatever /proc shows.
    assert said["waited"] >= 2.0
    assert said["ended_at"] - ended[0] < 1.0
    # Asked again while it ran; when it had ended, at most the request already under way came through.
    assert asked[0] >= 1
    assert asked[0] <= len(fake.calls("shutdown")) <= asked[0] + 1
    assert {"waited", "asked"} == set(events[0])


def test_still_running_when_the_time_is_up(fake: FakeVirsh, uuid: str) -> None:
    process = fake_qemu(uuid)
    try:
        said, _ = wait_off(uuid, 0.5)
    finally:
        process.kill()
        process.wait()
    assert (said["off"], said["state"], said["ended_at"]) == (False, "running", None)


@pytest.mark.parametrize(
    "state", ["running (booted)", "paused (user)", "in shutdown (user)", "crashed (panicked)", "new"]
)
def test_a_process_that_is_gone_proves_nothing_alone(fake: FakeVirsh, uuid: str, state: str) -> None:
    fake.put("state", state)
    said, _ = wait_off(uuid, 0.3)
    assert (said["off"], said["state"]) == (False, state.partition(" (")[0])


def test_libvirt_alone_proves_nothing_either(fake: FakeVirsh, uuid: str) -> None:
    fake.put("state", "shut off (destroyed)")
    process = fake_qemu(uuid)
    try:
        said, _ = wait_off(uuid, 0.5)
    finally:
        process.kill()
        process.wait()
    assert said["off"] is False


def test_a_domain_that_is_gone(fake: FakeVirsh, uuid: str) -> None:
    fake.forget()
    assert wait_off(uuid, 1)[0]["off"] is True
    process = fake_qemu(uuid)
    try:
        assert wait_off(uuid, 0.3)[0]["off"] is False
        assert lifecycle.state_after(uuid) != virsh.OFF
    finally:
        process.kill()
        process.wait()


def test_a_domain_that_cannot_be_found_but_is_listed_is_not_gone(fake: FakeVirsh, uuid: str) -> None:
    fake.forget()
    (fake.folder / "virsh").write_text(
        (fake.folder / "virsh").read_text().replace('[ -e "$here/state" ] && cat', "cat")
    )
    with pytest.raises(Problem):
        wait_off(uuid, 1)


def test_a_silent_libvirt_is_not_off(fake: FakeVirsh, uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.put("broken", "")
    with pytest.raises(Problem) as caught:
        wait_off(uuid, 1)
    assert caught.value.kind == "libvirt-silent"
    (fake.folder / "broken").unlink()
    fake.put("delay", "30")
    monkeypatch.setattr(virsh.run, "__kwdefaults__", {**(virsh.run.__kwdefaults__ or {}), "timeout": 0.3})
    with pytest.raises(Problem) as caught:
        wait_off(uuid, 1)
    assert caught.value.kind == "libvirt-silent"


def test_no_virsh(uuid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(virsh._ENV, "PATH", "/nonexistent")
    with pytest.raises(Problem) as caught:
        domains.active(timeout=1)
    assert caught.value.kind == "no-libvirt"


def test_watch_ends_with_the_process(fake: FakeVirsh, uuid: str) -> None:
    process = fake_qemu(uuid)

    def end() -> None:
        fake.put("state", "shut off (crashed)")
        process.kill()
        process.wait()

    timer = threading.Timer(0.3, end)
    timer.start()
    begin = time.monotonic()
    assert lifecycle.watch(uuid, 20) == ("shut off", "crashed")
    timer.join()
    assert time.monotonic() - begin < 10


def test_watch_tells_of_a_guest_that_was_paused(fake: FakeVirsh, uuid: str) -> None:
    process = fake_qemu(uuid)
    fake.put("state", "paused (I/O error)")
    try:
        assert lifecycle.watch(uuid, 0.5) == ("paused", "I/O error")
    finally:
        process.kill()
        process.wait()


def test_watch_to_the_end(fake: FakeVirsh, uuid: str) -> None:
    process = fake_qemu(uuid)
    try:
        assert lifecycle.watch(uuid, 0.5) == ("running", "booted")
    finally:
        process.kill()
        process.wait()


def test_undefine_with_a_libvirt_that_knows_no_tpm(fake: FakeVirsh, uuid: str) -> None:
    lifecycle.undefine(uuid, 5)
    first, second = fake.calls("undefine")
    assert "--keep-tpm" in first
    assert second.split()[5:] == ["--snapshots-metadata", "--checkpoints-metadata", "--keep-nvram"]
