"""Which VMs a dead host ran, read off files of all sorts."""

from __future__ import annotations

import json

from tasks.cluster.evacuate import stranded
from tasks.cluster.model import Snapshot, Vm
from tests.sim.domains import Disk, domain_xml
from tests.unit.observed import domain, host

DEAD = "vmhost3"
WEB = domain("web").vm


def xml(vm: Vm = WEB) -> str:
    return domain_xml(vm.name, vm.uuid, disks=[Disk(f"/vmstorage/{vm.name}.img")])


def owner(vm: Vm = WEB, on: str = DEAD, at: float = 5.0, **more: object) -> str:
    record = {"image": "store:1", "path": "/vmstorage/web.img", "host": on, "vm": vm.name, "uuid": vm.uuid}
    return json.dumps({**record, "boot_id": "old", "time": at, **more})


def mirrored(*hosts: str, vm: Vm = WEB) -> str:
    versions = [{"at": 9.0 - n, "host": name, "xml": xml(vm)} for n, name in enumerate(hosts)]
    return json.dumps({"uuid": vm.uuid, "name": vm.name, "versions": versions})


def find(
    owners: dict[str, str],
    *,
    snapshot: Snapshot | None = None,
    definitions: dict[str, str] | None = None,
    bases: dict[str, str] | None = None,
    meant: dict[str, tuple[str, str]] | None = None,
) -> stranded.Found:
    known = {f"{WEB.uuid}.json": mirrored(DEAD)} if definitions is None else definitions
    kept = stranded.Kept(owners, bases or {}, known, meant or {})
    return stranded.find(snapshot or Snapshot({"vmhost1": host("vmhost1")}), DEAD, kept)


def test_owner_files_tell_which_they_are() -> None:
    found = find({"a.json": owner(), "b.json": owner(at=3.0), "c.json": owner(domain("db").vm, "vmhost1")})
    (vm,) = found.vms
    assert (vm.vm, vm.since, sorted(vm.owned)) == (WEB, 3.0, ["a.json", "b.json"])
    assert found.refusals == found.notes == ()


def test_what_is_not_understood_is_told() -> None:
    for text in ("", "{}", "[1]", '{"uuid": 1}', "\x00"):
        found = find({"a.json": text})
        assert found.vms == ()
        assert "owners/a.json on the store is not understood" in found.notes[0]


def test_a_vm_that_arrives_at_the_dead_host_is_its_sources() -> None:
    assert find({"a.json": owner(on="vmhost1", to={"host": DEAD, "boot_id": "x", "time": 1})}).vms == ()
    leaving = find({"a.json": owner(to={"host": "vmhost1", "boot_id": "x", "time": 1})})
    assert [vm.vm for vm in leaving.vms] == [WEB]


def test_the_dead_hosts_own_definition_comes_first() -> None:
    for hosts, words in (
        (("vmhost1", DEAD), f"as on {DEAD}"),
        ((DEAD, "vmhost1"), f"as on {DEAD}"),
        (("vmhost1", "vmhost2"), "as on vmhost1"),
    ):
        (vm,) = find({"a.json": owner()}, definitions={f"{WEB.uuid}.json": mirrored(*hosts)}).vms
        assert vm.origin == f"kept on the store, {words}"


def test_without_a_definition_it_is_refused() -> None:
    for text in ("", "{}", '{"versions": []}', '{"versions": [{"host": "vmhost3", "xml": "<x/>"}]}'):
        found = find({"a.json": owner()}, definitions={f"{WEB.uuid}.json": text} if text else {})
        assert found.vms == ()
        assert "vm.define FILE" in found.refusals[0].reason


def test_one_that_runs_elsewhere_is_refused_or_done() -> None:
    running = Snapshot({"vmhost1": host("vmhost1", domain("web"))})
    (refusal,) = find({"a.json": owner()}, snapshot=running).refusals
    assert (refusal.vm, refusal.host) == ("web", "vmhost1")
    given = find({"a.json": owner(on="vmhost1")}, snapshot=running, meant={WEB.uuid: ("web", "vmhost1")})
    assert given.vms == given.refusals == ()


def test_what_an_earlier_evacuation_left_off_is_found_again() -> None:
    meant = {WEB.uuid: ("web", "vmhost1")}
    for owners in ({"a.json": owner(on="vmhost1")}, {"a.json": owner()}, {}):
        (vm,) = find(owners, meant=meant).vms
        assert (vm.vm, vm.meant, len(vm.owned)) == (WEB, "vmhost1", len(owners))
    assert find({"a.json": owner(on="vmhost2")}, meant=meant).vms == ()


def test_vms_that_were_off_are_told_and_stay() -> None:
    db = domain("db").vm
    definitions = {f"{WEB.uuid}.json": mirrored(DEAD), f"{db.uuid}.json": mirrored(DEAD, vm=db)}
    found = find({"a.json": owner()}, definitions=definitions)
    assert found.notes == (f"Defined on {DEAD} alone, and off: db. They stay off.",)


def test_handing_over_changes_host_and_boot_and_drops_the_dead_reader() -> None:
    reader = {"host": DEAD, "vm": "web", "uuid": WEB.uuid, "boot_id": "old", "time": 1}
    other = {**reader, "uuid": "other"}
    bases = {
        "x.json": json.dumps({"image": "i", "path": "p", "readers": [reader, other]}),
        "y.json": json.dumps({"image": "j", "path": "q", "readers": [reader]}),
        "z.json": json.dumps({"image": "k", "path": "r", "readers": [other]}),
    }
    text = owner(to={"host": "vmhost2", "boot_id": "x", "time": 1})
    (vm,) = find({"a.json": text}, bases=bases).vms
    changes = {
        path: (before, after) for path, before, after in stranded.handed_over(vm, DEAD, "vmhost1", "new", 7.0)
    }
    assert sorted(changes) == ["bases/x.json", "bases/y.json", "owners/a.json"]
    before, after = changes["owners/a.json"]
    assert before == text
    assert after is not None
    record = json.loads(after)
    assert (record["host"], record["boot_id"], record["time"]) == ("vmhost1", "new", 7.0)
    assert "to" not in record
    assert json.loads(changes["bases/x.json"][1] or "")["readers"] == [other]
    assert changes["bases/y.json"][1] is None
