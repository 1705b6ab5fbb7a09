"""vm.define, vm.undefine and vm.dumpxml on the simulated cluster."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tasks.vmdefinitions import define, dumpxml, undefine
from tests.domain.desk import NASTY, Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk, domain_xml

UUID = "0badcafe-0000-4000-8000-000000000001"
OTHER = "0badcafe-0000-4000-8000-000000000002"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "vm.xml"


def xml_of(name: str = "web", uuid: str = UUID, path: str = "/vmstorage/web.qcow2", **more: Any) -> str:
    return domain_xml(name, uuid, disks=more.pop("disks", [Disk(path)]), **more)


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended
    for word in words:
        assert word in ended.text, ended
    assert "Traceback" not in ended.text


# -- define ------------------------------------------------------------------------------------------------


def test_defines_a_new_vm(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        file.write_text(xml_of())
        ended = desk.type(define, str(file), hosts=["vmhost2"], yes=True)
        assert ended.code == 0, ended
        assert "web" in ended.out
        assert "is new on vmhost2" in ended.out
        assert UUID in sim["vmhost2"].definitions
        assert desk.ops("define", "dumpxml") == ["define", "dumpxml"]
        again = desk.type(define, str(file), hosts=["vmhost2"])
        assert again.code == 0, again
        assert "defined like this already" in again.out
        assert desk.ops("define") == ["define"]


def test_asks_and_shows_the_difference(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        sim["vmhost1"].define(xml_of(password="old-password"))
        file.write_text(xml_of(memory_mib=2048, password="new-password"))
        ended = desk.type(define, str(file))
        refused(ended, "Define web on vmhost1?", "--yes")
        assert "-  <memory>1048576</memory>" in ended.out
        assert "+  <memory>2097152</memory>" in ended.out
        assert "password" not in ended.text.replace("passwd", "")
        assert sim["vmhost1"].definitions[UUID].memory_kib == 1 << 20
        assert desk.type(define, str(file), yes=True).code == 0
        assert sim["vmhost1"].definitions[UUID].memory_kib == 2 << 20


def test_says_that_only_passwords_differ(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        sim["vmhost1"].define(xml_of(password="old-password"))
        file.write_text(xml_of(password="new-password"))
        ended = desk.type(define, str(file), dry_run=True)
        assert "only its passwords differ" in ended.out
        assert "-password" not in ended.text
        file.write_text(xml_of())
        assert "its passwords go away" in desk.type(define, str(file), dry_run=True).out


def test_dry_run_defines_nothing(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        file.write_text(xml_of())
        assert desk.type(define, str(file), hosts=["vmhost1"], dry_run=True).code == 0
        assert not desk.ops("define", "store.lock", "store.init")


@pytest.mark.parametrize("name", NASTY)
def test_any_name_is_defined(sim: SimCluster, desk: Desk, file: Path, name: str) -> None:
    with sim:
        sim.store.image("web.qcow2")
        file.write_text(xml_of(name))
        assert desk.type(define, str(file), hosts=["vmhost1"], yes=True).code == 0
        assert sim["vmhost1"].definitions[UUID].name == name
        assert desk.type(undefine, name, yes=True).code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not well-formed"),
        ("<domain><name>web</name>", "not well-formed"),
        ("no xml at all", "not well-formed"),
        ("<network><name>web</name></network>", "the root element is <network>"),
        ("<domain><memory>1</memory></domain>", "no <name>"),
        ("<domain><name>a/b</name><memory>1</memory></domain>", "cannot be a name"),
        ("<domain><name> web</name><memory>1</memory></domain>", "cannot be a name"),
        ("<domain><name>web</name><uuid>17</uuid><memory>1</memory></domain>", "not a UUID"),
        ("<domain><name>web</name><memory>much</memory></domain>", "not a number"),
    ],
)
def test_bad_xml(sim: SimCluster, desk: Desk, file: Path, text: str, words: str) -> None:
    with sim:
        file.write_text(text)
        refused(desk.type(define, str(file), hosts=["vmhost1"], yes=True), words)
        assert not desk.ops("define")


def test_bad_files(sim: SimCluster, desk: Desk, file: Path, tmp_path: Path) -> None:
    with sim:
        refused(desk.type(define, str(file), hosts=["vmhost1"]), "No such file")
        refused(desk.type(define, str(tmp_path), hosts=["vmhost1"]), "Is a directory")
        file.write_bytes(b"<domain><name>gr\xf6\xdfe</name></domain>")
        refused(desk.type(define, str(file), hosts=["vmhost1"]), "UTF-8")
        file.write_bytes(b" " * ((4 << 20) + 1))
        refused(desk.type(define, str(file), hosts=["vmhost1"]), "too large")


def test_standard_input(sim: SimCluster, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with sim:
        sim.store.image("web.qcow2")
        text = "\ufeff<?xml version='1.0' encoding='iso-8859-1'?>\n" + xml_of("größe")
        for yes in (False, True):
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
            ended = desk.type(define, "-", hosts=["vmhost1"], yes=yes)
            assert ended.code == (0 if yes else 2), ended
        assert sim["vmhost1"].definitions[UUID].name == "größe"


def test_says_where_it_may_be_defined(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        file.write_text(xml_of())
        refused(desk.type(define, str(file), yes=True), "not defined anywhere yet", "-H vmhost1 vm.define")
        for host in ("vmhost1", "vmhost2"):
            sim[host].define(xml_of(memory_mib=512))
        refused(desk.type(define, str(file), yes=True), "vmhost1, vmhost2")
        assert desk.type(define, str(file), hosts=["vmhost1", "vmhost2"], yes=True).code == 0
        assert {sim[h].definitions[UUID].memory_kib for h in ("vmhost1", "vmhost2")} == {1 << 20}


def test_without_uuid_it_keeps_its_own(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        sim["vmhost1"].define(xml_of())
        file.write_text(xml_of(memory_mib=2048).replace(f"<uuid>{UUID}</uuid>", ""))
        assert desk.type(define, str(file), yes=True).code == 0
        assert list(sim["vmhost1"].definitions) == [UUID]


def test_without_uuid_a_new_one_is_the_same_on_all_hosts(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        file.write_text(xml_of().replace(f"<uuid>{UUID}</uuid>", ""))
        assert desk.type(define, str(file), hosts=["vmhost1", "vmhost2"], yes=True).code == 0
        assert list(sim["vmhost1"].definitions) == list(sim["vmhost2"].definitions)


@pytest.mark.parametrize(
    "path", ["/var/lib/libvirt/images/web.qcow2", "/vmstorage/../root/x.img", "/dev/sdc"]
)
def test_disks_must_be_shared(sim: SimCluster, desk: Desk, file: Path, path: str) -> None:
    with sim:
        file.write_text(xml_of(disks=[Disk(path, block=path.startswith("/dev/"))]))
        refused(desk.type(define, str(file), hosts=["vmhost1"], yes=True), "is not on /vmstorage")


def test_volumes_cannot_be_told(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        volume = "<disk type='volume' device='disk'><source pool='p' volume='v'/><target dev='vdb'/></disk>"
        file.write_text(xml_of(extra=volume))
        refused(
            desk.type(define, str(file), hosts=["vmhost1"], yes=True), "volume v of pool p", "by its path"
        )


def test_missing_images_and_bridges_are_told(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        iso = Disk("/root/debian.iso", target="sda", device="cdrom", read_only=True)
        file.write_text(xml_of(disks=[Disk("/vmstorage/new.qcow2"), iso], bridge="br9"))
        ended = desk.type(define, str(file), hosts=["vmhost1"], dry_run=True)
        assert ended.code == 0
        assert "disk vda (/vmstorage/new.qcow2) does not exist yet" in ended.out
        assert "has no bridge br9" in ended.out


@pytest.mark.parametrize("state", ["running", "off"])
def test_writable_image_of_another_vm(sim: SimCluster, desk: Desk, file: Path, state: str) -> None:
    with sim:
        sim.store.links["alias.qcow2"] = "db.qcow2"
        sim.add_vm("db", "vmhost3", running=state == "running", disks=[Disk("/vmstorage/db.qcow2")])
        file.write_text(xml_of(path="/vmstorage/alias.qcow2"))
        refused(desk.type(define, str(file), hosts=["vmhost1"], yes=True), "'db'", "vmhost3", "shareable")
        both = [Disk("/vmstorage/db.qcow2", shareable=True)]
        file.write_text(xml_of(disks=both))
        assert desk.type(define, str(file), hosts=["vmhost1"], yes=True).code == 0


def test_clashes_on_any_host(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim["vmhost4"].define(xml_of("web", OTHER, "/vmstorage/a.qcow2"))
        sim["vmhost3"].define(xml_of("db", UUID, "/vmstorage/b.qcow2"))
        file.write_text(xml_of())
        ended = desk.type(define, str(file), hosts=["vmhost1"], yes=True)
        refused(ended, f"vmhost4: has another VM of this name, with UUID {OTHER}", "'db' with the same UUID")


def test_every_host_must_answer_to_define(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim["vmhost4"].cut()
        file.write_text(xml_of())
        refused(desk.type(define, str(file), hosts=["vmhost1"], yes=True), "vmhost4 does not answer")


def test_running_vm_goes_on(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", uuid=UUID, disks=[Disk("/vmstorage/web.qcow2")])
        file.write_text(xml_of(memory_mib=2048))
        ended = desk.type(define, str(file), yes=True)
        assert ended.code == 0
        assert "until it is shut down and started again" in ended.out
        assert sim.where(vm) == ("vmhost1",)


def test_libvirt_says_no(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        file.write_text(xml_of())
        sim.faults.on(faults.fail("virsh", "XML error: no such thing"), op="define")
        refused(desk.type(define, str(file), hosts=["vmhost1"], yes=True), "XML error: no such thing")


def test_libvirt_stores_something_else(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        file.write_text(xml_of())
        sim.faults.on(
            lambda call: sim["vmhost1"].define(xml_of(memory_mib=1)) and None, op="define", when="after"
        )
        ended = desk.type(define, str(file), hosts=["vmhost1"], yes=True)
        assert ended.code == 1
        assert "libvirt changed the memory" in ended.err


def test_answer_to_define_lost(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        file.write_text(xml_of())
        sim.faults.on(faults.reply_lost, op="define")
        assert desk.type(define, str(file), hosts=["vmhost1"], yes=True).code == 3


def test_second_host_does_not_take_it(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        sim.store.image("web.qcow2")
        file.write_text(xml_of())
        sim.faults.on(faults.fail("virsh", "no such machine type"), op="define", host="vmhost2")
        ended = desk.type(define, str(file), hosts=["vmhost1", "vmhost2"], yes=True, json=True)
        assert ended.code == 1
        results = {r["host"]: r["result"] for r in ended.document["results"]}
        assert results == {"vmhost1": "done", "vmhost2": "left"}


def test_define_that_libvirt_does_not_answer(sim: SimCluster, desk: Desk, file: Path) -> None:
    with sim:
        file.write_text(xml_of())
        sim.faults.on(faults.fail("libvirt-silent", "libvirtd does not answer"), op="define")
        assert desk.type(define, str(file), hosts=["vmhost1"], yes=True).code == 3


# -- undefine ----------------------------------------------------------------------------------------------


def test_undefines_everywhere_and_keeps_images(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm(
            "web", "vmhost1", running=False, also_defined_on=("vmhost2",), disks=[Disk("/vmstorage/w.img")]
        )
        sim["vmhost2"].running_vms = "db\nweb\n"
        ended = desk.type(undefine, "web", yes=True)
        assert ended.code == 0, ended
        assert "stays: /vmstorage/w.img" in ended.out
        assert not sim["vmhost1"].definitions
        assert not sim["vmhost2"].definitions
        assert "w.img" in sim.store.images
        assert sim["vmhost2"].running_vms == "db\n"


def test_undefines_on_one_host_only(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        assert desk.type(undefine, "web", hosts=["vmhost1"], yes=True).code == 0
        assert vm.uuid not in sim["vmhost1"].definitions
        assert vm.uuid in sim["vmhost2"].definitions


def test_undefine_asks(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        refused(desk.type(undefine, "web"), "Remove 1 definition?", "--yes")
        assert desk.type(undefine, "web", dry_run=True).code == 0
        assert vm.uuid in sim["vmhost1"].definitions


@pytest.mark.parametrize("host", ["vmhost1", "vmhost2"])
def test_undefine_refuses_while_it_runs_anywhere(sim: SimCluster, desk: Desk, host: str) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        refused(desk.type(undefine, "web", hosts=[host], yes=True), "vmhost1", "not off")
        assert not desk.ops("undefine")


def test_undefine_refuses_when_a_host_is_silent(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim["vmhost3"].libvirt_frozen = True
        refused(desk.type(undefine, "web", yes=True), "vmhost3", "cannot be asked")


def test_undefine_refuses_a_managed_save(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].managed_save("web")
        refused(desk.type(undefine, "web", yes=True), "managed save", "managedsave-remove")


def test_undefine_meanwhile_started(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        sim.faults.on(lambda call: sim["vmhost2"].start(vm.uuid), op="store.lock", when="after")
        ended = desk.type(undefine, "web", hosts=["vmhost1"], yes=True)
        assert ended.code == 2, ended
        assert vm.uuid in sim["vmhost1"].definitions


def test_undefine_whose_answer_is_lost_is_looked_at(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(faults.reply_lost, op="undefine")
        assert desk.type(undefine, "web", yes=True).code == 0
        sim.add_vm("db", "vmhost1", running=False)
        sim.faults.on(faults.silent, op="undefine")
        assert desk.type(undefine, "db", yes=True).code == 1


# -- dumpxml -----------------------------------------------------------------------------------------------


def test_dumpxml_prints_nothing_but_xml(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        ended = desk.type(dumpxml, "web")
        assert ended.code == 0
        assert ElementTree.fromstring(ended.out).get("id")
        assert "secret" not in ended.text
        inactive = desk.type(dumpxml, "web", inactive=True, security_info=True)
        assert ElementTree.fromstring(inactive.out).get("id") is None
        assert "secret" in inactive.out


def test_dumpxml_of_a_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim["vmhost2"].define(sim["vmhost1"].definitions[vm.uuid].xml.replace("br0", "br1"))
        refused(desk.type(dumpxml, "web"), "vmhost1, vmhost2")
        assert "br1" in desk.type(dumpxml, "web", hosts=["vmhost2"]).out


def test_dumpxml_of_several(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost1")
        ended = desk.type(dumpxml, "*")
        refused(ended, "one VM")
        assert ended.out == ""
