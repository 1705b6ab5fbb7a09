"""Bad input: one sentence and a hint on standard error, exit code 2, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.lab.lab import Lab
from tests.lab.fab import FOUR, ONE, THREE, TWO, Done, Fab


@pytest.fixture(scope="module")
def quiet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fab]:
    """One cluster for all that must not change anything: web runs on vmhost1, vmhost4 is cordoned."""
    lab.restore()
    with Fab(lab, tmp_path_factory.mktemp("bad") / "home") as fab:
        assert fab("-H", FOUR, "drain", "--yes").code == 0
        lab.add_vm("web", ONE)
        lab.add_vm("web-01", ONE, start=False)
        yield fab


def refused(fab: Fab, *words: str) -> Done:
    before = fab.state()
    done = fab(*words)
    assert done.code == 2, done.said
    assert fab.state() == before
    sentence, hint = done.reason()
    assert sentence.endswith((".", "?")), done.err
    assert hint or " wants " in sentence, done.err
    return done


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-H", "vmhost9", "drain", "--yes"], "'vmhost9' is not in the inventory."),
        (["-H", "vmhost9", "status"], "'vmhost9' is not in the inventory."),
        (["migrate", "web", "--to", "vmhost9", "--yes"], "'vmhost9' is not in the inventory."),
        (["drain", "--yes"], "drain"),
        (["undrain", "--yes"], "undrain"),
        (["migrate", "wob", "--to", TWO, "--yes"], "No VM called wob is there."),
        (["migrate", "we", "--to", TWO, "--yes"], "No VM called we is there."),
        (["migrate", "x*", "--to", TWO, "--yes"], "No VM fits 'x*'."),
        (["-H", TWO, "migrate", "web", "--yes"], "No VM called web is there on vmhost2."),
        (["migrate", "web", "--to", TWO], "There is no terminal to ask on"),
        (["-H", ONE, "drain"], "There is no terminal to ask on"),
        (["migrate", "web", "--to", TWO, "--yes", "--timeout", "soon"], "--timeout wants"),
        (["migrate", "web", "--to", TWO, "--yes", "--parallel", "0"], "--parallel wants"),
    ],
)
def test_refused_in_one_sentence(quiet: Fab, words: list[str], said: str) -> None:
    done = refused(quiet, *words)
    assert said in done.reason()[0]
    assert done.out == "" or "terminal" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["migrate", "web", "--to", FOUR, "--yes"], "cordoned"),
        (["migrate", "web", "--to", ONE, "--yes"], "runs it already"),
        (["migrate", "web-01", "--to", TWO, "--yes"], "not running"),
        (["-H", ONE, "drain", "--to", ONE, "--yes"], "vmhost1"),
        (["-H", ONE, "drain", "--to", FOUR, "--yes"], "cordoned"),
    ],
)
def test_refused_with_the_reason_for_each_host(quiet: Fab, words: list[str], said: str) -> None:
    done = refused(quiet, *words)
    assert said in done.said


def test_hosts_may_be_separated_by_comma_and_space(quiet: Fab) -> None:
    done = quiet("-H", f"{ONE}, {TWO}", "status", "--json")
    assert done.code == 0, done.said
    assert [one["name"] for one in done.document["hosts"]] == [ONE, TWO]


def test_closed_standard_output(quiet: Fab) -> None:
    before = quiet.state()
    done = quiet.shell(f"fab migrate web --to {TWO} --yes >&-")
    assert done.code == 2, done.said
    assert done.reason()[0].startswith("Standard output is closed")
    assert quiet.state() == before


def test_a_vm_that_runs_on_two_hosts(quiet: Fab) -> None:
    """Under one UUID and name, on two images, so that nothing is lost by it."""
    uuid = quiet.lab.add_vm("twin", ONE)
    xml = quiet.lab.xml("twin", uuid=uuid)
    second = quiet.lab.image("twin").with_name("twin-2.img")
    second.write_bytes(quiet.lab.image("twin").read_bytes())
    quiet.lab.define_vm(TWO, xml.replace("twin.img", "twin-2.img"))
    quiet.lab.virsh(TWO, "start", "twin")
    try:
        done = refused(quiet, "migrate", "twin", "--to", THREE, "--yes")
        assert ONE in done.said
        assert TWO in done.said
        refused(quiet, "-H", ONE, "drain", "--yes")
    finally:
        for host in (ONE, TWO):
            quiet.lab.virsh(host, "destroy", "twin")
            quiet.lab.virsh(host, "undefine", "twin")


def test_no_room(quiet: Fab, tmp_path: Path) -> None:
    tight = Fab(quiet.lab, tmp_path / "home")
    tight.use_inventory(host_variables="vmfab_reserve=4TiB")
    done = refused(tight, "migrate", "web", "--to", TWO, "--yes")
    assert "--ignore-reserve" in done.said


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"[vmhosts\nvmhost1 ansible_host=10.77.0.11\n", 1),
        (b"[vmhosts]\nvmhost1 ansible_host=10.77.0.11\nvmhost1 vmfab_reserve=much\n", 3),
        (b"[vmhosts]\nvmhost1 ansible_host=10.77.0.11 vmfab_resrve=4GiB\n", 2),
        (b"[vmhosts]\n\xff\xfe\n", 2),
        (b"", 0),
    ],
)
def test_a_malformed_inventory(quiet: Fab, tmp_path: Path, text: bytes, line: int) -> None:
    wrong = Fab(quiet.lab, tmp_path / "home")
    wrong.use_inventory_bytes(text)
    done = refused(wrong, "status")
    assert "hosts.ini" in done.err
    if line:
        assert f":{line}" in done.err or f"line {line}" in done.err


def test_a_silent_target(quiet: Fab) -> None:
    quiet.lab.cut_network(TWO)
    try:
        done = refused(quiet, "migrate", "web", "--to", TWO, "--yes")
        assert "vmhost2 does not answer" in done.reason()[0]
    finally:
        quiet.lab.mend_network(TWO)
