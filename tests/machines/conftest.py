"""Practice machines for a story: one set for all files, which build on each other in their order.

machines   two hosts and their storage machine, bare in the beginning
fab        vmfab's command line on their laptop
members    the same machines, set up by one command; the storage machine wants a password
guests     VMs on them

The files come in the order of their names: test_bare, test_bridge, test_setup, test_storage, test_story. Each
can also be run alone. A test whose predecessor in the same file has failed fails at once: what it would build
on is not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.lab import namespaces, packages
from tasks.lab.lab import PROJECT
from tasks.lab.machines import belongings
from tasks.lab.machines.machines import Machines
from tests.lab.fab import Done, Fab
from tests.machines.guests import Guests, assemble
from tests.machines.processes import command_lines

HERE = Path(__file__).parent
ONE, TWO = "vmhost1", "vmhost2"
BOTH = f"{ONE},{TWO}"
#: Of which release the machines are, if not of this computer's.
RELEASE = os.environ.get("VMFAB_RELEASE", "")
#: The account at the storage machine.
USER, SECRET = "vmhosts", "Sesam-0pen.x9"
#: Seconds for one test: the first one makes the machines' image, where there is none yet.
PATIENCE = 1800
#: Seconds in which any command ends, on machines that are emulated beside other work.
COMMAND = 900.0
#: The test that failed first, by file.
_broken = pytest.StashKey[dict[str, str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.timeout(PATIENCE))


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


@pytest.fixture(scope="package")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    packages.require(packages.MACHINES)
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("ended from outside", returncode=143))
    made = Machines(tmp_path_factory.mktemp("machines"), cache=PROJECT / ".lab/cache")
    try:
        made.up(hosts=2, release=RELEASE, say=print)
        yield made
    finally:
        made.down()
    assert not made.root.exists()
    assert processes_of(made.root) == []


def want_password(machines: Machines) -> None:
    """Let the storage machine ask for a password, and write the account into the inventory."""
    machines.require_chap(USER, SECRET)
    secret = machines.root / "store.chap"
    secret.touch(mode=0o600)
    secret.write_text(f"{SECRET}\n", encoding="ascii")
    inventory = machines.root / "hosts.ini"
    account = f"vmfab_chap_user={USER} vmfab_chap_secret_file={secret}"
    text = inventory.read_text(encoding="utf-8")
    # Each slot is a journal, which takes long to format where the disk's machine is emulated, too.
    text = text.replace(f"vmfab_slots={belongings.SLOTS}\n", "vmfab_slots=2\n")
    inventory.write_text(re.sub(r"(?m)^vmstorage .*", rf"\g<0> {account}", text), encoding="utf-8")


def processes_of(root: Path) -> list[str]:
    """The command lines of all processes that have to do with a folder."""
    found = []
    for pid in namespaces.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(root) in words or str(root) in str(Path(f"/proc/{pid}/cwd").readlink()):
                found.append(words)
    return found


@pytest.fixture(scope="package")
def fab(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fab]:
    with Fab(machines, tmp_path_factory.mktemp("home"), seconds=COMMAND) as operator:
        yield operator


@dataclass(frozen=True)
class SetUp:
    """How both hosts were set up, and what stood in the first one's process list when it had its packages."""

    done: Done
    seen: str


@pytest.fixture(scope="package")
def members(machines: Machines, fab: Fab) -> SetUp:
    want_password(machines)
    running = fab.begin("-H", BOTH, "host.setup", "--format", "--confirm", "vmstorage,datengrab", "--yes")
    running.await_words(f"{ONE}: packages is set up", COMMAND)
    with command_lines(machines, ONE) as seen:
        running.await_words(f"{ONE}: iscsi is set up", COMMAND)
    return SetUp(running.done(COMMAND), "".join(seen))


@pytest.fixture(scope="package")
def guests(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Guests:
    scratch = tmp_path_factory.mktemp("guests")
    return Guests(machines, assemble(scratch), scratch)
