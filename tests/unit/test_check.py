"""What `fab test` picks, and that its checks find what they are there for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks import check


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    for name in (
        "bench/test_b.py",
        "hosts/test_h.py",
        "lab/test_l.py",
        "machines/test_m.py",
        "unit/deep/test_u.py",
        "contract/test_c.py",
        "sim/clock.py",
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "conftest.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("slow", "chosen"),
    [
        ([], ["contract", "unit"]),
        (["lab"], ["contract", "unit", "lab"]),
        (["machines", "lab"], ["machines", "contract", "unit", "lab"]),
    ],
)
def test_machines_come_first_and_cells_last_or_not_at_all(
    tests: Path, slow: list[str], chosen: list[str]
) -> None:
    assert [path.name for path in check.folders_of_tests(tests, slow)] == chosen


@pytest.mark.parametrize(
    ("processors", "gibibytes", "expected"),
    [(1, 64, 1), (2, 8, 2), (2, 4, 1), (8, 7, 2), (64, 512, 4), (2, 1, 1)],
)
def test_as_many_processes_as_the_machine_can_take(
    monkeypatch: pytest.MonkeyPatch, processors: int, gibibytes: int, expected: int
) -> None:
    machine = {"SC_PHYS_PAGES": gibibytes << 18, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(check.os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(check.os, "sysconf", machine.__getitem__)
    assert check.workers(0) == expected
    assert check.workers(3 << 30) == max(1, min(expected, (gibibytes - 3) // 3))
    assert check.at_once(expected)[:2] == (["-n", str(expected)] if expected > 1 else [])


def test_shell_scripts_are_found_by_their_first_line() -> None:
    scripts = check.shell_scripts()
    assert {check.ROOT / "fab", check.ROOT / ".ci/run", check.ROOT / ".ci/lock"} <= set(scripts)
    assert not any(path.suffix == ".py" for path in scripts)


@pytest.mark.parametrize(
    ("first_line", "shell"),
    [
        ("#!/bin/sh\n", True),
        ("#!/usr/bin/env bash\n", True),
        ("#!/bin/sh", True),
        ("#!/usr/bin/env python3\n", False),
        ("#!/usr/bin/fish\n", False),
        ("echo /bin/sh\n", False),
        ("", False),
    ],
)
def test_first_line_tells_a_shell(tmp_path: Path, first_line: str, shell: bool) -> None:
    (tmp_path / "script").write_text(first_line)
    assert check.is_shell(tmp_path / "script") is shell


@pytest.mark.parametrize(("folder", "found"), [("tasks/onhost", True), ("tasks", False)])
def test_syntax_too_new_for_a_host_is_found(folder: str, found: bool) -> None:
    lint = subprocess.run(
        [check.BIN / "ruff", "check", "--stdin-filename", f"{folder}/planted.py", "-"],
        cwd=check.ROOT,
        input="match None:\n    case _:\n        pass\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("Cannot use `match` statement on Python 3.8" in lint.stdout) is found
    assert (lint.returncode != 0) is found


def test_library_too_new_for_a_host_is_found(tmp_path: Path) -> None:
    command = dict(check.static_checks())["vermin"]
    (tmp_path / "planted.py").write_text("import functools\n\nkept = functools.cache(len)\n")
    assert subprocess.run([*command[:-1], tmp_path], capture_output=True, check=False).returncode == 1
    (tmp_path / "planted.py").write_text("import functools\n\nkept = functools.lru_cache(None)(len)\n")
    assert subprocess.run([*command[:-1], tmp_path], capture_output=True, check=False).returncode == 0
