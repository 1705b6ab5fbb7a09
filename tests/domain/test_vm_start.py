"""vm.start on the simulated cluster: where it starts, every refusal, every race."""

from __future__ import annotations

import pytest

from tasks.vmpower import shutdown, start
from tests.domain.desk import NASTY, Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.guests import Behaviour


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended
    for word in words:
        assert word in ended.text, ended
    assert "Traceback" not in ended.text


# -- where it starts ---------------------------------------------------------------------------------------


def test_starts_where_it_is_defined(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost3", running=False)
        ended = desk.type(start, "web")
        assert ended.code == 0, ended
        assert sim.where(vm) == ("vmhost3",)
        assert sim["vmhost3"].running_vms == "web\n"
        assert "the only host that defines it" in ended.out
        assert desk.ops("watch") == ["watch"]


def test_starts_where_running_vms_names_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2", "vmhost3"))
        sim["vmhost2"].running_vms = "db\r\nweb\n"
        assert desk.type(start, "web").code == 0
        assert sim.where(vm) == ("vmhost2",)


def test_who_shares_its_image_does_not_come_back_at_a_boot(sim: SimCluster, desk: Desk) -> None:
    with sim:
        disk = Disk("/vmstorage/shared.qcow2")
        web = sim.add_vm("web", "vmhost1", disks=[disk])
        twin = sim.add_vm("twin", "vmhost3", disks=[disk], running=False)
        sim["vmhost1"].crash(web.uuid)
        assert desk.type(start, "twin").code == 0
        assert sim["vmhost1"].running_vms == ""
        sim["vmhost1"].power_off(10.0)
        sim.wait(60.0)
        assert (sim.where(web), sim.where(twin)) == ((), ("vmhost3",))


@pytest.mark.parametrize(("patience", "code"), [(1.0, 3), (5.0, 0)])
def test_a_busy_host_is_waited_for(sim: SimCluster, desk: Desk, patience: float, code: int) -> None:
    """What the others said is too old when it answers after 3 s: it has to become quicker."""
    desk.inventory["patience"] = patience
    with sim:
        vm = sim.add_vm("web", "vmhost3", running=False)
        sim.faults.on(
            lambda call: call.cluster.wait(3.0),
            op="running",
            host="vmhost1",
            n=None,
            match=lambda call: call.at < 60,
        )
        ended = desk.type(start, "web")
        assert ended.code == code, ended
        assert sim.where(vm) == (() if code else ("vmhost3",))
        assert ("the first answers are too old after 2 s" in ended.text) == bool(code)
        assert ("Nothing was started" in ended.text) == bool(code)


def test_does_not_start_what_another_host_would_start_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].crash(vm.uuid)
        sim.faults.on(faults.fail("file", "Read-only file system"), op="note_running", host="vmhost1")
        ended = desk.type(start, "web", hosts=["vmhost2"])
        assert ended.code == 1, ended
        assert "vmhost1 would start web at its next boot" in ended.text
        assert sim.where(vm) == ()


