"""What looks like an image, what lies below it, and who holds a lock: on a real mount, /dev/shm."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.onhost import storechild, storelocks, survey
from tasks.onhost.problem import Problem

MOUNT = "/dev/shm"
SOON = 5.0


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    made = Path(MOUNT) / f"vmfab-test-{uuid4()}"
    (made / "own").mkdir(parents=True)
    monkeypatch.setattr(storechild, "FOLDER", f"{made.name}/own")
    yield made
    shutil.rmtree(made)


def qcow2(backing: str = "", data: str = "") -> bytes:
    """The header of a qcow2 image, version 3."""
    name, extensions = backing.encode(), b""
    if data:
        padded = data.encode() + b"\0" * (-len(data) % 8)
        extensions += struct.pack(">II", 0x44415441, len(data)) + padded
    extensions += struct.pack(">II", 0, 0)
    at = 104 + len(extensions) if name else 0
    head = b"QFI\xfb" + struct.pack(">IQI", 3, at, len(name)) + b"\0" * 52
    head += struct.pack(">QQQII", 4 if data else 0, 0, 0, 4, 104)
    return head + extensions + name


def put(path: Path, head: bytes = b"", at: int = 0, size: int = 1 << 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(head)
    return path


def found(folder: Path) -> dict[str, dict[str, object]]:
    said = survey.images(MOUNT, SOON)
    assert (said["complete"], said["why"]) == (True, "")
    start = f"{folder}/"
    return {i["path"][len(start) :]: i for i in said["images"] if i["path"].startswith(start)}


def test_what_is_an_image(folder: Path) -> None:
    put(folder / "named.img")
    put(folder / "Named.QCOW2")
    put(folder / "deep/er/magic", qcow2())
    put(folder / "disk", b"\x55\xaa", 510)
    put(folder / "part", b"\x53\xef", 1080)
    put(folder / "windows", b"vhdxfile")
    put(folder / "text.txt", b"hello")
    put(folder / "small.img", size=1000)
    put(folder / "cd.iso", b"CD001", 0x8001)
    put(folder / "cd.img", b"CD001", 0x8001)
    put(folder / "vmlinuz", b"\x55\xaaHdrS", 510).write_bytes(
        b"\0" * 510 + b"\x55\xaa" + b"\0" * 2 + b"HdrS" + b"\0" * (1 << 17)
    )
    put(folder / "own/definitions.img")
    (folder / "link.img").symlink_to("named.img")
    (folder / "again.img").hardlink_to(folder / "named.img")
    images = found(folder)
    assert {path: image["format"] for path, image in images.items()} == {
        "again.img": "raw",
        "Named.QCOW2": "qcow2",
        "deep/er/magic": "qcow2",
        "disk": "raw",
        "part": "raw",
        "windows": "vhdx",
    }
    assert images["disk"]["size"] == 1 << 20
    assert images["disk"]["ino"] == (folder / "disk").stat().st_ino


def test_what_an_image_reads_through(folder: Path) -> None:
    base, data = put(folder / "base"), put(folder / "data")
    link = folder / "link"
    link.symlink_to("base")
    written = {
        "relative": qcow2("base"),
        "absolute": qcow2(str(base)),
        "linked": qcow2("link"),
        "file": qcow2(f"file:{base}"),
        "json": qcow2("json:" + json.dumps({"driver": "raw", "file": {"filename": str(base)}})),
        "both": qcow2("base", "data"),
        "network": qcow2("nbd://host/export"),
        "gone": qcow2("nowhere"),
        "elsewhere": qcow2("/etc/hostname"),
        "odd": qcow2("json:{"),
    }
    for name, head in written.items():
        put(folder / name, head)
    needs = {name: image["needs"] for name, image in found(folder).items()}
    ino = base.stat().st_ino
    assert {name: needs[name] for name in written} == {
        **{name: [ino] for name in ("relative", "absolute", "linked", "file", "json")},
        "both": [ino, data.stat().st_ino],
        **{name: [] for name in ("network", "gone", "elsewhere", "odd")},
    }


def test_bounds_are_kept_and_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder / "a/b/c/x.img")
    monkeypatch.setattr(survey, "DEPTH", 2)
    assert survey.images(MOUNT, SOON)["why"] == "folders are nested deeper than 2"
    monkeypatch.setattr(survey, "MOST", 1)
    assert survey.images(MOUNT, SOON)["why"] == "there are more than 1 files"
    said = survey.images(MOUNT, 0.0)
    assert (said["complete"], said["why"]) == (False, "the store answers too slowly")


def test_reading_leaves_the_time_of_access_alone(folder: Path) -> None:
    image = put(folder / "x.img")
    os.utime(image, (1000, 1000))
    found(folder)
    assert image.stat().st_atime == 1000


@given(st.binary(max_size=300), st.integers(0, 200))
def test_any_header_is_understood_somehow(rest: bytes, cut: int) -> None:
    head = (qcow2("b", "d")[:cut] + rest) if cut % 2 else b"QFI\xfb" + rest
    assert all(isinstance(name, str) for name in survey.needed(head))
    assert isinstance(survey.kind_of("x", head), str)


def test_locks_that_are_held(folder: Path) -> None:
    assert survey.held(MOUNT, ["locks/a", "locks/b"], SOON) == {}
    storelocks.lock(MOUNT, "locks/a", "ada", SOON)
    try:
        assert survey.held(MOUNT, ["locks/a", "locks/b"], SOON) == {"locks/a": "ada"}
        assert [p.name for p in (folder / "own/locks").iterdir()] == ["a"]
    finally:
        storelocks.unlock(MOUNT, "locks/a")
    assert survey.held(MOUNT, ["locks/a"], SOON) == {}
    storelocks.lock(MOUNT, "locks/a", "bob", SOON)
    storelocks.unlock(MOUNT, "locks/a")


def test_nothing_is_looked_for_where_nothing_is_mounted(tmp_path: Path) -> None:
    for ask in (
        lambda: survey.images(str(tmp_path), SOON),
        lambda: survey.held(str(tmp_path), ["locks/a"], SOON),
    ):
        with pytest.raises(Problem, match="is not mounted"):
            ask()
