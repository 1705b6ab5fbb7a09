"""vm.console: the ssh command it becomes, and what it refuses."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tasks.cluster.model import Host, Inventory
from tasks.cluster.remote.console import terminal_command
from tasks.vm import console
from tests.domain.desk import Desk, executed_on_a_terminal
from tests.sim.cluster import SimCluster

UUID = "0badcafe-0000-4000-8000-000000000001"
WORDS = ["virsh", "-c", "qemu:///system", "console", UUID]


def effective(command: list[str]) -> dict[str, list[str]]:
    """What ssh itself makes of the command (ssh -G), by option."""
    at = command.index("--")
    text = subprocess.run(
        ["ssh", "-G", *command[1:at], command[at + 1]], check=True, capture_output=True, text=True
    ).stdout
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def command_for(tmp_path: Path, config: str, **host: object) -> list[str]:
    file = tmp_path / "ssh config"
    file.write_text(config)
    one = Host(name="vmhost1", address="192.0.2.1", **host)  # type: ignore[arg-type]
    inventory = Inventory(path="hosts.ini", hosts={"vmhost1": one}, stores={}, ssh_config=str(file))
    return terminal_command(inventory, one, WORDS)


def test_ssh_reaches_what_all_other_links_reach(tmp_path: Path) -> None:
    known = tmp_path / "known hosts 100%"
    command = command_for(
        tmp_path,
        "Host 192.0.2.1\n  Port 2222\n  User ops\n  ProxyJump ada@gate:2200\n"
        f'  UserKnownHostsFile "{known}"\n'
        f'  IdentityFile "{tmp_path}/my key"\n',
    )
    seen = effective(command)
    assert seen["hostname"] == ["192.0.2.1"]
    assert seen["port"] == ["2222"]
    assert seen["user"] == ["ops"]
    assert seen["stricthostkeychecking"] in (["true"], ["yes"])
    assert seen["proxyjump"] == ["ada@gate:2200"]
    assert f"{tmp_path}/my key" in seen["identityfile"]
    assert str(known) in seen["userknownhostsfile"][0].replace("%%", "%")
    assert "-t" in command


@pytest.mark.parametrize(
    ("host", "sudo"),
    [({"user": "root"}, False), ({"user": "ops"}, True), ({"user": "root", "become": True}, True)],
)
def test_sudo_where_it_is_needed(tmp_path: Path, host: dict[str, object], sudo: bool) -> None:
    remote = command_for(tmp_path, "", **host)[-1]
    assert shlex.split(remote) == (["sudo", "-n", "--", *WORDS] if sudo else WORDS)


def test_needs_a_terminal() -> None:
    sim = SimCluster()
    desk = Desk(sim)
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(console, "web")
        assert ended.code == 2
        assert "needs a terminal" in ended.err


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    return executed_on_a_terminal(monkeypatch)


@pytest.mark.parametrize("name", ["-rf", "it's $HOME", "größe", "web"])
def test_goes_where_it_runs(executed: list[list[str]], name: str) -> None:
    sim = SimCluster()
    desk = Desk(sim)
    with sim:
        vm = sim.add_vm(name, "vmhost3", also_defined_on=("vmhost1",))
        desk.type(console, name, force=True)
    ((*_, host, remote),) = executed
    assert host == "vmhost3"
    assert shlex.split(remote)[-3:] == ["console", vm.uuid, "--force"]


def test_one_that_is_off(executed: list[list[str]]) -> None:
    sim = SimCluster()
    desk = Desk(sim)
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim.add_vm("a", "vmhost1")
        sim.add_vm("b", "vmhost1")
        ended = desk.type(console, "web")
        assert ended.code == 2
        assert "It is off, defined on vmhost1" in ended.err
        assert desk.type(console, "a,b").code == 2
    assert executed == []
