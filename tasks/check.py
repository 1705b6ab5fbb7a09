"""`fab test`: everything that must hold before a change of vmfab is handed on."""

from __future__ import annotations

import fcntl
import filecmp
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.cli import Operator, vmtask
from tasks.cluster.errors import Failed, Refused

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
BIN = Path(sys.prefix) / "bin"

# Bytes that the practice cluster of one process takes at most, and the machines; how many processes suffice.
CLUSTER_NEEDS = 3 << 30
MACHINES_NEED = 5 << 30
MOST_WORKERS = 4

# Benchmarks are measured, never passed or failed; hosts are looked at only when they are named (host.verify).
NOT_TESTS = {"bench", "hosts"}
# The slow ones. One process does those on machines, in their order, and so it begins with them; machines
# are gone when those on the practice cluster begin, at the end.
MACHINES, CELLS = "machines", "lab"


@vmtask(
    help={
        "quick": "Leave out the tests on the practice cluster and on practice machines.",
        "no_machines": "Leave out those on practice machines: bare servers that are set up.",
    }
)
def test(op: Operator, quick: bool = False, no_machines: bool = False) -> None:
    """Check vmfab itself: lint, types, scripts, tests.

    Installs what it needs first and says so: the development tools into .venv, and the Debian packages that
    the practice cluster and the practice machines need. --quick leaves out the tests on both; --no-machines
    only those on machines, which take long where KVM does not work. Exit code 0 only if everything holds;
    with CI in the environment a skipped test counts as failed.
    """
    slow = () if quick else (CELLS,) if no_machines else (MACHINES, CELLS)
    install_tools(op)
    if slow:
        install_cluster_packages(op, MACHINES in slow)
    failed = [name for name, command in static_checks() if not passes(op, name, command)]
    if failed:
        raise Failed(f"{', '.join(failed)} found something (see above); the tests were not run.")
    run_tests(op, folders_of_tests(ROOT / "tests", slow), workers(MACHINES_NEED if MACHINES in slow else 0))


def passes(op: Operator, name: str, command: Sequence[str | Path]) -> bool:
    """Run one program in the project's folder, and tell whether it was content."""
    op.say(f"== {name}", "bold")
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def install_tools(op: Operator) -> None:
    """Install the development part of the lock file into .venv, unless it is there.

    Raises Refused when they cannot be installed: nothing was tested then.
    """
    installed_from = Path(sys.prefix) / "tools-made-from"
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once would disturb each other's installer
        if installed_from.exists() and filecmp.cmp(LOCK, installed_from, shallow=False):
            return
        op.say("Installing the development tools (ruff, mypy, shellcheck, pytest, ...) into .venv.")
        for command in installers():
            if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
                raise Refused("The development tools could not be installed (see above).")
        shutil.copyfile(LOCK, installed_from)


def installers() -> Iterator[list[str]]:
    """Give the commands that install the whole lock file, with the installer that is there."""
    pinned = ["--require-hashes", "-r", str(LOCK)]
    uv = shutil.which("uv")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    if importlib.util.find_spec("pip"):
        yield [*pip, "install", *pinned]
    elif uv:
        yield [uv, "-q", "pip", "install", "--python", sys.executable, *pinned]
    else:
        # The environment was made by a uv that has gone since.
        yield [sys.executable, "-m", "ensurepip"]
        yield [*pip, "install", *pinned]


def install_cluster_packages(op: Operator, machines: bool) -> None:
    """Install the Debian packages that the practice cluster needs, unless they are there. Raises Failed."""
    from tasks.lab import packages
    from tasks.lab.problem import LabError

    try:
        packages.install(op.say, packages.MACHINES if machines else ())
    except LabError as error:
        raise Failed(error.message, error.hint) from None


def static_checks() -> Iterator[tuple[str, list[str | Path]]]:
    """Give the name and the command of each check that runs nothing of vmfab."""
    yield "ruff check", [BIN / "ruff", "check", "--quiet", "."]
    yield "ruff format", [BIN / "ruff", "format", "--quiet", "--diff", "."]
    yield "mypy", [BIN / "mypy"]
    # What runs on the hosts: ruff knows the syntax of Python 3.8, vermin its library.
    yield "vermin", [BIN / "vermin", "--quiet", "--target=3.8-", "--no-tips", "--violations", "tasks/onhost"]
    yield "shellcheck", [BIN / "shellcheck", *shell_scripts()]


def shell_scripts() -> list[Path]:
    """List the project's shell scripts, known by their first line."""
    files = [ROOT / "fab", *(ROOT / ".ci").iterdir()]
    for folder in ("tasks", "tests"):
        files += (path for path in (ROOT / folder).rglob("*") if path.suffix in {"", ".sh"})
    return sorted(path for path in files if path.is_file() and is_shell(path))


def is_shell(path: Path) -> bool:
    """Tell whether the file's first line names a shell."""
    with path.open("rb") as script:
        return re.match(rb"#!.*\b(sh|bash|dash)\s*$", script.readline()) is not None


def folders_of_tests(tests: Path, slow: Sequence[str]) -> list[Path]:
    """List the folders with tests in their order: of the slow ones, machines come first and cells last."""
    folders = sorted(path for path in tests.iterdir() if any(path.rglob("test_*.py")))
    chosen = [path for path in folders if path.name not in (*NOT_TESTS, MACHINES, CELLS)]
    first, last = ([tests / name] if name in slow else [] for name in (MACHINES, CELLS))
    return [*first, *chosen, *last]


def run_tests(op: Operator, folders: Sequence[Path], processes: int) -> None:
    """Become pytest: its last lines are ours, and so are its exit code and what a signal does to it."""
    words = [*at_once(processes), *(str(path.relative_to(ROOT)) for path in folders)]
    op.say(f"== pytest {' '.join(words)}", "bold")
    os.chdir(ROOT)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *words])


def workers(taken: int) -> int:
    """How many tests may run at once beside `taken` bytes, each perhaps on a practice cluster of its own."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - taken
    return max(1, min(len(os.sched_getaffinity(0)), memory // CLUSTER_NEEDS, MOST_WORKERS))


def at_once(number: int) -> list[str]:
    """Give pytest's words for so many processes, which take the tests from one queue in their order."""
    return ["-n", str(number), "--no-loadscope-reorder"] if number > 1 else []
