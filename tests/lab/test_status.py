"""status on the practice cluster, also when parts of it do not answer."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.lab.lab import PROJECT
from tests.lab.fab import FOUR, ONE, SILENT, THREE, TWO, Done, Fab


def hosts(done: Done) -> dict[str, Any]:
    return {one["name"]: one for one in done.document["hosts"]}


def test_shows_hosts_and_vms_in_80_columns(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.add(TWO, "mail")
    fab.lab.virsh(TWO, "destroy", "mail")
    before = fab.state()
    shown = fab("status")
    assert shown.code == 0, shown.said
    text = shown.out.replace(str(PROJECT / "fab"), "./fab")
    assert all(len(line) <= 80 for line in text.splitlines()), text
    rows = [line.split() for line in shown.out.splitlines()]
    assert [row[:3] for row in rows if row and row[0] in (ONE, TWO)] == [[ONE, "ok", "1"], [TWO, "ok", "0"]]
    assert ["web", ONE, "running"] in [row[:3] for row in rows]
    assert ["mail", "(vmhost2)", "shut", "off"] in [row[:4] for row in rows]
    done = fab("status", "--json")
    assert done.code == 0, done.said
    assert done.err == ""
    assert {vm["name"]: (vm["state"], vm["running_on"], vm["defined_on"]) for vm in done.document["vms"]} == {
        "web": ("running", [ONE], [ONE]),
        "mail": ("shut off", [], [TWO]),
    }
    assert done.document["findings"] == []
    one = hosts(done)[ONE]
    assert one["answering"] is True
    assert one["cordon"] is None
    assert one["store"]["mounted"] is True
    assert one["store"]["total_bytes"] == 2 << 30
    assert fab.state() == before


def test_shows_a_cordon(fab: Fab) -> None:
    assert fab("-H", THREE, "drain", "--yes").code == 0
    done = fab.other_laptop()("status", "--json")
    assert hosts(done)[THREE]["cordon"]["why"] == "drain"
    assert [one["kind"] for one in done.document["findings"]] == ["cordoned"]


def test_everything_silent_is_shown_as_what_it_is_and_holds_up_nothing(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.lab.add_vm("mail", FOUR)
    usual = fab("status").seconds
    fab.lab.freeze(TWO, "sshd")
    fab.lab.cut_network(THREE)
    fab.lab.freeze(FOUR, "libvirtd")
    done = fab("status", "--json")
    assert done.code == 0, done.said
    assert done.seconds < 2 * usual + SILENT
    seen = hosts(done)
    assert [seen[host]["answering"] for host in (ONE, TWO, THREE, FOUR)] == [True, False, False, True]
    assert seen[FOUR]["libvirt_problem"]
    assert seen[ONE]["vms_running"] == 1
    assert seen[FOUR]["vms_running"] is None
    kinds = {(one["kind"], one["host"]) for one in done.document["findings"]}
    assert kinds >= {("silent", TWO), ("silent", THREE), ("libvirt", FOUR)}
    # What /proc shows is enough to know that it runs, whatever libvirtd does.
    assert {vm["name"]: vm["running_on"] for vm in done.document["vms"]} == {"web": [ONE], "mail": [FOUR]}


@pytest.mark.parametrize("daemon", ["sshd", "libvirtd"])
def test_a_daemon_that_is_gone(fab: Fab, daemon: str) -> None:
    usual = fab("status").seconds
    fab.lab.kill(TWO, daemon)
    done = fab("status")
    assert done.code == 0, done.said
    assert done.seconds < 2 * usual + SILENT
    word = "silent" if daemon == "sshd" else "libvirtd"
    assert [TWO, word] in [line.split()[:2] for line in done.out.splitlines()]


def test_a_bad_store_is_shown(fab: Fab) -> None:
    fab.lab.unmount_store(TWO)
    fab.lab.read_only_store(THREE)
    done = fab("status", "--json")
    seen = hosts(done)
    assert seen[TWO]["store"]["mounted"] is False
    assert "read-only" in seen[THREE]["store"]["problem"].lower()
    assert {one["host"] for one in done.document["findings"] if one["kind"] == "store"} == {TWO, THREE}


def test_nobody_answers(fab: Fab) -> None:
    usual = fab("status").seconds
    for host in fab.lab.hosts:
        fab.lab.cut_network(host)
    done = fab("status")
    assert done.code == 1, done.said
    assert done.seconds < 2 * usual + SILENT
    assert "0 of 4 hosts answered" in done.out
