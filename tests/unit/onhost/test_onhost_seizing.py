"""Locks whose text stays, and files swapped under a lock, on a real mount: /dev/shm."""

from __future__ import annotations

import fcntl
import resource
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.onhost import children, storechild, storefiles, storelocks
from tasks.onhost.problem import Problem

MOUNT = "/dev/shm"
SOON = 5.0


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    name = f".vmfab-test-{uuid4()}"
    monkeypatch.setattr(storechild, "FOLDER", name)
    yield Path(MOUNT) / name
    storelocks._held.clear()
    shutil.rmtree(Path(MOUNT) / name, ignore_errors=True)


def put(path: str, text: str) -> None:
    storefiles.write(MOUNT, path, text, exclusive=False, timeout=SOON)


def test_a_seized_lock_is_held_by_a_living_child_on_the_file_that_is_there(folder: Path) -> None:
    put("hosts/a", "since 10:00")
    assert not storelocks.holds(MOUNT, "hosts/a", SOON)
    assert storelocks.seize(MOUNT, "hosts/a", SOON) == "since 10:00"
    assert storelocks.holds(MOUNT, "hosts/a", SOON)
    with (folder / "hosts/a").open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    put("hosts/a", "another file")
    assert not storelocks.holds(MOUNT, "hosts/a", SOON)
    storelocks.unlock(MOUNT, "hosts/a")


def test_a_seized_lock_whose_child_died_is_lost() -> None:
    put("hosts/a", "since 10:00")
    storelocks.seize(MOUNT, "hosts/a", SOON)
    (held,) = storelocks._held.values()
    children.kill(held.pid)
    while children.lives(held.pid):
        time.sleep(0.01)
    assert not storelocks.holds(MOUNT, "hosts/a", SOON)


def test_a_lock_of_somebody_else_is_not_seized(folder: Path) -> None:
    put("hosts/a", "since 10:00")
    with (folder / "hosts/a").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Problem, match="since 10:00") as caught:
            storelocks.seize(MOUNT, "hosts/a", SOON)
        assert caught.value.kind == "locked"
    assert storelocks.seize(MOUNT, "hosts/a", SOON) == "since 10:00"
    storelocks.unlock(MOUNT, "hosts/a")


def test_a_swap_waits_for_its_lock(folder: Path) -> None:
    put("owners/a", "1")
    (folder / "locks").mkdir()
    (folder / "locks/owners").touch()
    with (folder / "locks/owners").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(Problem) as caught:
            storefiles.swap(MOUNT, "locks/owners", [("owners/a", "1", "2")], 0.5)
        assert caught.value.kind == "locked"
        threading.Timer(0.3, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        storefiles.swap(MOUNT, "locks/owners", [("owners/a", "1", "2")], SOON)
    assert storefiles.read(MOUNT, "owners/a", SOON) == "2"


def test_a_swap_that_fails_leaves_all_as_it_was(folder: Path) -> None:
    put("owners/a", "1")
    put("owners/b", "1")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(Problem) as caught:
            storefiles.swap(
                MOUNT, "locks/owners", [("owners/a", "1", "2"), ("owners/b", "1", "x" * 99)], SOON
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.kind == "store"
    assert {path.name: path.read_text() for path in (folder / "owners").iterdir()} == {"a": "1", "b": "1"}
    assert (folder / "owners/a").stat().st_mode & 0o777 == 0o600
