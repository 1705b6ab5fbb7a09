"""vm.shutdown, vm.destroy and vm.reboot on the simulated cluster."""

from __future__ import annotations

import pytest

from tasks.vmpower import destroy, reboot, shutdown
from tests.domain.desk import Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.guests import Behaviour
from tests.sim.law import LawBroken


def refused(ended: Ended, *words: str) -> None:
    assert ended.code == 2, ended
    for word in words:
        assert word in ended.text, ended
    assert "Traceback" not in ended.text


# -- shutdown ----------------------------------------------------------------------------------------------


def test_waits_until_it_is_off(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost2", behaviour=Behaviour(off_after=40.0))
        ended = desk.type(shutdown, "web")
        assert ended.code == 0, ended
        assert sim.where("web") == ()
        assert sim["vmhost2"].running_vms == ""
        assert "web: shutting down on vmhost2 (180 s at most)" in ended.out
        assert "web: still shutting down on vmhost2" in ended.out
        assert desk.ops("running"), "every host is asked at the end"


def test_asks_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(ignores=2))
        assert desk.type(shutdown, "web").code == 0


def test_not_off_in_time_still_runs(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))
        ended = desk.type(shutdown, "web", timeout=20.0)
        assert ended.code == 1
        assert "within 20 s" in ended.text
        assert "vm.destroy" in ended.text
        assert sim.where("web") == ("vmhost1",)
        assert sim["vmhost1"].running_vms == "web\n"
        assert not desk.ops("destroy")


def test_timeout_of_the_inventory(sim: SimCluster, desk: Desk) -> None:
    with sim:
        desk.inventory["shutdown_timeouts"] = {"we*": 33.0}
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))
        assert "within 33 s" in desk.type(shutdown, "web").text


