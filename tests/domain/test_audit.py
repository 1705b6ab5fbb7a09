"""audit on the simulated cluster: what was made wrong by hand is named, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.audit import audit
from tasks.drain import drain, undrain
from tasks.evacuate import evacuate
from tasks.migrate import migrate
from tasks.status import status
from tasks.vmdefinitions import undefine
from tests.domain.desk import Desk, Ended
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.faults import fail, kill_laptop, reply_lost, silent
from tests.sim.guard import SimGuard
from tests.sim.law import LawBroken
from tests.sim.scheduler import SimKilled

ALL = ("vmhost1", "vmhost2", "vmhost3", "vmhost4")
READS = ("clock", "observe", "store.read_dir", "store.held", "store.images")


def findings(ended: Ended) -> list[dict[str, Any]]:
    """All but that hosts lack the guard: what is said of it is a subject of tests/lab."""
    document = ended.document
    unknown = any(f["severity"] == "unknown" for f in document["findings"])
    assert document["complete"] is not unknown
    assert ended.code == (3 if unknown else 1 if document["findings"] else 0)
    return [f for f in document["findings"] if f["kind"] != "guard-missing"]


def found(desk: Desk) -> dict[str, Any]:
    """The findings by kind, each kind once."""
    told = findings(desk.type(audit, json=True))
    assert len({f["kind"] for f in told}) == len(told), told
    return {f["kind"]: f for f in told}


def owner(sim: SimCluster, name: str, host: str, *, to: str = "", ago: float = 3600.0, **changes: Any) -> str:
    """Write the owner file that the guard on a host would have written for a VM's image."""
    definition = next(d for h in sim.hosts.values() for d in h.definitions.values() if d.name == name)
    key = f"store:{sim.store.image(definition.disks[0].path.removeprefix('/vmstorage/')).ino}"
    record: dict[str, Any] = {
        "image": key,
        "path": definition.disks[0].path,
        "host": host,
        "vm": name,
        "uuid": definition.uuid,
        "boot_id": sim[host].boot_id if host in sim.hosts else "gone",
        "time": sim.clock.now() - ago,
    }
    if to:
        record["to"] = {"host": to, "boot_id": "there", "time": sim.clock.now() - ago}
    file = f"owners/{key}.json"
    sim.store.files[file] = json.dumps({**record, **changes})
    return file


# -- a cluster that is well ----------------------------------------------------------------------------


def test_a_good_cluster_has_no_findings_and_is_not_touched(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=ALL[1:])
        sim.add_vm("off", "vmhost2", running=False)
        sim.add_vm("iso", "vmhost3", disks=[Disk("/vmstorage/i.qcow2"), Disk("", "sda", device="cdrom")])
        ended = desk.type(audit, json=True)
        assert findings(ended) == []
        assert ended.document["asked"] == {"hosts": 4, "hosts_answering": 4, "vms": 3, "images": 3}
        assert {call.op for call in sim.calls} <= {*READS, "file.read"}
        assert sim.store.files == {}
        assert max([c.host.name for c in sim.calls].count(host) for host in ALL) <= 8


def test_nothing_is_left_by_a_drain_and_its_undrain(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "db", "mail"):
            sim.add_vm(name, "vmhost1")
        sim.add_vm("git", "vmhost2")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        assert found(desk) == {}
        assert desk.type(undrain, hosts=["vmhost1"], yes=True).code == 0
        assert found(desk) == {}


@pytest.mark.parametrize("after", [0.0, 0.5, 1.0, 2.0, 5.0, 9.0])
def test_a_move_under_way_is_no_finding(sim: SimCluster, desk: Desk, after: float) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.behaviour("web").off_after = 4.0
        move = desk.beside(sim.another_laptop("other"), migrate, "web", to="vmhost2", yes=True)
        sim.wait(after)
        seen = desk.type(audit, json=True)
        assert findings(seen) == [], sim.history
        assert move().code == 0
        assert found(desk) == {}


# -- the law -------------------------------------------------------------------------------------------


