"""Files and locks of the store, on a real mount: /dev/shm, in a folder of the test's own."""

from __future__ import annotations

import errno
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.onhost import children, mounts, storechild, storefacts, storefiles, storelocks
from tasks.onhost.problem import Problem

MOUNT = "/dev/shm"
SOON = 5.0


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    name = f".vmfab-test-{uuid4()}"
    monkeypatch.setattr(storechild, "FOLDER", name)
    yield Path(MOUNT) / name
    shutil.rmtree(Path(MOUNT) / name, ignore_errors=True)


def kind_of(caught: pytest.ExceptionInfo[Problem]) -> str:
    return caught.value.kind


def test_write_read_append_remove(folder: Path) -> None:
    assert storefiles.read(MOUNT, "moves/ä b.json", SOON) is None
    storefiles.write(MOUNT, "moves/ä b.json", "grün\n", exclusive=False, timeout=SOON)
    storefiles.write(MOUNT, "moves/ä b.json", "blau\n", exclusive=False, timeout=SOON)
    storefiles.append(MOUNT, "moves/ä b.json", "more\n", SOON)
    storefiles.append(MOUNT, "moves/new", "first\n", SOON)
    assert storefiles.read(MOUNT, "moves/ä b.json", SOON) == "blau\nmore\n"
    assert storefiles.names(MOUNT, "moves", SOON) == ["new", "ä b.json"]
    storefiles.makedirs(MOUNT, "moves/sub", SOON)
    assert storefiles.read_dir(MOUNT, "moves", SOON) == {"new": "first\n", "ä b.json": "blau\nmore\n"}
    assert [(folder / "moves").stat().st_mode & 0o777, (folder / "moves/new").stat().st_mode & 0o777] == [
        0o700,
        0o600,
    ]
    storefiles.remove(MOUNT, "moves/new", SOON)
    storefiles.remove(MOUNT, "moves/new", SOON)
    storefiles.remove(MOUNT, "nowhere/new", SOON)
    assert storefiles.read_dir(MOUNT, "nowhere", SOON) == {}


def test_an_exclusive_write_never_replaces(folder: Path) -> None:
    storefiles.write(MOUNT, "cordons/a", "mine", exclusive=True, timeout=SOON)
    with pytest.raises(Problem) as caught:
        storefiles.write(MOUNT, "cordons/a", "yours", exclusive=True, timeout=SOON)
    assert (kind_of(caught), caught.value.message) == ("locked", "mine")
    assert [p.name for p in (folder / "cordons").iterdir()] == ["a"]


def test_the_identity_is_given_once(folder: Path) -> None:
    first = storefiles.init(MOUNT, SOON)
    assert first == storefiles.init(MOUNT, SOON)
    assert storefacts.facts(MOUNT, mounts.table())["store_id"] == first
    (folder / "store-id").write_text("")
    with pytest.raises(Problem):
        storefiles.init(MOUNT, SOON)


def test_what_is_not_mounted_is_never_written_to(tmp_path: Path, folder: Path) -> None:
    for mount in (str(tmp_path), str(tmp_path / "missing")):
        facts = storefacts.facts(mount, mounts.table())
        assert (facts["mounted"], facts["problem"]) == (False, f"{mount} is not mounted")
        for work in (
            lambda m=mount: storefiles.write(m, "x", "", exclusive=False, timeout=SOON),
            lambda m=mount: storefiles.append(m, "x", "", SOON),
            lambda m=mount: storefiles.read(m, "x", SOON),
            lambda m=mount: storefiles.names(m, "x", SOON),
            lambda m=mount: storefiles.init(m, SOON),
            lambda m=mount: storelocks.lock(m, "locks/x", "", SOON),
        ):
            with pytest.raises(Problem) as caught:
                work()
            assert (kind_of(caught), caught.value.message) == ("store", f"{mount} is not mounted")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".", "a\0b", ".tmp-x", "x" * 256]
)
def test_paths_stay_below_the_folder(path: str) -> None:
    with pytest.raises(Problem) as caught:
        storefiles.write(MOUNT, path, "", exclusive=False, timeout=SOON)
    assert kind_of(caught) == "bad-request"