def test_starts_where_it_ran_last(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        # Clocks differ by more than the time between the two traces.
        sim["vmhost1"].clock_skew = 500.0
        sim["vmhost1"].start(vm.uuid)
        sim.wait(10)
        sim["vmhost1"].destroy(vm.uuid)
        sim.wait(60)
        sim["vmhost2"].start(vm.uuid)
        sim.wait(10)
        assert desk.type(shutdown, "web").code == 0
        assert desk.type(start, "web").code == 0
        assert sim.where(vm) == ("vmhost2",)


def test_refuses_when_nothing_tells_where(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        refused(desk.type(start, "web"), "vmhost1, vmhost2", "nothing tells", "fab -H vmhost1")
        assert sim.where("web") == ()


def test_host_of_the_operator_wins(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        sim["vmhost1"].running_vms = "db\nweb\n"
        assert desk.type(start, "web", hosts=["vmhost2"]).code == 0
        assert sim.where(vm) == ("vmhost2",)
        # After a reboot vmhost1 would start it a second time.
        assert sim["vmhost1"].running_vms == "db\n"


def test_takes_its_definition_along(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        ended = desk.type(start, "web", hosts=["vmhost4"])
        assert ended.code == 0, ended
        assert "takes its definition along from vmhost1" in ended.out
        assert sim.where(vm) == ("vmhost4",)
        assert "secret" in sim["vmhost4"].definitions[vm.uuid].xml


def test_takes_along_what_two_hosts_define_alike(sim: SimCluster, desk: Desk) -> None:
    """After a power loss the host that owns the images may be the one that has no definition any more."""
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        sim["vmhost2"].definitions[vm.uuid].xml = (
            sim["vmhost2"].definitions[vm.uuid].xml.replace("br0", "br1")
        )
        refused(desk.type(start, "web", hosts=["vmhost3"]), "nothing tells")
        sim["vmhost2"].define(sim["vmhost1"].definitions[vm.uuid].xml)
        assert desk.type(start, "web", hosts=["vmhost3"]).code == 0
        assert sim.where(vm) == ("vmhost3",)


def test_never_takes_along_what_is_tied_to_its_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, disks=[Disk("/var/lib/web.img")])
        refused(desk.type(start, "web", hosts=["vmhost2"]), "is not on /vmstorage")
        assert not desk.ops("define", "start")


def test_already_there_is_fine(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(start, "web", json=True)
        assert ended.code == 0
        (result,) = ended.document["results"]
        assert (result["result"], result["host"]) == ("already", "vmhost1")
        assert desk.type(start, "web", hosts=["vmhost1"]).code == 0
        assert not desk.ops("start")


def test_several_and_patterns(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "web-01", "web-02", "db"):
            sim.add_vm(name, "vmhost1", running=False)
        assert desk.type(start, "web").code == 0
        assert sim.where("web-01") == ()
        assert desk.type(start, "web-*,db").code == 0
        assert all(sim.where(name) == ("vmhost1",) for name in ("web", "web-01", "web-02", "db"))


@pytest.mark.parametrize("name", NASTY)
def test_any_name(sim: SimCluster, desk: Desk, name: str) -> None:
    with sim:
        sim.add_vm(name, "vmhost2", running=False)
        sim.add_vm("other", "vmhost2", running=False)
        assert desk.type(start, name).code == 0
        assert sim.where(name) == ("vmhost2",)
        assert sim.where("other") == ()
        assert sim["vmhost2"].running_vms == f"{name}\n"
        assert desk.type(shutdown, name).code == 0
        assert sim["vmhost2"].running_vms == ""


def test_dry_run_changes_nothing(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost3", running=False)
        ended = desk.type(start, "web", dry_run=True)
        assert ended.code == 0
        assert "web: to start on vmhost3" in ended.out
        assert not desk.ops("start", "define", "note_running", "store.lock", "store.init")


# -- refusals ----------------------------------------------------------------------------------------------


def test_refuses_what_runs_elsewhere(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        refused(desk.type(start, "web", hosts=["vmhost2"]), "vmhost1", "fab migrate")
        assert sim.where(vm) == ("vmhost1",)


@pytest.mark.parametrize("running_on", ["vmhost1", "vmhost4"])
def test_refuses_while_another_vm_writes_its_image(sim: SimCluster, desk: Desk, running_on: str) -> None:
    with sim:
        disk = Disk("/vmstorage/shared.qcow2")
        sim.add_vm("old-web", running_on, disks=[disk])
        sim.store.links["by-name.qcow2"] = "shared.qcow2"
        sim.add_vm("web", "vmhost1", running=False, disks=[Disk("/vmstorage/by-name.qcow2")])
        refused(desk.type(start, "web"), "old-web", running_on)
        assert sim.where("web") == ()


def test_shareable_disks_do_not_hinder(sim: SimCluster, desk: Desk) -> None:
    with sim:
        shared = Disk("/vmstorage/quorum.img", target="vdb", shareable=True)
        sim.add_vm("node1", "vmhost1", disks=[Disk("/vmstorage/n1.qcow2"), shared])
        sim.add_vm("node2", "vmhost2", running=False, disks=[Disk("/vmstorage/n2.qcow2"), shared])
        assert desk.type(start, "node2").code == 0


def test_refuses_two_at_once_on_one_image(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "web-copy"):
            sim.add_vm(name, "vmhost1", running=False, disks=[Disk("/vmstorage/one.qcow2")])
        refused(desk.type(start, "web*"), "writes an image of web")
        assert not desk.ops("start")


def test_refuses_while_a_lost_process_is_alive(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].lose_track("web")
        refused(desk.type(start, "web", hosts=["vmhost2"]), "vmhost1", "qemu process")
        assert sim.where(vm) == ("vmhost1",)


@pytest.mark.parametrize("trouble", ["cut", "libvirt_frozen", "libvirt_stopped", "sshd_frozen"])
def test_refuses_when_a_host_does_not_answer(sim: SimCluster, desk: Desk, trouble: str) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        if trouble == "cut":
            sim["vmhost4"].cut()
        else:
            setattr(sim["vmhost4"], trouble, True)
        refused(desk.type(start, "web"), "vmhost4", "cannot be asked")
        assert not desk.ops("start")


def test_unknown_vm_while_a_host_is_silent_is_not_called_absent(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim["vmhost4"].cut()
        refused(desk.type(start, "web"), "may be on vmhost4")


def test_unknown_vm(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        refused(desk.type(start, "wbe"), "Did you mean web?")


def test_tells_all_reasons_at_once(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, memory_mib=100 * 1024, bridge="br7")
        sim["vmhost1"].view.mounted = False
        sim["vmhost4"].cut()
        ended = desk.type(start, "web")
        refused(ended, "vmhost4: cannot be asked", "/vmstorage is not mounted", "br7", "needs 100.0 GiB")


def test_refuses_a_missing_image(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim.store.images.pop(f"{vm.uuid[:8]}.qcow2")
        refused(desk.type(start, "web"), "does not exist")


def test_refuses_a_managed_save_elsewhere(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].managed_save("web")
        refused(desk.type(start, "web", hosts=["vmhost2"]), "managed save", "vmhost1")
        assert sim.where("web") == ()


def test_goes_on_from_a_managed_save_where_it_was_saved(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].managed_save("web")
        assert desk.type(start, "web").code == 0
        assert sim.where("web") == ("vmhost1",)


def test_refuses_a_managed_save_that_is_out_of_date(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].managed_save("web")
        sim.wait(60)
        sim["vmhost2"].start(vm.uuid)
        sim.wait(60)
        sim["vmhost2"].destroy(vm.uuid)
        refused(desk.type(start, "web", hosts=["vmhost1"]), "ran later on vmhost2")


def test_cordoned_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim.store.files["cordons/vmhost1.json"] = (
            '{"host": "vmhost1", "by": "ada@laptop", "at": 1.0, "why": "new disks", "drains": []}'
        )
        refused(desk.type(start, "web"), "cordoned by ada@laptop: new disks", "--ignore-cordon")
        assert desk.type(start, "web", ignore_cordon=True).code == 0


def test_memory_and_reserve(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("big", "vmhost1", running=False, memory_mib=65 * 1024)
        refused(desk.type(start, "big"), "of memory left")
        sim.add_vm("a", "vmhost2", running=False, memory_mib=40 * 1024)
        sim.add_vm("b", "vmhost2", running=False, memory_mib=40 * 1024)
        refused(desk.type(start, "a,b"), "b cannot be started", "of memory left")
        assert not desk.ops("start")
        assert desk.type(start, "a,b", partial=True).code == 1
        assert (sim.where("a"), sim.where("b")) == (("vmhost2",), ())


def test_vms_that_want_to_be_apart(sim: SimCluster, desk: Desk) -> None:
    with sim:
        desk.inventory["apart"] = {"dns": ("ns*",)}
        sim.add_vm("ns1", "vmhost1")
        sim.add_vm("ns2", "vmhost1", running=False)
        refused(desk.type(start, "ns2"), "ns1", "'dns'", "--ignore-apart")
        assert desk.type(start, "ns2", ignore_apart=True).code == 0


def test_refuses_a_definition_in_conflict(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        other = "11111111-2222-3333-4444-555555555555"
        sim.add_vm("web", "vmhost2", running=False, uuid=other, disks=[Disk("/vmstorage/other.qcow2")])
        refused(desk.type(start, "web"), "different definitions", other)
        uuid = next(iter(sim["vmhost1"].definitions))
        refused(desk.type(start, uuid, hosts=["vmhost2"]), "defines another VM")


# -- when things go wrong ----------------------------------------------------------------------------------


def test_failed_start_is_off_and_said(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, behaviour=Behaviour(failing_starts={"": 1}))
        ended = desk.type(start, "web")
        assert ended.code == 1
        assert "closed the monitor" in ended.text
        assert sim["vmhost1"].running_vms is None


def test_dies_while_it_is_watched(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, behaviour=Behaviour(crash_after={"": 1.0}))
        ended = desk.type(start, "web")
        assert ended.code == 1
        assert "did not stay up" in ended.text


def test_lost_reply_is_observed_not_sent_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(faults.reply_lost, op="start")
        assert desk.type(start, "web").code == 0
        assert sim.where(vm) == ("vmhost1",)
        assert desk.ops("start") == ["start"]


def test_host_cut_at_the_start_is_unknown(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        sim.faults.on(faults.cut(), op="start")
        assert desk.type(start, "web", hosts=["vmhost1"]).code == 3
        # And it cannot be started elsewhere as long as nobody knows.
        refused(desk.type(start, "web", hosts=["vmhost2"]), "vmhost1", "cannot be asked")


def test_late_start_is_never_a_second_one(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(faults.delayed(60.0), op="start")
        assert desk.type(start, "web").code == 0
        sim.wait(120.0)
        assert sim.where(vm) == ("vmhost1",)


def test_started_by_hand_meanwhile(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        sim.faults.on(lambda call: sim["vmhost2"].start(vm.uuid), op="store.lock", when="after")
        refused(desk.type(start, "web", hosts=["vmhost1"]), "vmhost2")
        assert sim.where(vm) == ("vmhost2",)


def test_started_there_by_hand_meanwhile(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(lambda call: sim["vmhost1"].start(vm.uuid), op="store.lock", when="after")
        ended = desk.type(start, "web")
        assert ended.code == 0
        assert "meanwhile" in ended.text


def test_cordoned_meanwhile(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        cordon = '{"host": "vmhost1", "by": "a", "at": 1.0, "why": "", "drains": []}'
        sim.faults.on(
            lambda call: sim.store.files.update({"cordons/vmhost1.json": cordon}),
            op="store.lock",
            when="after",
        )
        refused(desk.type(start, "web"), "cordoned meanwhile")


@pytest.mark.parametrize("seed", range(12))
def test_two_operators_at_once(seed: int) -> None:
    sim = SimCluster(seed=seed)
    desk = Desk(sim)
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
        other = desk.beside(sim.another_laptop("other"), start, "web", hosts=["vmhost2"])
        one = desk.type(start, "web", hosts=["vmhost1"])
        two = other()
        assert sorted((one.code, two.code)) == [0, 2], (one, two)
        assert len(sim.where(vm)) == 1


def test_store_that_takes_no_lock(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(faults.fail("store", "Input/output error"), op="store.lock")
        refused(desk.type(start, "web"), "Input/output error")
        assert not desk.ops("start")
