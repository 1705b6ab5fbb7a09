"""evacuate as an operator types it, on the simulated cluster: proof, plan, starts, the host's return."""

from __future__ import annotations

import json

import pytest

from tasks.drain import drain, undrain
from tasks.evacuate import evacuate
from tasks.resume import resume
from tests.domain.desk import Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.guard import SimGuard
from tests.sim.guests import Behaviour
from tests.sim.scheduler import SimKilled

DEAD = "vmhost3"
READS = frozenset(
    {"connect", "ping", "observe", "running", "dumpxml", "look", "watch"}
    | {"store.read", "store.read_dir", "store.stat", "store.holds", "store.seize", "store.unlock"}
)


def type_evacuate(desk: Desk, confirm: str = DEAD, host: str = DEAD, **more: object) -> Ended:
    return desk.type(evacuate, hosts=[host], confirm=confirm, **more)  # type: ignore[arg-type]


def changes(sim: SimCluster) -> list[str]:
    return [str(c) for c in sim.calls if c.op not in READS]


def die(sim: SimCluster, host: str = DEAD) -> None:
    """Take its power away, and wait until the cluster has thrown it out."""
    sim[host].power_off()
    sim.wait(sim.eviction + 10.0)


def cordon(sim: SimCluster) -> dict[str, object]:
    found: dict[str, object] = json.loads(sim.store.files[f"cordons/{DEAD}.json"])
    return found


# -- rows of the fault table ---------------------------------------------------------------------------


def test_13_vms_of_a_dead_host_run_elsewhere_and_its_reboot_starts_none(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(5)]
        sim.add_vm("off", DEAD, running=False)
        stays = sim.add_vm("other", "vmhost1")
        guard = SimGuard(sim)
        die(sim)
        ended = type_evacuate(desk)
        assert ended.code == 0, ended.text
        assert "5 of 5 VMs of vmhost3 run elsewhere" in ended.out
        places = {vm.name: sim.where(vm) for vm in vms}
        assert all(len(where) == 1 and where != (DEAD,) for where in places.values())
        assert guard.owners() == {name: where[0] for name, where in places.items()} | {"other": "vmhost1"}
        assert cordon(sim)["why"] == "evacuated"
        for name, where in places.items():
            assert name in (sim[where[0]].running_vms or "").splitlines()
        sim[DEAD].power_on()
        sim.wait(120.0)
        assert sim[DEAD].guests == []
        assert len(sim[DEAD].boot_log) == 5
        assert all("is owned by" in line for line in sim[DEAD].boot_log)
        assert sim.where(stays) == ("vmhost1",)
        back = desk.type(undrain, hosts=[DEAD], yes=True)
        assert back.code == 0, back.text
        assert all(sim.where(vm) == (DEAD,) for vm in vms)