def test_symbolic_links_lead_nowhere(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("x")
    for path in ("out/secret", "out/new"):
        with pytest.raises(Problem) as caught:
            storefiles.write(MOUNT, path, "y", exclusive=False, timeout=SOON)
        assert kind_of(caught) == "store"
    assert (tmp_path / "secret").read_text() == "x"


def test_an_append_that_fails_leaves_nothing_of_itself(folder: Path) -> None:
    storefiles.append(MOUNT, "journal", "whole line\n", SOON)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(Problem) as caught:
            storefiles.append(MOUNT, "journal", "a line that is too long\n", SOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kind_of(caught) == "store"
    assert storefiles.read(MOUNT, "journal", SOON) == "whole line\n"


def test_text_that_is_not_utf8_is_no_answer(folder: Path) -> None:
    folder.mkdir()
    (folder / "x").write_bytes(b"\xff")
    with pytest.raises(Problem) as caught:
        storefiles.read(MOUNT, "x", SOON)
    assert kind_of(caught) == "store"


def test_a_lock_is_held_until_it_is_given_back() -> None:
    storelocks.lock(MOUNT, "locks/vm-1", '{"by": "ä"}', SOON)
    for _ in range(2):
        with pytest.raises(Problem) as caught:
            storelocks.lock(MOUNT, "locks/vm-1", "other", SOON)
        assert (kind_of(caught), caught.value.message) == ("locked", '{"by": "ä"}')
    storelocks.lock(MOUNT, "locks/vm-2", "", SOON)
    with pytest.raises(Problem):
        storefiles.remove(MOUNT, "locks/vm-1", SOON)
    storelocks.unlock(MOUNT, "locks/vm-1")
    storelocks.lock(MOUNT, "locks/vm-1", "next", SOON)
    storelocks.unlock(MOUNT, "locks/vm-1")
    storelocks.unlock(MOUNT, "locks/vm-2")
    with pytest.raises(Problem):
        storelocks.unlock(MOUNT, "locks/vm-1")


def test_a_lock_that_was_lost_is_told_when_it_is_given_back() -> None:
    storelocks.lock(MOUNT, "locks/vm-1", "", SOON)
    (held,) = storelocks._held.values()
    children.kill(held.pid)
    assert children.reap(held.pid)
    with pytest.raises(Problem) as caught:
        storelocks.unlock(MOUNT, "locks/vm-1")
    assert kind_of(caught) == "store"


def test_a_store_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(mount: str) -> int:
        time.sleep(60)
        raise AssertionError(mount)

    monkeypatch.setattr(storechild, "root_of", hang)
    monkeypatch.setattr(storechild, "FACTS", 0.2)
    begin = time.monotonic()
    facts = storefacts.facts(MOUNT, mounts.table())
    assert (facts["mounted"], facts["problem"]) == (True, "/dev/shm hangs (no answer within 0.2 s)")
    for work in (
        lambda: storefiles.write(MOUNT, "x", "", exclusive=False, timeout=0.2),
        lambda: storelocks.lock(MOUNT, "locks/x", "", 0.2),
    ):
        with pytest.raises(Problem) as caught:
            work()
        assert kind_of(caught) == "store"
    assert time.monotonic() - begin < 5
    assert storelocks._held == {}


def test_a_full_store(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "/dev/shm is full" in storefacts.facts(MOUNT, mounts.table(), full=1 << 60)["problem"]
    assert storefacts.facts(MOUNT, mounts.table(), full=0)["problem"] == ""

    def no_space(fd: int, text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storechild, "put", no_space)
    storelocks.lock(MOUNT, "locks/vm-1", "me", SOON)
    with pytest.raises(Problem) as caught:
        storelocks.lock(MOUNT, "locks/vm-1", "other", SOON)
    assert kind_of(caught) == "locked"
    storelocks.unlock(MOUNT, "locks/vm-1")


def test_copies_that_keep_locks_are_nobody_elses_files() -> None:
    storelocks.lock(MOUNT, "locks/vm-1", "", SOON)
    with storelocks.kept() as copies:
        assert len(copies) == 1
        storelocks.unlock(MOUNT, "locks/vm-1")
        assert [Path(f"/proc/self/fd/{fd}").exists() for fd in copies] == [True]
        with storelocks.kept() as now:
            assert now == []
    assert not Path(f"/proc/self/fd/{copies[0]}").exists()
