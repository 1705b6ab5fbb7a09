"""host.serial and host.console on the simulated cluster."""

from __future__ import annotations

import shlex

import pytest

from tasks.cluster.model import Console
from tasks.cluster.setup import serial as consoles
from tasks.host import console
from tasks.hostsetup import check, serial
from tests.domain.desk import Desk, executed_on_a_terminal
from tests.sim.cluster import SimCluster

ONE, TWO = "vmhost1", "vmhost2"
RAID = Console("raid", ONE)
SWITCH = Console("switch", ONE, "/dev/ttyUSB0", 9600, "even")


@pytest.fixture
def desk(sim: SimCluster) -> Desk:
    made = Desk(sim)
    made.inventory = {"consoles": {"raid": RAID, "switch": SWITCH}}
    return made


def test_each_console_gets_its_file(sim: SimCluster, desk: Desk) -> None:
    ended = desk.type(serial, hosts=[ONE, TWO], yes=True)
    assert ended.code == 0, ended
    files = {path: text for path, (text, _) in sim[ONE].disk.files.items()}
    assert files == {consoles.path(one): consoles.text(one) for one in (RAID, SWITCH)}
    assert not sim[TWO].disk.files
    assert "vmhost2: consoles: already so, hosts.ini has none" in ended.out
    sim.calls.clear()
    assert desk.type(serial, hosts=[ONE, TWO]).code == 0
    assert desk.ops("file.write", "file.remove") == []


def test_a_console_that_is_gone_from_the_inventory_goes(sim: SimCluster, desk: Desk) -> None:
    desk.type(serial, hosts=[ONE], yes=True)
    theirs = "/etc/minicom/minirc.dfl"
    sim[ONE].disk.files[theirs] = ("pu port /dev/modem\n", 0o644)
    desk.inventory["consoles"] = {"raid": RAID}
    ended = desk.type(serial, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    left = {path for path in sim[ONE].disk.files if path.startswith("/etc/minicom/")}
    assert left == {consoles.path(RAID), theirs}


def test_somebody_elses_file_is_refused(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.files[consoles.path(RAID)] = ("pu port /dev/modem\n", 0o644)
    ended = desk.type(serial, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "minirc.raid on vmhost1 is not vmfab's" in ended.err


def test_without_minicom_the_packages_are_named(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.missing.add("minicom")
    ended = desk.type(serial, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "fab -H vmhost1 host.packages" in ended.err
    missing = {lack["step"]: lack for lack in desk.type(check, json=True).document["hosts"][0]["missing"]}
    assert missing["serial"]["advice"] == "fab -H vmhost1 host.packages"


# -- host.console -----------------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    return executed_on_a_terminal(monkeypatch)


def test_console_opens_minicom_on_the_host_of_the_line(
    sim: SimCluster, desk: Desk, executed: list[list[str]]
) -> None:
    desk.type(serial, hosts=[ONE], yes=True)
    ended = desk.type(console, "switch")
    assert ended.code == 0, ended
    assert shlex.split(executed[0][-1]) == ["minicom", "switch"]
    assert "-t" in executed[0]
    assert "/dev/ttyUSB0 of vmhost1. Leave it with Ctrl-A X." in ended.out


def test_console_wants_the_host_as_the_inventory_says(
    sim: SimCluster, desk: Desk, executed: list[list[str]]
) -> None:
    ended = desk.type(console, "raid")
    assert ended.code == 2
    assert "fab -H vmhost1 host.serial" in ended.err
    assert executed == []


def test_console_names_those_that_there_are(sim: SimCluster, desk: Desk, executed: list[list[str]]) -> None:
    ended = desk.type(console, "riad")
    assert ended.code == 2
    assert "There are raid, switch." in ended.err


def test_console_needs_a_terminal(sim: SimCluster, desk: Desk) -> None:
    ended = desk.type(console, "raid")
    assert ended.code == 2
    assert "needs a terminal" in ended.err
