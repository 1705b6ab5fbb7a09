"""Practice machines for a story: one set, and tests that build on each other in the order of the file.

machines   two bare hosts and their storage machine, for one file of tests
fab        vmfab's command line on their laptop
guests     VMs on them

A test whose predecessor in the same file has failed fails at once: what it would build on is not there.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tasks.lab import namespaces, packages
from tasks.lab.lab import PROJECT
from tasks.lab.machines.machines import Machines
from tests.lab.fab import Fab
from tests.machines.guests import Guests, assemble

HERE = Path(__file__).parent
#: Seconds for one test: the first one makes the machines' image, where there is none yet.
PATIENCE = 1800
#: The test that failed first, by file.
_broken = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.timeout(PATIENCE))
        item.add_marker(pytest.mark.xdist_group("machines"))  # by one process, in their order


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.session.stash.setdefault(_broken, {}).setdefault(str(item.path), item.name)
    return report


@pytest.fixture(autouse=True)
def predecessor(request: pytest.FixtureRequest) -> None:
    broken = request.session.stash.get(_broken, {}).get(str(request.path))
    if broken:
        pytest.fail(f"{broken} has failed, on which this builds", pytrace=False)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    packages.require(packages.MACHINES)
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended from outside", returncode=143))
    made = Machines(tmp_path_factory.mktemp("machines"), cache=PROJECT / ".lab/cache")
    try:
        made.up(hosts=2, say=print)
        yield made
    finally:
        made.down()
    assert not made.root.exists()
    assert processes_of(made.root) == []


def processes_of(root: Path) -> list[str]:
    """The command lines of all processes that have to do with a folder."""
    found = []
    for pid in namespaces.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(root) in words or str(root) in str(Path(f"/proc/{pid}/cwd").readlink()):
                found.append(words)
    return found


@pytest.fixture(scope="module")
def fab(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fab]:
    operator = Fab(machines, tmp_path_factory.mktemp("home"))
    try:
        yield operator
    finally:
        operator.end_all()


@pytest.fixture(scope="module")
def guests(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Guests:
    scratch = tmp_path_factory.mktemp("guests")
    return Guests(machines, assemble(scratch), scratch)
