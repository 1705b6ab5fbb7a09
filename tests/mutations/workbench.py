"""A copy of the project in which things are broken, and in which the tests are run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.mutations.breakage import Breakage, NotApplicable

PROJECT = Path(__file__).resolve().parents[2]
#: What no test reads, and what is too big to be copied.
LEFT_OUT = (".git", ".venv", ".venvs", ".lab", ".vmfab", ".hypothesis", "__pycache__", ".*_cache")
#: Seconds for one test: a breakage may make it wait for ever.
PATIENCE = 60
PYTEST = (
    *("-m", "pytest", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"),
    *("-o", f"timeout={PATIENCE}"),
)
NOTICED, PASSED = 1, 0  # pytest's exit codes; any other means that no tests were run as asked


@dataclass(frozen=True)
class Verdict:
    """What became of a breakage. `caught_by` is empty when it survived; `problem` when it could be tried."""

    breakage: Breakage
    seconds: float
    caught_by: str = ""
    problem: str = ""


class Workbench:
    """The copy, in a folder that may be thrown away."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "vmfab"
        shutil.copytree(PROJECT, self.root, symlinks=True, ignore=shutil.ignore_patterns(*LEFT_OUT))

    def judge(self, breakage: Breakage) -> Verdict:
        """Break it, see which test fails, mend it, and see that the test passes then."""
        begin = time.monotonic()
        caught, problem = "", ""
        try:
            caught = self._first_failed(breakage)
        except (NotApplicable, SyntaxError) as error:
            problem = f"no longer fits the source: {error}"
        except RuntimeError as error:
            problem = str(error)
        if caught and self._run((caught,)).returncode != PASSED:
            caught, problem = "", f"fails without the breakage, too: {caught}"
        return Verdict(breakage, time.monotonic() - begin, caught, problem)

    def _first_failed(self, breakage: Breakage) -> str:
        path = self.root / breakage.file
        whole = path.read_bytes()
        path.write_text(breakage.broken(self.root), encoding="utf-8")
        try:
            done = self._run(breakage.tests)
        finally:
            path.write_bytes(whole)
        if done.returncode == PASSED:
            return ""
        failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED ")]
        if done.returncode != NOTICED or not failed:
            raise RuntimeError(f"the tests could not be run:\n{done.stdout}{done.stderr}")
        return failed[0].removeprefix("FAILED ").partition(" - ")[0]

    def _run(self, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        # Without bytecode: what is broken and mended within a second would not be compiled again.
        more = {"PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "500", "CI": "1", "NO_COLOR": "1"}
        return subprocess.run(
            [sys.executable, *PYTEST, *tests],
            cwd=self.root,
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
