"""The host's own files: read as they are, replaced in one step, never over somebody else's change."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from tasks.onhost import files
from tasks.onhost.problem import Problem


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "KEPT", str(tmp_path / "kept"))
    return tmp_path / "kept"


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_nothing_is_told_apart_from_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read(str(path)) == {"text": None, "mode": None, "sha256": None}
    assert files.read(str(path / "below")) == {"text": None, "mode": None, "sha256": None}
    path.touch(mode=0o600)
    assert files.read(str(path)) == {"text": "", "mode": 0o600, "sha256": digest(b"")}


def test_any_bytes_survive(tmp_path: Path) -> None:
    data = bytes(range(256)) + "grün\r\n".encode()
    (tmp_path / "one").write_bytes(data)
    found = files.read(str(tmp_path / "one"))
    assert found["sha256"] == digest(data)
    files.write(str(tmp_path / "two"), found["text"], 0o644, None)
    assert (tmp_path / "two").read_bytes() == data


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o440])
def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o027)
    try:
        files.write(str(tmp_path / "file"), "x", mode, None)
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o7777 == mode


def test_the_old_one_is_kept_and_private(tmp_path: Path, kept: Path) -> None:
    path = tmp_path / "folder/file"
    assert files.write(str(path), "one", 0o755, None) is None
    where = [files.write(str(path), new, 0o755, digest(old)) for old, new in ((b"one", "two"), (b"two", "3"))]
    assert [Path(w or "").read_text() for w in where] == ["one", "two"]
    assert all((w or "").startswith(f"{kept}{path}.") for w in where)
    assert {Path(w or "").stat().st_mode & 0o777 for w in where} == {0o600}
    assert kept.stat().st_mode & 0o777 == 0o700
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("expect", [None, digest(b"what was read")])
def test_what_somebody_else_wrote_meanwhile_stays(tmp_path: Path, kept: Path, expect: str | None) -> None:
    path = tmp_path / "file"
    path.write_text("theirs")
    with pytest.raises(Problem, match="changed by somebody else") as problem:
        files.write(str(path), "mine", 0o644, expect)
    assert problem.value.kind == "file"
    assert path.read_text() == "theirs"
    assert not kept.exists()


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("theirs")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        for use in (files.read, lambda path: files.write(path, "mine", 0o644, None)):
            with pytest.raises(Problem) as problem:
                use(str(tmp_path / name))
            assert problem.value.kind == "file"
    assert (tmp_path / "target").read_text() == "theirs"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Problem, match="No space left"):
        files.write(str(path), "new", 0o644, digest(b"old"))
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]
