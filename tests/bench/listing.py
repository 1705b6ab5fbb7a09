"""Measure `fab --list` against the same on an empty fabfile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.result import BenchError, Row, times_as_long
from tests.bench.workbench import FAB


def measure(root: Path, repetitions: int) -> list[Row]:
    """Time both in turn, after a first round that does not count."""
    root.mkdir()
    (root / "fabfile.py").touch()
    empty = [str(Path(sys.executable).with_name("fab")), "--search-root", str(root), "--list"]
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(repetitions + 1):
        # Invoke ends with 1 when there is no task to list.
        took = (_time([str(FAB), "--list"], 0), _time(empty, 1))
        if number:
            ours.append(took[0])
            theirs.append(took[1])
    return [times_as_long("./fab --list", ours, theirs, "fab --list, empty fabfile", 1.5)]


def _time(words: Sequence[str], expected: int) -> float:
    begin = time.monotonic()
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    took = time.monotonic() - begin
    if done.returncode != expected:
        raise BenchError(f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return took