def test_a_vm_on_two_hosts(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2"])
        with pytest.raises(LawBroken):
            sim["vmhost2"].start(vm.uuid)
        seen = found(desk)
        twice = seen.pop("runs-twice")
        assert (twice["severity"], twice["hosts"], twice["vms"]) == (
            "breach",
            ["vmhost1", "vmhost2"],
            ["web"],
        )
        assert twice["evidence"] == [f"{h}: libvirt lists it as running" for h in twice["hosts"]]
        assert "fab -H vmhost2 vm.destroy web" in twice["advice"]
        # The list of vmhost2 lacks it, because nobody wrote it there.
        assert set(seen) == {"running-vms"}
        shown = desk.type(audit)
        assert shown.out.startswith("BREACH: web RUNS ON 2 HOSTS: vmhost1, vmhost2.")
        sim.forgive()


def test_two_definitions_of_one_image(sim: SimCluster, desk: Desk) -> None:
    with sim:
        disk = [Disk("/vmstorage/web.qcow2")]
        sim.add_vm("web", "vmhost1", disks=disk)
        sim.add_vm("copy", "vmhost2", disks=disk, running=False)
        sim.store.links["link.qcow2"] = "web.qcow2"
        sim.add_vm("linked", "vmhost3", disks=[Disk("/vmstorage/link.qcow2")], running=False)
        shared = found(desk)["shared-image"]
        assert (shared["severity"], shared["vms"]) == ("danger", ["copy", "linked", "web"])
        uuids = [sim[host].find(name).uuid for host, name in (("vmhost2", "copy"), ("vmhost3", "linked"))]
        assert shared["advice"][1:] == [
            f"fab -H {host} vm.undefine {uuid}"
            for host, uuid in zip(("vmhost2", "vmhost3"), uuids, strict=True)
        ]
        with pytest.raises(LawBroken):
            sim["vmhost2"].start("copy")
        seen = found(desk)
        assert seen["image-twice"]["vms"] == ["copy", "web"]
        assert "shared-image" not in seen
        sim.forgive()


def test_shareable_and_read_only_disks_are_free(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name, host in (("a", "vmhost1"), ("b", "vmhost2")):
            own, quorum = Disk(f"/vmstorage/{name}.img"), Disk("/vmstorage/q.img", "vdb", shareable=True)
            sim.add_vm(name, host, disks=[own, quorum, Disk("/vmstorage/lib.img", "vdc", read_only=True)])
        assert found(desk) == {}


def test_a_base_that_another_vm_writes(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("golden", "vmhost1", disks=[Disk("/vmstorage/golden.img")])
        sim.add_vm("child", "vmhost2", disks=[Disk("/vmstorage/child.qcow2")])
        sim.store.image("child.qcow2").bases = ("golden.img",)
        base = found(desk)["base-written"]
        assert (base["severity"], base["vms"]) == ("danger", ["golden", "child"])


# -- owner files ---------------------------------------------------------------------------------------


def test_right_owners_are_no_finding(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        owner(sim, "web", "vmhost1")
        assert found(desk) == {}


def test_an_owner_that_does_not_run_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost2", also_defined_on=["vmhost1"])
        owner(sim, "web", "vmhost1")
        wrong = found(desk)["owner-wrong"]
        assert (wrong["severity"], wrong["hosts"]) == ("danger", ["vmhost1", "vmhost2"])
        assert wrong["advice"] == ["fab -H vmhost2 host.guard"]


def test_an_owner_of_a_vm_that_is_off(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        file = owner(sim, "web", "vmhost1")
        left = found(desk)["owner-left"]
        assert left["severity"] == "drift"
        assert any(f"rm /vmstorage/.vmfab/{file}" in line for line in left["advice"])
        # Its host has booted since: so a crash leaves it.
        owner(sim, "web", "vmhost1", boot_id="before")
        assert found(desk) == {}
        assert "Note: web is off and stays owned by vmhost1" in desk.type(audit).out
        # Claimed for a start that is under way.
        owner(sim, "web", "vmhost1", ago=5.0)
        assert found(desk) == {}


def test_an_owner_of_an_earlier_boot(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        owner(sim, "web", "vmhost1", boot_id="before")
        assert set(found(desk)) == {"owner-old"}


def test_a_hand_over_that_never_ended(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2"])
        owner(sim, "web", "vmhost1", to="vmhost2", ago=30.0)
        assert found(desk) == {}
        owner(sim, "web", "vmhost1", to="vmhost2", ago=1800.0)
        stuck = found(desk)["hand-over"]
        assert "for 30 minutes" in stuck["text"]
        assert stuck["advice"] == ["fab -H vmhost1 host.guard"]
        sim["vmhost1"].destroy("web")
        sim["vmhost1"].running_vms = ""
        assert any("rm /vmstorage" in line for line in found(desk)["hand-over"]["advice"])


def test_a_live_migration_is_no_double_run(sim: SimCluster, desk: Desk) -> None:
    """On its way both hosts list it, and the destination's is paused."""
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2"])
        owner(sim, "web", "vmhost1", to="vmhost2", ago=20.0)
        with pytest.raises(LawBroken):
            sim["vmhost2"].start(vm.uuid)
        sim["vmhost2"].suspend(vm.uuid)
        assert "runs-twice" not in found(desk)
        owner(sim, "web", "vmhost1", to="vmhost3", ago=20.0)
        assert "runs-twice" in found(desk)
        sim.forgive()


def test_owners_that_nobody_can_be(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        owner(sim, "web", "vmhost9")
        assert "vmhost9 is not in the inventory" in found(desk)["owner-unknown"]["text"]
        sim.store.files.clear()
        sim.store.files["owners/store:7.json"] = "{"
        assert set(found(desk)) == {"owner-unclear"}


# -- hosts ---------------------------------------------------------------------------------------------


def test_a_silent_host_is_said_and_ends_with_3(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.store.image("unused.qcow2")
        sim["vmhost3"].cut()
        seen = found(desk)
        assert set(seen) == {"silent", "not-judged"}
        assert seen["not-judged"]["text"] == "Not judged: images that no definition uses."
        assert desk.type(audit).out.endswith("Not everything could be looked at.\n")


def test_the_lock_of_a_silent_host_tells_whether_it_is_up(sim: SimCluster, desk: Desk) -> None:
    with sim:
        link = sim.session().host("vmhost3")
        link.store_lock("hosts/vmhost3", {"host": "vmhost3", "since": sim.clock.now()})
        sim["vmhost3"].reachable = False
        assert "is held" in found(desk)["silent"]["evidence"][0]
        sim["vmhost3"].power_off()
        sim.wait(sim.eviction + 1)
        assert "is free (it was taken 2030-" in found(desk)["silent"]["evidence"][0]


def test_a_frozen_libvirtd(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].freeze_libvirt()
        assert set(found(desk)) == {"libvirt", "not-judged"}


def test_nobody_answers(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for host in sim.hosts.values():
            host.cut()
        ended = desk.type(audit, json=True)
        assert ended.code == 3
        kinds = [f["kind"] for f in ended.document["findings"]]
        assert kinds.count("silent") == 4
        assert kinds.count("not-judged") == 5


def test_stores(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost2"].view.mounted = False
        assert found(desk)["store"]["hosts"] == ["vmhost2"]
        for host in ALL:
            sim[host].view.mounted = False
        ended = desk.type(audit, json=True)
        assert ended.code == 3
        kinds = [f["kind"] for f in ended.document["findings"]]
        assert (kinds.count("store"), kinds.count("not-judged")) == (4, 5)


def test_another_store(sim: SimCluster, desk: Desk) -> None:
    from tests.sim.store import SimStore, View

    with sim:
        sim["vmhost4"].view = View(SimStore("another"))
        assert (found(desk)["other-store"]["severity"], found(desk)["other-store"]["hosts"]) == (
            "danger",
            ["vmhost4"],
        )


@pytest.mark.parametrize(("skews", "names"), [((3.0,), ["vmhost1"]), ((1.5,), []), ((-9.0,), ["vmhost1"])])
def test_clocks(sim: SimCluster, desk: Desk, skews: tuple[float, ...], names: list[str]) -> None:
    with sim:
        for host, skew in zip(ALL, skews, strict=False):
            sim[host].clock_skew = skew
        seen = found(desk)
        assert [host for f in seen.values() for host in f["hosts"]] == names
        assert set(seen) == ({"clock"} if names else set())


def test_the_laptop_may_be_the_one_that_is_wrong(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for host in sim.hosts.values():
            host.clock_skew = 60.0
        clock = found(desk)["clock"]
        assert clock["text"] == "The clock of this laptop is 60.0 s behind that of most others."
        assert len(clock["evidence"]) == 4


FAULTS = {"silent": silent, "reply lost": reply_lost, "store": fail("store", "/vmstorage hangs")}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("op", READS)
def test_what_fails_everywhere_is_said_and_accuses_nobody(
    sim: SimCluster, desk: Desk, op: str, fault: str
) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2"])
        owner(sim, "web", "vmhost1")
        sim.store.image("unused.qcow2")
        sim.faults.on(FAULTS[fault], op=op, n=None)
        ended = desk.type(audit, json=True)
        assert ended.code == 3, ended.text
        assert {f["kind"] for f in findings(ended)} <= {"silent", "not-judged", "unused-image"}


@pytest.mark.parametrize("op", [op for op in READS if op.startswith("store.")])
def test_what_one_host_cannot_read_is_read_through_another(sim: SimCluster, desk: Desk, op: str) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.faults.on(fail("store", "/vmstorage hangs"), op=op, host="vmhost1", n=None)
        assert found(desk) == {}


# -- what the next boot would do -----------------------------------------------------------------------


def test_autostart(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].autostart("web", on=True)
        seen = found(desk)["autostart"]
        assert (seen["severity"], seen["vms"]) == ("danger", ["web"])
        assert seen["advice"] == ["fab -H vmhost1 host.autostart"]


def test_running_vms(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost1")
        sim["vmhost1"].running_vms = "web\nold\n"
        seen = found(desk)["running-vms"]
        assert (seen["severity"], seen["vms"]) == ("drift", ["db", "old"])
        assert seen["advice"] == ["fab -H vmhost1 host.save-running"]
        sim["vmhost1"].running_vms = None
        assert found(desk)["running-vms"]["evidence"][0] == "there is no such file"
        sim["vmhost1"].running_vms = "web\ndb\n"
        sim["vmhost2"].running_vms = "web\n"
        seen = found(desk)["running-vms"]
        assert (seen["severity"], seen["hosts"]) == ("danger", ["vmhost2"])


def test_a_managed_save_that_was_left_behind(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2"])
        sim["vmhost1"].managed_save("web")
        sim["vmhost1"].running_vms = None
        assert found(desk) == {}
        sim.wait(5)
        sim["vmhost2"].start(vm.uuid)
        sim["vmhost2"].running_vms = "web\n"
        save = found(desk)["managed-save"]
        assert (save["severity"], save["hosts"], save["evidence"][0]) == (
            "danger",
            ["vmhost1"],
            "It runs on vmhost2.",
        )
        assert save["advice"][1] == f"On vmhost1: virsh managedsave-remove {vm.uuid}"
        sim.wait(5)
        sim["vmhost2"].destroy("web")
        sim["vmhost2"].running_vms = None
        assert found(desk)["managed-save"]["evidence"][0] == "It ran on vmhost2 since."


def test_a_paused_vm(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].suspend("web")
        assert found(desk)["halted"]["vms"] == ["web"]


# -- definitions, operations, images -------------------------------------------------------------------


def test_definitions_that_differ(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost2", "vmhost3"])
        xml = sim["vmhost1"].dumpxml("web", inactive=True, security=True)
        sim["vmhost2"].define(xml.replace("1048576", "524288"))
        sim["vmhost3"].define(xml.replace("secret", "sesame"))
        seen = found(desk)["definition"]
        assert seen["hosts"] == ["vmhost1", "vmhost2", "vmhost3"]
        assert seen["vms"] == [vm.name]
        assert "  -<memory>524288</memory>" in seen["evidence"]
        assert "  +<memory>1048576</memory>" in seen["evidence"]
        assert "  only their passwords differ" in seen["evidence"]
        assert "sesame" not in json.dumps(seen)
        assert seen["advice"][1:] == [
            "fab -H vmhost1 vm.dumpxml web --inactive --security-info > web.xml",
            "fab -H vmhost2 vm.define web.xml",
            "fab -H vmhost3 vm.define web.xml",
        ]


def test_one_name_for_two_vms(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        other = sim.add_vm("web", "vmhost2", running=False, uuid="11111111-2222-4333-8444-555555555555")
        told = found(desk)["two-uuids"]["advice"]
        assert told[1:] == [f"On vmhost2: virsh undefine --keep-nvram {other.uuid}"]
        sim["vmhost1"].destroy("web")
        sim["vmhost1"].running_vms = ""
        told = found(desk)["two-uuids"]["advice"]
        assert told[2] == f"fab -H vmhost2 vm.undefine {other.uuid}"
        assert desk.type(undefine, other.uuid, hosts=["vmhost2"], yes=True).code == 0
        # Its image is left.
        assert set(found(desk)) == {"unused-image"}


def test_cordons(sim: SimCluster, desk: Desk) -> None:
    with sim:
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        sim.wait(86000)
        assert found(desk) == {}
        sim.wait(2 * 86400)
        assert found(desk)["cordon-old"]["advice"] == ["When it is ready again: fab -H vmhost1 undrain"]
        text = json.loads(sim.store.files.pop("cordons/vmhost1.json"))
        sim.store.files["cordons/vmhost9.json"] = json.dumps({**text, "host": "vmhost9"})
        assert found(desk)["cordon-unknown"]["hosts"] == ["vmhost9"]
        del sim.store.files["cordons/vmhost9.json"]
        sim.store.files["cordons/vmhost2.json"] = json.dumps({**text, "host": "vmhost2", "why": "evacuated"})
        assert found(desk)["evacuated"]["hosts"] == ["vmhost2"]
        sim["vmhost2"].cut()
        assert set(found(desk)) == {"silent", "not-judged"}


def test_an_evacuated_host_that_is_back(sim: SimCluster, desk: Desk) -> None:
    """Its list still names what was taken from it, and its restart script leaves that off: no danger."""
    with sim:
        for name in ("web", "db"):
            sim.add_vm(name, "vmhost3")
        SimGuard(sim)
        sim["vmhost3"].power_off()
        sim.wait(sim.eviction + 10.0)
        assert desk.type(evacuate, hosts=["vmhost3"], confirm="vmhost3", to="vmhost1").code == 0
        sim["vmhost3"].power_on()
        sim.wait(120.0)
        assert set((sim["vmhost3"].running_vms or "").split()) == {"web", "db"}
        seen = besides_guards(desk)
        assert set(seen) == {"evacuated"}
        assert seen["evacuated"]["vms"] == ["db", "web"]
        assert "it starts none of them" in seen["evacuated"]["text"]
        assert "web was taken from it and runs on vmhost1" in seen["evacuated"]["evidence"]
        assert seen["evacuated"]["advice"][1::2] == [
            "fab -H vmhost3 undrain",
            "fab -H vmhost3 undrain --stay",
        ]
        told = desk.type(status).out
        assert "is back: its VMs were started elsewhere, it starts none of them" in told
        # A list that names others as well is told of these alone.
        sim.add_vm("mail", "vmhost3", running=False)
        sim["vmhost3"].running_vms = "web\nmail\ndb\n"
        assert besides_guards(desk)["running-vms"]["vms"] == ["mail"]
        sim["vmhost3"].running_vms = "web\ndb\n"
        assert desk.type(undrain, hosts=["vmhost3"], yes=True, stay=True).code == 0
        assert besides_guards(desk) == {}


def besides_guards(desk: Desk) -> dict[str, Any]:
    """As `found`; the simulated guard has fewer files than the real one."""
    told = findings(desk.type(audit, json=True))
    return {f["kind"]: f for f in told if f["kind"] != "guard-outdated"}


def test_a_command_that_was_killed(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        laptop = sim.another_laptop("other")
        sim.faults.on(kill_laptop, op="start", host="vmhost2")
        move = desk.beside(laptop, migrate, "web", to="vmhost2", yes=True)
        with pytest.raises(SimKilled):
            move()
        sim.wait(60)
        seen = found(desk)["interrupted"]
        assert seen["vms"] == ["web"]
        assert "web (vmhost1 to vmhost2): runs nowhere that was seen" in seen["evidence"]
        assert seen["advice"] == ["fab resume"]


def test_a_command_at_work_is_a_note(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.behaviour("web").off_after = 60.0
        move = desk.beside(sim.another_laptop("other"), migrate, "web", to="vmhost2", yes=True)
        sim.wait(20)
        ended = desk.type(audit, json=True)
        assert findings(ended) == []
        assert "is under way" in ended.document["notes"][0]
        assert move().code == 0


def test_a_damaged_journal(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.store.files["moves/20300101T000000Z-abcdef.json"] = "{}\n"
        assert set(found(desk)) == {"journal-unclear"}


def test_images_that_nobody_uses(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", disks=[Disk("/vmstorage/top.qcow2")], running=False)
        sim.store.image("top.qcow2").bases = ("middle.qcow2",)
        sim.store.image("middle.qcow2").bases = ("base.img",)
        sim.store.image("base.img")
        assert found(desk) == {}
        sim.store.image("old/mail.qcow2")
        seen = found(desk)["unused-image"]
        assert seen["text"] == "An image, which takes 1.0 GiB, is used by no definition."
        assert seen["evidence"][0].startswith(
            "/vmstorage/old/mail.qcow2: qcow2, takes 1.0 GiB, last changed "
        )
        assert not any("rm " in line for line in seen["advice"])
        # Where the store is not mounted, a definition means the same file by its path.
        sim["vmhost1"].view.mounted = False
        assert len(found(desk)["unused-image"]["evidence"]) == 1


def test_names_cannot_steer_the_terminal(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web\u202etxt", "vmhost1")
        sim["vmhost1"].suspend("web\u202etxt")
        assert "\u202e" not in desk.type(audit).out
