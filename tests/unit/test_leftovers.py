"""A run of tests that is cut short ends what it has begun (tests/conftest.py, tests/leftovers.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from tasks.lab.namespaces import until
from tests import leftovers

ROOT = Path(__file__).parents[2]

BEGINS_SOMETHING = """
import os, pathlib, subprocess, time

def test_long():
    subprocess.Popen(["sh", "-c", "sleep 600; : {name}"], start_new_session=True)
    pathlib.Path("begun").touch()
    {then}
"""

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def name() -> str:
    """A word that only what this test has begun bears."""
    return f"left-{uuid4()}"


@pytest.fixture
def run(tmp_path: Path, name: str) -> Run:
    """Begin a run of one test that begins something, and wait until it has."""

    def begin(then: str, *words: str) -> subprocess.Popen[str]:
        (tmp_path / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text(encoding="utf-8"))
        (tmp_path / "test_it.py").write_text(BEGINS_SOMETHING.format(name=name, then=then))
        env = {
            key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", leftovers.MARK))
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words],
            cwd=tmp_path,
            env=env | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        until((tmp_path / "begun").exists, 60, "the test to begin")
        return process

    return begin


def is_there(name: str) -> bool:
    return subprocess.run(["pgrep", "-f", name], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGINT, ()), (signal.SIGHUP, ()), (signal.SIGINT, ("-n", "2")), (signal.SIGTERM, ("-n", "2"))],
)
def test_signals(run: Run, name: str, number: signal.Signals, words: tuple[str, ...]) -> None:
    process = run("time.sleep(600)", *words)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == (2 if number is signal.SIGINT else 128 + number), said
    assert "Ended what the tests had left behind:" in said
    assert name in said
    assert not is_there(name)


def test_a_process_of_pytest_that_dies(run: Run, name: str) -> None:
    process = run("os._exit(1)", "-n", "2")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "crashed" in said
    assert name in said
    assert not is_there(name)


def test_what_others_have_begun_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"], env={**os.environ, leftovers.MARK: "others"}) as stranger:
        assert leftovers.end("mine", tmp_path) == []
        assert stranger.poll() is None
        stranger.kill()