def test_13_too_early_is_refused(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        sim[DEAD].power_off()
        sim.wait(20.0)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "it is held: vmhost3 is up, or not yet thrown out" in ended.out
        assert "75 s" in ended.out
        assert changes(sim) == []
        sim.wait(80.0)
        assert type_evacuate(desk).code == 0


def test_14_a_host_that_is_only_cut_off_is_refused(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        sim[DEAD].cut()
        sim.wait(600.0)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "Missing: its lock is free." in ended.out
        assert "cut its power" in ended.out
        assert changes(sim) == []
        assert sim.where(web) == (DEAD,)


def test_14_a_service_stopped_by_hand_proves_nothing(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        guard = SimGuard(sim)
        guard.stop_service(DEAD)
        sim[DEAD].cut()
        sim.wait(600.0)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "somebody stopped the guard's service" in ended.out
        assert "(1 VM ran)" in ended.out
        assert changes(sim) == []


def test_14_a_beat_without_the_lock_is_a_sign_of_life(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        guard = SimGuard(sim)
        sim[DEAD].cut()
        sim.faults.on(lambda call: guard.lose_lock(DEAD), op="store.seize")
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "vmhost3 gives a sign of life" in ended.out
        assert changes(sim) == []


def test_13_while_the_store_is_replayed_it_says_to_wait(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        sim.store.hung = True
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "vmhost1: /vmstorage hangs (no answer within 3 s); vmhost2: " in ended.out
        assert "replay what vmhost3 has left" in ended.out
        assert ended.out.count("wait, and type the same again") == 1
        assert "in order first" not in ended.out
        assert changes(sim) == []
        sim.store.hung = False
        # It may also stand still between two questions.
        sim.faults.on(faults.fail("store", "/vmstorage hangs (no answer within 6 s)"), op="store.seize")
        assert "wait, and type the same again" in type_evacuate(desk).out
        # What is wrong besides has to be put right all the same.
        sim["vmhost1"].view.hung = True
        sim["vmhost2"].cut()
        both = type_evacuate(desk).out
        assert "in order first" in both
        assert "wait, and type the same again" in both
        sim["vmhost1"].view.hung = False
        sim["vmhost2"].mend()
        assert type_evacuate(desk).code == 0
        assert len(sim.where(web)) == 1


# -- the proof -----------------------------------------------------------------------------------------


def test_a_host_that_answers_is_sent_to_drain(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "fab -H vmhost3 drain" in ended.out
        sim[DEAD].freeze_libvirt()
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "only its libvirtd does not" in ended.out
        sim[DEAD].thaw_libvirt()
        sim[DEAD].sshd_frozen = True
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "something answers there" in ended.out
        assert not [c for c in sim.calls if c.op == "store.seize"]


def test_all_that_is_missing_is_told_at_once(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        sim["vmhost2"].cut()
        sim["vmhost1"].view.mounted = False
        sim[DEAD].power_off()
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "vmhost2 does not (" in ended.out
        assert "vmhost1: /vmstorage is not mounted" in ended.out
        assert "Missing: its lock is free." in ended.out
        assert changes(sim) == []


def test_without_a_guard_nothing_is_proved(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim, "vmhost1", "vmhost2", "vmhost4")
        die(sim)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "it never ran the guard" in ended.out
        assert changes(sim) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not understood"),
        ('{"host": "vmhost1", "boot_id": "1", "since": 1}', "is not understood"),
        (
            '{"host": "vmhost3", "boot_id": "1", "since": 1, "released": '
            '{"at": 2, "running": 2, "shutting_down": true}}',
            "2 VMs still ran",
        ),
    ],
)
def test_what_the_lock_says_has_to_prove_it(sim: SimCluster, desk: Desk, text: str, words: str) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        sim.store.files[f"hosts/{DEAD}"] = text
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert words in ended.out
        assert changes(sim) == []


def test_a_host_that_shut_down_in_order_without_vms_is_dead(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        said = json.loads(sim.store.files[f"hosts/{DEAD}"])
        said["released"] = {"at": sim.clock.now() - 500, "running": 0, "shutting_down": True}
        sim.store.files[f"hosts/{DEAD}"] = json.dumps(said)
        assert type_evacuate(desk).code == 0


def test_without_a_beat_nothing_is_proved(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        del sim.store.written[f"hosts/{DEAD}.beat"]
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "its guard is an old one" in ended.out


def test_the_name_has_to_be_typed(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        for confirm, words in (("", "--confirm vmhost3"), ("vmhost1", "--confirm says vmhost1")):
            ended = type_evacuate(desk, confirm=confirm)
            assert ended.code == 2
            assert words in ended.err
        assert changes(sim) == []


def test_a_dry_run_shows_proof_and_plan_and_changes_nothing(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        ended = type_evacuate(desk, confirm="", dry_run=True)
        assert ended.code == 0, ended.text
        assert "none for 12 s" in ended.out
        assert "kept on the store, as on vmhost3" in ended.out
        assert changes(sim) == []
        assert f"hosts/{DEAD}" not in sim.store.locks


def test_json_has_the_proof(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        refused = type_evacuate(desk, json=True)
        assert refused.document["code"] == 2
        assert [p["state"] for p in refused.document["proof"]] == [
            "missing",
            "proved",
            "not looked at",
            "not looked at",
        ]
        die(sim)
        done = type_evacuate(desk, json=True).document
        assert (done["code"], done["outcomes"][0]["result"]) == (0, "moved")
        assert {p["state"] for p in done["proof"]} == {"proved"}


# -- the plan ------------------------------------------------------------------------------------------


def test_a_vm_without_a_definition_is_named_and_may_be_left_out(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web, lost = sim.add_vm("web", DEAD), sim.add_vm("lost", DEAD)
        SimGuard(sim)
        del sim.store.files[f"definitions/{lost.uuid}.json"]
        die(sim)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "no definition of it is kept" in ended.out
        assert changes(sim) == []
        assert type_evacuate(desk, partial=True).code == 1
        assert sim.where(web) != ()
        assert sim.where(lost) == ()
        assert type_evacuate(desk, exclude=["lost"]).code == 0


def test_the_definition_of_a_living_host_will_do(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD, also_defined_on=["vmhost2"])
        SimGuard(sim)
        del sim.store.files[f"definitions/{web.uuid}.json"]
        die(sim)
        ended = type_evacuate(desk, to="vmhost1")
        assert ended.code == 0, ended.text
        assert "as defined on vmhost2" in ended.out
        assert sim.where(web) == ("vmhost1",)


def test_no_room_is_told_with_a_reason_per_host() -> None:
    sim = SimCluster(("vmhost1", "vmhost2", DEAD), memory_gib={"vmhost1": 8, "vmhost2": 8, DEAD: 64})
    desk = Desk(sim)
    with sim:
        sim.add_vm("small", DEAD)
        sim.add_vm("big", DEAD, memory_mib=16 << 10)
        SimGuard(sim)
        die(sim)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert ended.out.count("of memory left for VMs") == 2
        assert changes(sim) == []
        assert type_evacuate(desk, partial=True).code == 1
        assert sim.where("small") != ()
        assert sim.where("big") == ()


def test_only_to_and_apart(sim: SimCluster, desk: Desk) -> None:
    with sim:
        desk.inventory["apart"] = {"dns": ("ns1", "ns2")}
        for name in ("ns1", "ns2", "web"):
            sim.add_vm(name, DEAD)
        SimGuard(sim)
        die(sim)
        assert type_evacuate(desk, only=["ns*"], to="vmhost1,vmhost2").code == 0
        assert {sim.where("ns1"), sim.where("ns2")} == {("vmhost1",), ("vmhost2",)}
        assert sim.where("web") == ()
        assert type_evacuate(desk).code == 0
        assert sim.where("web") != ()


def test_a_vm_that_runs_elsewhere_is_left_alone(sim: SimCluster, desk: Desk) -> None:
    """Its start by hand on a host without the guard."""
    with sim:
        web = sim.add_vm("web", DEAD, also_defined_on=["vmhost1"])
        SimGuard(sim, "vmhost2", DEAD)
        die(sim)
        sim["vmhost1"].start(web.uuid)
        ended = type_evacuate(desk)
        assert ended.code == 2
        assert "it runs there, although vmhost3 owns its images" in ended.out
        assert sim.where(web) == ("vmhost1",)


def test_nothing_to_do(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        assert type_evacuate(desk).code == 0
        sim.calls.clear()
        again = type_evacuate(desk)
        assert again.code == 0
        assert "No VM of vmhost3 has to be started elsewhere" in again.out
        assert changes(sim) == []


# -- doing it ------------------------------------------------------------------------------------------


def test_a_host_that_comes_back_meanwhile_stops_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(6)]
        SimGuard(sim)
        die(sim)
        sim.faults.on(lambda call: sim[DEAD].power_on(), op="watch")
        ended = type_evacuate(desk, parallel=1, to="vmhost1")
        assert ended.code == 1, ended.text
        assert "vmhost3 gives a sign of life" in ended.out
        assert sim.where(vms[0]) == ("vmhost1",)
        sim.wait(120.0)
        assert all(len(sim.where(vm)) == 1 for vm in vms)
        assert any(sim.where(vm) == (DEAD,) for vm in vms)


def test_losing_the_host_that_holds_the_lock_stops_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(4)]
        SimGuard(sim)
        die(sim)
        sim.faults.on(lambda call: sim["vmhost1"].power_off(), op="watch")
        ended = type_evacuate(desk, parallel=1, to="vmhost2")
        assert ended.code in (1, 3), ended.text
        assert len([vm for vm in vms if sim.where(vm)]) == 1
        sim["vmhost1"].power_on()
        sim.wait(200.0)
        assert type_evacuate(desk).code == 0
        assert all(len(sim.where(vm)) == 1 for vm in vms)


def test_a_target_that_refuses_and_the_same_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web, db = sim.add_vm("web", DEAD), sim.add_vm("db", DEAD)
        guard = SimGuard(sim)
        sim.behaviour("web").failing_starts["vmhost1"] = 1
        die(sim)
        ended = type_evacuate(desk, to="vmhost1")
        assert ended.code == 1
        assert "refused to start it" in ended.out
        assert sim.where(db) == ("vmhost1",)
        # libvirt calls the hook after a start that failed, too: nobody owns it now.
        assert guard.owners() == {"db": "vmhost1"}
        again = type_evacuate(desk, to="vmhost2")
        assert again.code == 0, again.text
        assert sim.where(web) == ("vmhost2",)
        assert guard.owners() == {"db": "vmhost1", "web": "vmhost2"}


def test_a_lost_answer_is_never_sent_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        sim.faults.on(faults.reply_lost, op="start")
        ended = type_evacuate(desk, to="vmhost2")
        assert ended.code == 0, ended.text
        assert desk.ops("start") == ["start"]
        assert sim.where(web) == ("vmhost2",)


def test_two_operators_exclude_each_other(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(4)]
        SimGuard(sim)
        die(sim)
        answer = desk.beside(sim.another_laptop("other"), evacuate, hosts=[DEAD], confirm=DEAD)
        sim.wait(14.0)
        second = type_evacuate(desk)
        assert second.code == 2
        assert "it is held" in second.out
        assert answer().code == 0
        assert all(len(sim.where(vm)) == 1 for vm in vms)


def test_a_drained_host_that_dies_keeps_what_its_drain_knew(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web, db = sim.add_vm("web", DEAD), sim.add_vm("db", DEAD)
        SimGuard(sim)
        assert desk.type(drain, hosts=[DEAD], only=["web"], yes=True).code == 0
        die(sim)
        assert type_evacuate(desk).code == 0
        assert len(cordon(sim)["drains"]) == 2  # type: ignore[arg-type]
        sim[DEAD].power_on()
        sim.wait(60.0)
        assert desk.type(undrain, hosts=[DEAD], yes=True).code == 0
        assert sim.where(web) == sim.where(db) == (DEAD,)


def test_undrain_stay_makes_the_returned_host_forget_them(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        sim[DEAD].autostart(web.uuid, on=True)
        die(sim)
        assert type_evacuate(desk, to="vmhost1").code == 0
        sim[DEAD].power_on()
        sim.wait(60.0)
        assert sim[DEAD].running_vms == "web\n"
        ended = desk.type(undrain, hosts=[DEAD], yes=True, stay=True)
        assert ended.code == 0, ended.text
        assert sim[DEAD].running_vms == ""
        assert not sim[DEAD].definitions[web.uuid].autostart
        assert f"evacuated/{DEAD}" not in sim.store.files
        assert sim.where(web) == ("vmhost1",)


def test_nothing_starts_once_the_lock_is_lost(sim: SimCluster, desk: Desk) -> None:
    """The owner is written already, the start is not sent: the proof is asked for once more in between."""
    with sim:
        web = sim.add_vm("web", DEAD)
        guard = SimGuard(sim)
        die(sim)
        sim.faults.on(lambda call: guard.lose_lock(DEAD), op="store.swap", when="after")
        ended = type_evacuate(desk, to="vmhost1")
        assert ended.code == 1, ended.text
        assert "lost the lock of vmhost3" in ended.text
        assert desk.ops("start") == []
        assert sim.where(web) == ()
        assert type_evacuate(desk, to="vmhost1").code == 0
        assert sim.where(web) == ("vmhost1",)


def test_room_on_cordoned_hosts_is_named(sim: SimCluster, desk: Desk) -> None:
    others = ["vmhost1", "vmhost2", "vmhost4"]
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        assert desk.type(drain, hosts=others, yes=True).code == 0
        die(sim)
        refused = type_evacuate(desk)
        assert refused.code == 2
        assert "is cordoned" in refused.text
        assert "fab -H vmhost1,vmhost2,vmhost4 undrain --stay" in refused.text
        assert desk.type(undrain, hosts=["vmhost2"], yes=True, stay=True).code == 0
        assert type_evacuate(desk).code == 0
        assert sim.where(web) == ("vmhost2",)


def test_a_journal_that_cannot_be_begun_leaves_nothing_behind(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        sim.faults.on(faults.fail("store", "no space left on /vmstorage"), op="store.append", n=None)
        assert type_evacuate(desk).code == 1
        assert sim.where(web) == ()
        assert [path for path in sim.store.files if path.startswith("locks/op-")] == []


def interrupted(sim: SimCluster, times: int) -> Ended:
    """An evacuation of slow starters, with Ctrl-C when the first of them is being started."""
    desk = Desk(sim)
    command = sim.beside(lambda: type_evacuate(desk, parallel=1, to="vmhost1,vmhost2"), sim.laptop)
    while not desk.ops("start"):
        sim.wait(0.1)
    for _ in range(times):
        command.interrupt()
        sim.wait(0.1)
    return command()


def test_9_first_ctrl_c_finishes_what_is_under_way(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(4)]
        SimGuard(sim)
        die(sim)
        ended = interrupted(sim, 1)
        assert ended.code == 130, ended.text
        assert "Ctrl-C again stops now" in ended.text
        assert "The same command goes on with the rest." in ended.text
        assert [len(sim.where(vm)) for vm in vms] == [1, 0, 0, 0]
        assert f"hosts/{DEAD}" not in sim.store.locks
        assert type_evacuate(desk).code == 0
        assert [len(sim.where(vm)) for vm in vms] == [1, 1, 1, 1]


def test_9_second_ctrl_c_stops_and_says_how_to_go_on(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", DEAD) for n in range(4)]
        SimGuard(sim)
        die(sim)
        ended = interrupted(sim, 2)
        assert ended.code == 130, ended.text
        assert "Interrupted with 4 unfinished: vm0 (to vmhost1): " in ended.err
        assert "fab -H vmhost3 evacuate" in ended.err
        assert "fab resume" not in ended.err
        sim.wait(60.0)
        assert type_evacuate(desk).code == 0
        assert [len(sim.where(vm)) for vm in vms] == [1, 1, 1, 1]
        sim[DEAD].power_on()
        sim.wait(60.0)
        assert desk.type(resume, yes=True).out == "Nothing to resume.\n"
        assert [len(sim.where(vm)) for vm in vms] == [1, 1, 1, 1]


def test_9_ctrl_c_while_the_proof_is_collected(sim: SimCluster) -> None:
    desk = Desk(sim)
    with sim:
        sim.add_vm("web", DEAD)
        SimGuard(sim)
        die(sim)
        command = sim.beside(lambda: type_evacuate(desk), sim.laptop)
        sim.wait(5.0)
        command.interrupt()
        assert command().code == 130
        assert changes(sim) == []
        assert f"hosts/{DEAD}" not in sim.store.locks


# -- broken anywhere -----------------------------------------------------------------------------------

FAULTS = {
    "request lost": faults.silent,
    "reply lost": faults.reply_lost,
    "host cut for 20 s": faults.cut(20.0),
    "host loses power for 20 s": faults.power_off(20.0),
    "libvirt says no": faults.fail("virsh", "error: no"),
    "store fails": faults.fail("store", "Input/output error"),
    "laptop killed": faults.kill_laptop,
    "laptop suspended for 60 s": faults.suspend_laptop(60.0),
}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_broken_at_any_request_the_same_again_ends_well(fault: str, when: str) -> None:
    number = 0
    while True:
        number += 1
        sim = SimCluster(("vmhost1", "vmhost2", DEAD), seed=number)
        desk = Desk(sim)
        with sim:
            sim.add_vm("web", DEAD, behaviour=Behaviour())
            sim.add_vm("db", DEAD)
            SimGuard(sim)
            die(sim)
            living = sim.faults.on(FAULTS[fault], n=number, when=when, match=lambda c: c.host.name != DEAD)
            try:
                first = type_evacuate(desk)
                if first.code == 0 and "power" not in fault:
                    assert all(len(sim.where(vm)) == 1 for vm in ("web", "db")), first.text
            except SimKilled:
                pass
            sim.faults.clear()
            sim.wait(200.0)
            laptop = sim.another_laptop("elsewhere")
            again = desk.beside(laptop, evacuate, hosts=[DEAD], confirm=DEAD)()
            assert again.code == 0, (number, again.text, sim.history)
            # What ran on its new host already when that lost its power is for that host's reboot.
            least = 0 if "power" in fault else 1
            assert all(least <= len(sim.where(vm)) <= 1 for vm in ("web", "db")), (number, again.text)
            unended = [t for p, t in sim.store.files.items() if p.startswith("moves/") and '"end"' not in t]
            assert unended == []
        if not living.struck:
            assert number > 30, "an evacuation asks more often than that"
            return
