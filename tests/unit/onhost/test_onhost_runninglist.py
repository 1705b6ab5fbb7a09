"""/root/running_vms, as found and as edited."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tasks.onhost import runninglist
from tasks.onhost.problem import Problem


def test_no_file_is_not_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "running_vms"
    assert runninglist.read(str(path)) is None
    path.touch()
    assert runninglist.read(str(path)) == []


def test_reading_is_tolerant(tmp_path: Path) -> None:
    path = tmp_path / "running_vms"
    path.write_bytes("web\r\n\n  \ngrün ü\r\n-dash\nlast".encode())
    assert runninglist.read(str(path)) == ["web", "grün ü", "-dash", "last"]


def test_editing_leaves_the_other_lines_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "running_vms"
    path.write_bytes(b"web\r\n\nold\n\xff\xfe\nlast")
    before, after = runninglist.note(str(path), ["new", "web", "new"], ["old", "unknown"])
    assert path.read_bytes() == b"web\r\n\n\xff\xfe\nlast\nnew\n"
    assert before is not None
    assert before[1] == "old"
    assert after == ["web", b"\xff\xfe".decode(errors="surrogateescape"), "last", "new"]


def test_a_missing_file_is_made_and_private(tmp_path: Path) -> None:
    path = tmp_path / "running_vms"
    assert runninglist.note(str(path), [], []) == (None, [])
    assert runninglist.write(str(path), ["a b", "ü"]) == ([], ["a b", "ü"])
    assert path.read_text(encoding="utf-8") == "a b\nü\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["running_vms"]


@pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
def test_what_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(Problem):
        runninglist.note(str(tmp_path / "running_vms"), [name], [])


def test_edits_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "running_vms")
    names = [f"vm{i}" for i in range(20)]
    threads = [threading.Thread(target=runninglist.note, args=(path, [name], [])) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runninglist.read(path) or []) == sorted(names)
