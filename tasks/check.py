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

from invoke import Context, Exit, task

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
BIN = Path(sys.prefix) / "bin"

# Benchmarks are measured, never passed or failed.
NOT_TESTS = {"bench"}


@task
def test(c: Context, quick: bool = False) -> None:
    """Check vmfab itself: lint, types, scripts, tests.

    Installs what it needs first and says so: the development tools into .venv, and the practice cluster's
    Debian packages. --quick leaves out the tests on the practice cluster. Exit code 0 only if everything
    holds; with CI in the environment a skipped test counts as failed.
    """
    install_tools()
    if not quick:
        install_cluster_packages()
    failed = [name for name, command in static_checks() if not passes(name, command)]
    if failed:
        raise Exit(f"fab test: {', '.join(failed)} found something; the tests were not run", 1)
    run_tests(quick)


def say(line: str) -> None:
    """Print a line about what happens next, in order with the output of the programs that run."""
    print(f"fab test: {line}", flush=True)


def passes(name: str, command: Sequence[str | Path]) -> bool:
    """Run one program in the project's folder, and tell whether it was content."""
    say(name)
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode == 0


def install_tools() -> None:
    """Install the development part of the lock file into .venv, unless it is there.

    Raises Exit (2) when they cannot be installed: nothing was tested then.
    """
    installed_from = Path(sys.prefix) / "tools-made-from"
    with LOCK.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs at once would disturb each other's installer
        if installed_from.exists() and filecmp.cmp(LOCK, installed_from, shallow=False):
            return
        say("installing the development tools (ruff, mypy, shellcheck, pytest, ...) into .venv")
        for command in installers():
            if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
                raise Exit("fab test: the development tools could not be installed (see above)", 2)
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


def install_cluster_packages() -> None:
    """Install the Debian packages that the practice cluster needs, saying which."""
    from tasks.lab import packages

    missing = packages.missing()
    if missing:
        say(f"installing the Debian packages of the practice cluster: {' '.join(missing)}")
        packages.install(missing, yes=True)


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


def run_tests(quick: bool) -> None:
    """Become pytest: its last lines are ours, and so are its exit code and what a signal does to it."""
    folders = sorted(path for path in (ROOT / "tests").iterdir() if any(path.rglob("test_*.py")))
    last = ROOT / "tests" / "lab"  # minutes, against seconds for the others
    chosen = [path for path in folders if path.name not in NOT_TESTS and path != last]
    if not quick and last in folders:
        chosen.append(last)
    say(f"pytest {' '.join(path.relative_to(ROOT).as_posix() for path in chosen)}")
    os.chdir(ROOT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *map(str, chosen)])
