"""The acceptance test: the demo as a person runs it, from beginning to end, and when it is cut short."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.lab.lab import PROJECT, Lab
from tests.lab.test_updown import machine, traces

EMPTIED = {"web", "db", "legacy", "mail"}
OTHERS = {"wiki", "git", "ldap", "backup"}


class Stage:
    """A place of its own for a demo, beside any other of this machine."""

    def __init__(self, folder: Path) -> None:
        (folder / "lab").mkdir()
        # The guests' kernel is downloaded once for all tests.
        (folder / "lab/cache").symlink_to(PROJECT / ".lab/cache")
        self.folder = folder
        self.lab = Lab(folder / "lab-demo")
        self.logs = folder / "lab-demo-logs"

    def demo(self) -> subprocess.Popen[str]:
        """Start the demo in a process group of its own, as a shell does."""
        return subprocess.Popen(
            [PROJECT / "fab", "demo", "--yes"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            env={**os.environ, "VMFAB_LAB": str(self.folder / "lab")},
            start_new_session=True,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    (PROJECT / ".lab/cache").mkdir(parents=True, exist_ok=True)
    made = Stage(tmp_path)
    try:
        yield made
    finally:
        made.lab.down()


def read_until(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"the demo ended with {process.wait()} and never said {words!r}")


def rows(text: str, pattern: str) -> dict[str, tuple[str, ...]]:
    """Give the fields of the lines that match, by the first one."""
    return {found[0]: found[1:] for found in re.findall(pattern, text, re.MULTILINE)}


@pytest.mark.timeout(900)
def test_the_demo_proves_what_it_shows_and_leaves_nothing(stage: Stage) -> None:
    before = machine()
    with stage.demo() as killed:
        read_until(killed, "Starting 8 VMs")
        killed.kill()
    assert stage.lab.leaders()  # what the next one has to cope with

    with stage.demo() as process:
        shown, _ = process.communicate(timeout=800)
    assert process.returncode == 0, shown
    assert stage.lab.leaders() == {}
    assert traces(stage.lab.root) == []
    assert sorted(path.name for path in stage.folder.iterdir()) == ["lab"]
    assert machine() == before

    commands = [
        "status",
        "-H vmhost1 drain --timeout 15 --yes",
        "status",
        "-H vmhost1 undrain --timeout 15 --yes",
    ]
    assert re.findall(r"^\$ \S*/fab --lab (.*)", shown, re.MULTILINE) == commands
    looks = re.split(r"\$ \S*/fab --lab status\n", shown)
    for look, empty in zip(looks[1:], (False, True), strict=True):
        hosts = rows(look, r"^(vmhost\d) +(ok|cordoned) +(\d+) ")
        assert len(hosts) == 4
        assert hosts["vmhost1"] == (("cordoned", "0") if empty else ("ok", "4"))
        assert sum(int(count) for _, count in hosts.values()) == 8

    away = rows(looks[2], r"^(\w+) +vmhost1 +(vmhost[234]) +(shutdown|destroyed) +([\d.]+) s +([\d.]+) s$")
    back = rows(looks[2], r"^(\w+) +(vmhost[234]) +vmhost1 +(shutdown|destroyed) +([\d.]+) s +([\d.]+) s$")
    assert away.keys() == back.keys() == EMPTIED
    for moved in (away, back):
        assert moved["legacy"][1] == "destroyed"
        assert all(0 < float(downtime) < float(silent) for _, _, downtime, silent in moved.values())
    assert {name: row[0] for name, row in away.items()} == {name: row[0] for name, row in back.items()}

    proof = rows(shown, r"^(\w+) +(vmhost\d) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$")
    assert {name: row[1:4] for name, row in proof.items()} == {
        **dict.fromkeys(EMPTIED, ("2", "3", "3")),
        **dict.fromkeys(OTHERS, ("0", "1", "1")),
    }
    assert {name for name, row in proof.items() if row[0] == "vmhost1"} == EMPTIED
    assert all(int(now) > int(then) for *_, then, now in proof.values())
    assert "16 starts of 8 VMs" in shown
    assert "never two emulators on one disk" in shown
    assert re.search(r"Longest silence of a moved VM, .*: [\d.]+ s; of the others: [\d.]+ s\.", shown)
    assert shown.rstrip().splitlines()[-1].startswith("Everything above was verified")


@pytest.mark.timeout(300)
def test_ctrl_c_clears_away_and_keeps_the_logs(stage: Stage) -> None:
    with stage.demo() as process:
        read_until(process, "Starting 8 VMs")
        with stage.demo() as second:
            refusal, _ = second.communicate(timeout=120)
        assert second.returncode == 2
        assert "Another demo is running" in refusal
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)  # impatience changes nothing
        shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130, shown
    assert "Interrupted." in shown
    assert f"The logs of the practice hosts are in {stage.logs}." in shown
    assert stage.lab.leaders() == {}
    assert traces(stage.lab.root) == []
    assert not stage.lab.root.exists()
    assert list(stage.logs.glob("vmhost1/libvirtd.log"))


@pytest.mark.timeout(600)
def test_a_second_writer_fails_the_demo(stage: Stage) -> None:
    """A demo that could not fail would prove nothing: somebody starts a VM by hand on a second host."""
    with stage.demo() as process:
        read_until(process, "== One look")
        # The one whose shutdown takes longest: no drain has moved it before this is done.
        stage.lab.define_vm("vmhost2", stage.lab.virsh("vmhost1", "dumpxml", "--inactive", "legacy"))
        stage.lab.virsh("vmhost2", "start", "legacy")
        shown, _ = process.communicate(timeout=400)
    assert process.returncode == 1, shown
    assert "The demo failed." in shown
    assert re.search(r"^fab: .*legacy\.img is open on vmhost\d .* and vmhost\d ", shown, re.MULTILINE)
    assert "was verified" not in shown
    assert stage.lab.leaders() == {}
    assert not stage.lab.root.exists()
    assert '"host": "vmhost2"' in (stage.logs / "starts/starts.log").read_text()