def test_already_off(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        ended = desk.type(shutdown, "web", json=True)
        assert ended.code == 0
        assert ended.document["results"][0]["result"] == "already"
        assert not desk.ops("shutdown")


def test_takes_the_name_out_of_every_list(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost3"].running_vms = "web\ndb"
        assert desk.type(shutdown, "web").code == 0
        assert sim["vmhost3"].running_vms == "db\n"


def test_several_at_the_same_time_after_a_question(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for number in range(6):
            sim.add_vm(f"vm{number}", "vmhost1", behaviour=Behaviour(off_after=30.0))
        refused(desk.type(shutdown, "vm*"), "no terminal", "Shut down 6 VMs?", "--yes")
        begin = sim.clock.monotonic()
        assert desk.type(shutdown, "vm*", yes=True).code == 0
        assert sim.clock.monotonic() - begin < 45
        assert not sim["vmhost1"].guests


def test_off_is_not_claimed_while_a_host_is_silent(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim["vmhost4"].cut()
        ended = desk.type(shutdown, "web")
        refused(ended, "vmhost4", "cannot be asked", "Look at vmhost4 itself", "fab -H vmhost4 evacuate")
        assert ended.err.endswith("Nothing was changed. When vmhost4 answers, type the same again.\n")
        several = desk.type(destroy, "web*", yes=True)
        refused(several, "When vmhost4 answers, type the same again.")
        sim["vmhost4"].mend()
        sim["vmhost4"].libvirt_frozen = True
        refused(desk.type(destroy, "web", yes=True), "On vmhost4: systemctl status libvirtd.")


def test_silent_host_does_not_keep_it_running_but_is_told(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost4"].cut()
        ended = desk.type(shutdown, "web")
        assert ended.code == 3
        assert "off on vmhost1, but not proved" in ended.text
        assert "Look at vmhost4; when it answers, the same again tells" in ended.text
        assert sim.where("web") == ()


def test_only_the_named_host_counts(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost4"].cut()
        assert desk.type(shutdown, "web", hosts=["vmhost1"]).code == 0


def test_runs_twice_is_refused_without_a_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        with pytest.raises(LawBroken):
            sim["vmhost2"].start(vm.uuid)
        refused(desk.type(shutdown, "web"), "vmhost1", "vmhost2", "choose one with -H")
        assert desk.type(destroy, "web", hosts=["vmhost2"], yes=True).code == 0
        assert sim.where(vm) == ("vmhost1",)
        # What was broken here was broken by hand, for this test.
        sim.law.forgive()


@pytest.mark.parametrize(("make", "remedy"), [("suspend", "resume it"), ("lose_track", "by hand")])
def test_states_that_do_not_react(sim: SimCluster, desk: Desk, make: str, remedy: str) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        getattr(sim["vmhost1"], make)("web")
        refused(desk.type(shutdown, "web"), "vmhost1", remedy)
        assert sim.where("web") == ("vmhost1",)


def test_started_elsewhere_meanwhile_is_no_success(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim.faults.on(lambda call: sim["vmhost2"].start(vm.uuid), op="wait_off", when="after")
        ended = desk.type(shutdown, "web")
        assert ended.code == 1
        assert "vmhost2" in ended.text


def test_host_cut_for_good_is_unknown(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.cut(), op="wait_off")
        ended = desk.type(shutdown, "web")
        assert ended.code == 3
        assert "counts as running" in ended.text


def test_host_cut_for_a_while_is_waited_for(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.cut(10.0), op="wait_off")
        assert desk.type(shutdown, "web").code == 0


def test_broken_store_does_not_keep_it_running(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].view.read_only = True
        ended = desk.type(shutdown, "web")
        assert ended.code == 0, ended
        assert "lock could not be taken" in ended.text


def test_second_operator_is_told_who_is_at_work(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=30.0))
        first = desk.beside(sim.another_laptop("other"), shutdown, "web")
        sim.wait(5.0)
        refused(desk.type(destroy, "web", yes=True), "is being worked on")
        assert first().code == 0


def test_dry_run_of_a_shutdown(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(shutdown, "web", dry_run=True)
        assert ended.code == 0
        assert "web: running on vmhost1, to be shut down" in ended.out
        assert not desk.ops("shutdown", "store.lock", "note_running")
        assert sim.where("web") == ("vmhost1",)


# -- destroy -----------------------------------------------------------------------------------------------


def test_destroy_asks(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        refused(desk.type(destroy, "web"), "no terminal", "Cut the power of 1 VM?")
        assert sim.where("web") == ("vmhost1",)


@pytest.mark.parametrize("stubborn", [False, True])
def test_destroy_first_gently(sim: SimCluster, desk: Desk, stubborn: bool) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(ignores_sigterm=stubborn))
        assert desk.type(destroy, "web", yes=True).code == 0
        sent = [call.args["graceful"] for call in sim.calls if call.op == "destroy"]
        assert sent == ([True, False] if stubborn else [True])
        assert sim.where("web") == ()
        assert sim["vmhost1"].running_vms == ""


def test_destroy_that_fails_counts_as_running(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(destroy="fails"))
        ended = desk.type(destroy, "web", yes=True)
        assert ended.code == 3
        assert "counts as running" in ended.text
        assert sim.where("web") == ("vmhost1",)
        assert sim["vmhost1"].running_vms == "web\n"


def test_destroy_of_a_paused_one(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost1"].suspend("web")
        assert desk.type(destroy, "web", yes=True).code == 0
        assert sim.where("web") == ()


def test_destroy_leaves_image_and_definition(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", disks=[Disk("/vmstorage/web.qcow2")])
        assert desk.type(destroy, "web", yes=True).code == 0
        assert "web.qcow2" in sim.store.images
        assert vm.uuid in sim["vmhost1"].definitions


def test_destroy_of_nothing_asks_nothing(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        assert desk.type(destroy, "web").code == 0


# -- reboot ------------------------------------------------------------------------------------------------


def test_reboot(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost3")
        assert desk.type(reboot, "web").code == 0
        assert desk.ops("reboot", "watch") == ["reboot", "watch"]
        assert sim["vmhost3"].running_vms == "web\n"


def test_reboot_of_one_that_is_off(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost3", running=False)
        refused(desk.type(reboot, "web"), "It is off, defined on vmhost3")


def test_reboot_that_would_end_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost3", running=False)
        xml = sim["vmhost3"].definitions[vm.uuid].xml
        sim["vmhost3"].define(xml.replace("<on_reboot>restart", "<on_reboot>destroy"))
        sim["vmhost3"].start(vm.uuid)
        refused(desk.type(reboot, "web"), "on_reboot is destroy")
        assert not desk.ops("reboot")


def test_reboot_whose_answer_is_lost(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost3")
        sim.faults.on(faults.reply_lost, op="reboot")
        assert desk.type(reboot, "web").code == 3
        assert desk.ops("reboot") == ["reboot"]


def test_host_that_falls_silent_before_anything(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost3")
        sim.faults.on(faults.cut(), op="store.lock")
        ended = desk.type(shutdown, "web")
        refused(ended, "vmhost3 does not answer", "Look at vmhost3, then type the same again.")
        assert not desk.ops("shutdown")
