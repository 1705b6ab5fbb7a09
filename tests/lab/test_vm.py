"""vm.* typed on the practice cluster's laptop: real libvirt, real guests, looked at from outside."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tasks.lab.lab import Lab
from tests.lab.fab import FOUR, ONE, THREE, TWO, Fab

NASTY = ("-rf", "web server", "it's $HOME", "größe")


def test_a_vms_life(fab: Fab) -> None:
    fab.add(ONE, "web")
    assert fab("vm.start", "web").code == 0  # runs there already
    done = fab("vm.shutdown", "web")
    assert done.code == 0, done.said
    assert "shutting down on vmhost1" in done.said
    assert fab.where() == {}
    assert fab.running_vms(ONE) in (None, [])
    assert fab("vm.shutdown", "web").code == 0  # off already

    assert fab("-H", TWO, "vm.start", "web").code == 0  # takes its definition along
    assert fab.where() == {"web": (TWO,)}
    assert fab.running_vms(TWO) == ["web"]
    fab.counting("web")
    refused = fab("-H", ONE, "vm.start", "web")
    assert refused.code == 2
    assert "it runs there, not on vmhost1" in refused.said

    listed = fab("vm.list", "--json").document
    assert [(v["name"], v["running_on"], v["defined_on"]) for v in listed["vms"]] == [
        ("web", [TWO], [ONE, TWO])
    ]
    assert fab("vm.reboot", "web").code == 0

    assert fab("vm.destroy", "web").code == 2  # asks
    assert fab("vm.destroy", "web", "--yes").code == 0
    assert fab.where() == {}
    # Both hosts define it; it ran last on vmhost2.
    assert fab("vm.start", "web").code == 0
    assert fab.where() == {"web": (TWO,)}


def test_any_name(fab: Fab) -> None:
    for name in NASTY:
        fab.lab.add_vm(name, THREE, start=False)
    for name in NASTY:
        done = fab("vm.start", f"--vm={name}")
        assert done.code == 0, done.said
        assert fab.where()[name] == (THREE,)
    assert sorted(fab.running_vms(THREE) or []) == sorted(NASTY)
    assert ElementTree.fromstring(fab("vm.dumpxml", "--vm=-rf").out).findtext("name") == "-rf"
    fab.counting(*NASTY)
    done = fab("vm.shutdown", "*", "--yes")
    assert done.code == 0, done.said
    assert fab.where() == {}
    assert fab.running_vms(THREE) == []


def test_several_at_once_and_one_that_never_reacts(fab: Fab) -> None:
    fab.add(ONE, "web-01", "web-02")
    fab.add(TWO, deaf="never")
    done = fab("vm.shutdown", "web*,deaf", "--timeout", "20", "--yes", "--json")
    assert done.code == 1, done.said
    assert {r["vm"]: r["result"] for r in done.document["results"]} == {
        "web-01": "done",
        "web-02": "done",
        "deaf": "failed",
    }
    assert fab.where() == {"deaf": (TWO,)}
    assert fab("vm.destroy", "deaf", "--yes").code == 0
    assert fab.where() == {}


def test_refusals_change_nothing(fab: Fab) -> None:
    fab.lab.add_vm("web", ONE, start=False)
    fab.add(TWO, "db")
    # Another name and UUID, the same image.
    fab.lab.define_vm(ONE, fab.lab.xml("copy", image_of="db"))
    before = fab.state()
    for words in (
        ("vm.start", "copy"),
        ("vm.start", "nobody"),
        ("vm.undefine", "db", "--yes"),
        ("vm.shutdown", "nob*"),
        ("vm.reboot", "web"),
        ("vm.console", "db"),
        ("-H", "vmhost9", "vm.start", "web"),
        ("vm.define", "/nonexistent.xml"),
    ):
        done = fab(*words)
        assert done.code == 2, (words, done.said)
        done.reason()
    fab.lab.cut_network(FOUR)
    for words in (("vm.start", "web"), ("vm.undefine", "web", "--yes"), ("vm.shutdown", "web")):
        done = fab(*words)
        assert (done.code, FOUR in done.said) == (2, True), (words, done.said)
    listed = fab("vm.list")
    assert listed.code == 3
    assert f"{FOUR} cannot be asked" in listed.out
    after = fab.state()
    before["kept"].pop("store-id", None)
    after["kept"].pop("store-id", None)
    assert after == before


def test_two_operators_start_at_once(fab: Fab) -> None:
    fab.lab.add_vm("web", ONE, start=False)
    one = fab.begin("-H", ONE, "vm.start", "web")
    two = fab.other_laptop().begin("-H", TWO, "vm.start", "web")
    codes = sorted((one.done().code, two.done().code))
    assert codes == [0, 2], one.said + two.said
    assert len(fab.where()["web"]) == 1


def test_definitions(fab: Fab, tmp_path: Path) -> None:
    uuid = fab.lab.add_vm("web", ONE, start=False)
    xml = fab("vm.dumpxml", "web", "--security-info").out
    file = tmp_path / "web.xml"
    file.write_text(xml.replace(">131072<", ">163840<"))
    done = fab("vm.define", str(file))
    assert done.code == 2
    assert "+  <memory>163840</memory>" in done.out
    assert fab("vm.define", str(file), "--yes").code == 0
    assert "163840" in fab.definitions(ONE)["web"]
    done = fab("vm.define", str(file))
    assert done.code == 0, done.said
    assert "like this already" in done.said

    file.write_text(xml.replace("/vmstorage/images/web.img", "/root/web.img"))
    done = fab("vm.define", str(file), "--yes")
    assert (done.code, "is not on /vmstorage" in done.said) == (2, True), done.said
    file.write_text(xml.replace(uuid, "0badcafe-0000-4000-8000-000000000001"))
    done = fab("-H", TWO, "vm.define", str(file), "--yes")
    assert (done.code, uuid in done.said) == (2, True), done.said

    done = fab("vm.undefine", "web", "--yes")
    assert done.code == 0, done.said
    assert "stays: /vmstorage/images/web.img" in done.out
    assert fab.definitions(ONE) == {}
    assert fab.lab.image("web").exists()


@pytest.mark.parametrize("user", ["root", "ops"])
def test_console(fab: Fab, clean_lab: Lab, user: str) -> None:
    """With a terminal of its own; Ctrl-] ends it."""
    fab.add(ONE, "it's $HOME")
    text = (clean_lab.root / "hosts.ini").read_text(encoding="utf-8")
    text = text.replace("ansible_user=root", f"ansible_user={user}")
    fab.use_inventory_bytes(text.replace("=ssh_config", f"={clean_lab.root}/ssh_config").encode())
    with fab.terminal("vm.console", "it's $HOME") as terminal:
        assert "Console of it's $HOME on vmhost1" in terminal.await_words("Escape character")
        assert terminal.end(pressing="\x1d") == 0
