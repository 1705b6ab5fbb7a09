"""Definitions mirrored to the store."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.onhost import mirror

UUID = "11111111-2222-3333-4444-555555555555"


def xml(memory: int = 1, name: str = "web") -> str:
    return (
        f"<domain type='kvm'>\n<name>{name}</name><uuid>{UUID}</uuid>\n  <memory>{memory}</memory></domain>"
    )


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "web.xml"
    path.write_text(f"<!--\nWARNING\n-->\n{xml()}\n")
    return path


def record(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / f"definitions/{UUID}.json").read_text())
    return found


def memories(tmp_path: Path) -> list[str]:
    return [v["xml"].partition("<memory>")[2].partition("<")[0] for v in record(tmp_path)["versions"]]


def own(tmp_path: Path, host: str) -> None:
    (tmp_path / "owners").mkdir(exist_ok=True)
    (tmp_path / "owners/x.json").write_text(json.dumps({"host": host, "uuid": UUID}))


def test_the_last_three_versions_are_kept_newest_first(tmp_path: Path, top: int) -> None:
    for memory in (1, 2, 2, 3, 4):
        mirror.mirror_version(top, "a", UUID, "web", xml(memory), at=time.time())
    assert memories(tmp_path) == ["4", "3", "2"]
    found = record(tmp_path)
    assert (found["uuid"], found["name"], found["undefined"]) == (UUID, "web", {})
    assert {v["host"] for v in found["versions"]} == {"a"}
    path = tmp_path / f"definitions/{UUID}.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "definitions").iterdir()) == [path]


def test_another_spelling_is_no_new_version(tmp_path: Path, top: int) -> None:
    mirror.mirror_version(top, "a", UUID, "web", xml(), at=time.time())
    before = record(tmp_path)
    mirror.mirror_version(
        top, "b", UUID, "web", xml().replace("'kvm'", '"kvm"').replace("\n  ", ""), at=time.time()
    )
    assert record(tmp_path) == before


def test_a_file_of_libvirts_is_taken_without_its_warning(tmp_path: Path, top: int, file: Path) -> None:
    assert mirror.mirror_defined(top, "a", str(file)) == UUID
    assert record(tmp_path)["versions"][0]["xml"].startswith("<domain")
    assert mirror.mirror_defined(top, "a", str(tmp_path / "none.xml")) == ""
    file.write_text("<network><name>x</name></network>")
    assert mirror.mirror_defined(top, "a", str(file)) == ""
    file.write_text("half <dom")
    assert mirror.mirror_defined(top, "a", str(file)) == ""


def test_what_runs_elsewhere_is_not_displaced(tmp_path: Path, top: int, file: Path) -> None:
    mirror.mirror_version(top, "b", UUID, "web", xml(7), at=time.time())
    own(tmp_path, "b")
    mirror.mirror_defined(top, "a", str(file))
    assert memories(tmp_path) == ["7"]
    # But what is being started is what counts from then on.
    mirror.mirror_defined(top, "a", str(file), starting=True)
    assert memories(tmp_path) == ["1", "7"]
    own(tmp_path, "a")
    file.write_text(xml(8))
    mirror.mirror_defined(top, "a", str(file))
    assert memories(tmp_path) == ["8", "1", "7"]


def test_an_old_file_does_not_displace_a_newer_version(tmp_path: Path, top: int, file: Path) -> None:
    mirror.mirror_version(top, "b", UUID, "web", xml(7), at=time.time())
    os.utime(file, (1_000_000_000, 1_000_000_000))
    mirror.mirror_defined(top, "a", str(file))
    assert memories(tmp_path) == ["7"]
    os.utime(file, (4_000_000_000, 4_000_000_000))
    mirror.mirror_defined(top, "a", str(file))
    assert memories(tmp_path) == ["1", "7"]


def test_undefined_is_noted_and_taken_back(tmp_path: Path, top: int, file: Path) -> None:
    mirror.mirror_undefined(top, "a", UUID)
    assert not (tmp_path / f"definitions/{UUID}.json").exists()
    mirror.mirror_defined(top, "a", str(file))
    assert mirror.mirrored_by(top, "a") == {UUID}
    mirror.mirror_undefined(top, "a", UUID)
    mirror.mirror_undefined(top, "b", UUID)
    assert set(record(tmp_path)["undefined"]) == {"a", "b"}
    assert memories(tmp_path) == ["1"]
    assert mirror.mirrored_by(top, "a") == set()
    mirror.mirror_defined(top, "a", str(file), starting=True)
    assert set(record(tmp_path)["undefined"]) == {"b"}
    assert memories(tmp_path) == ["1"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"versions": []}', '{"versions": [{"at": 1}]}', "nonsense"]
)
def test_a_broken_mirror_is_written_anew(tmp_path: Path, top: int, text: str) -> None:
    (tmp_path / "definitions").mkdir()
    (tmp_path / f"definitions/{UUID}.json").write_text(text)
    mirror.mirror_undefined(top, "a", UUID)
    mirror.mirror_version(top, "a", UUID, "web", xml(), at=time.time())
    assert memories(tmp_path) == ["1"]


def test_many_at_once_lose_nothing(tmp_path: Path, top: int) -> None:
    def work(host: str) -> None:
        mirror.mirror_version(top, host, UUID, "web", xml(int(host)), at=time.time())
        mirror.mirror_undefined(top, host, UUID)

    threads = [threading.Thread(target=work, args=(str(n),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(record(tmp_path)["undefined"]) == 12
    assert len(memories(tmp_path)) == 3
