"""Files of the host, read and replaced by the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.onhost import hostfiles
from tasks.onhost.problem import Problem


def kind(path: Path, expected: str | None) -> str:
    with pytest.raises(Problem) as caught:
        hostfiles.write(str(path), "new", 0o644, expected)
    return caught.value.kind


def test_a_file_is_made_replaced_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file"
    assert hostfiles.read(str(path)) == {"text": None, "mode": None}
    hostfiles.write(str(path), "grün\n", 0o755, None)
    assert hostfiles.read(str(path)) == {"text": "grün\n", "mode": 0o755}
    hostfiles.write(str(path), "blau\n", 0o644, hostfiles.digest("grün\n"))
    assert hostfiles.read(str(path)) == {"text": "blau\n", "mode": 0o644}
    old = path.with_name("file.vmfab-old")
    assert (old.read_text(), old.stat().st_mode & 0o777) == ("grün\n", 0o600)
    hostfiles.write(str(path), "blau\n", 0o600, hostfiles.digest("blau\n"))
    assert (old.read_text(), path.stat().st_mode & 0o777) == ("grün\n", 0o600)
    hostfiles.remove(str(path), hostfiles.digest("blau\n"))
    assert list(path.parent.iterdir()) == []


def test_what_has_changed_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert kind(path, hostfiles.digest("old")) == "changed"
    path.write_text("somebody's")
    assert kind(path, None) == "changed"
    assert kind(path, hostfiles.digest("old")) == "changed"
    with pytest.raises(Problem):
        hostfiles.remove(str(path), hostfiles.digest("old"))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert path.read_text() == "somebody's"


def test_any_bytes_survive(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xff\r\n\0")
    text = hostfiles.read(str(path))["text"]
    hostfiles.write(str(path), text, 0o600, hostfiles.digest(text))
    assert path.read_bytes() == b"\xff\r\n\0"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="is no file"):
        hostfiles.read(str(tmp_path))
