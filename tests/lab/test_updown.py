"""Up and down: idempotent, after any crash, and without a trace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.lab import namespaces
from tasks.lab.lab import PROJECT, Lab

CACHE = PROJECT / ".lab/cache"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path / "my lab", cache=CACHE)
    try:
        yield made
    finally:
        made.down()


def traces(root: Path) -> list[str]:
    """Return what of a lab this machine still has: marked processes, mounts, interfaces, files."""
    found = []
    for pid in namespaces.pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(root) in environment and pid != os.getpid():
            found.append(f"process {pid}")
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    found += [line for line in mounts.splitlines() if str(root).replace(" ", "\\040") in line]
    return found + [str(path) for path in root.glob("**/*")]


def machine() -> tuple[str, str, set[str]]:
    """Return the machine's mounts, interfaces and top folders; unit tests beside this one may make sshd's."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    folders = {str(path) for path in [*Path("/").iterdir(), *Path("/run").iterdir()]}
    return mounts, links, folders | {"/run/sshd"}


def test_up_twice_then_down_twice_without_a_trace(small: Lab) -> None:
    before = machine()
    small.up(hosts=2, vms=1)
    processes = {leader.pid for leader in small.leaders().values()}
    assert machine() == before
    small.up(hosts=2, vms=1)
    assert {leader.pid for leader in small.leaders().values()} == processes
    assert [host.running for host in small.status()] == [("web",), ()]
    small.up(hosts=3, vms=1)
    assert small.hosts == ["vmhost1", "vmhost2", "vmhost3"]
    done = small.run_on_laptop(
        ["ssh", "-F", str(small.root / "ssh_config"), "vmhost1", "ssh vmhost3 hostname"]
    )
    assert done.stdout == "vmhost3\n", done.stderr
    members = set(namespaces.members(small.anchor))
    small.down()
    assert traces(small.root) == []
    assert not small.root.exists()
    assert not members & set(namespaces.pids())
    assert machine() == before
    small.down()
    assert small.status() == []


def coming_up(lab: Lab) -> subprocess.Popen[bytes]:
    """Bring a lab up in a process of its own."""
    code = (
        "import sys; from pathlib import Path; from tasks.lab.lab import Lab;"
        " Lab(Path(sys.argv[1]), Path(sys.argv[2])).up(2, 2)"
    )
    return subprocess.Popen([sys.executable, "-c", code, lab.root, lab.cache], cwd=PROJECT)


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.5, 3.0])
def test_up_killed_in_the_middle_can_be_repeated(small: Lab, seconds: float) -> None:
    with coming_up(small) as process:
        time.sleep(seconds)
        process.kill()
    small.up(hosts=2, vms=2)
    assert sorted(name for host in small.status() for name in host.running) == ["db", "web"]


def test_down_in_the_middle_of_up_leaves_nothing(small: Lab) -> None:
    with coming_up(small) as process:
        time.sleep(0.8)
        process.kill()
    small.down()
    assert traces(small.root) == []


def test_after_a_reboot_of_the_machine_up_starts_from_nothing(small: Lab) -> None:
    small.up(hosts=1, vms=1)
    os.kill(small.anchor.pid, signal.SIGKILL)  # all processes gone, all files still there
    namespaces.until(lambda: not small.leaders(), 10, "the end")
    small.up(hosts=1, vms=1)
    assert small.status()[0].running == ("web",)


def test_two_labs_live_side_by_side(small: Lab, clean_lab: Lab) -> None:
    small.up(hosts=1, vms=1)
    assert clean_lab.running("vmhost1") == []
    assert small.running("vmhost1") == ["web"]
    small.down()
    assert clean_lab.status()[0].on


def test_a_process_that_only_carries_the_marks_is_left_alone(small: Lab) -> None:
    environment = {**os.environ, **namespaces.marks(small.root, "anchor")}
    with subprocess.Popen(["sleep", "600"], env=environment) as stranger:
        try:
            small.up(hosts=1, vms=0)
            small.down()
            assert stranger.poll() is None
        finally:
            stranger.kill()
