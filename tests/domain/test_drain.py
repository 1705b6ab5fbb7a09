"""drain, undrain and migrate as an operator types them, on the simulated cluster."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasks.drain import drain, undrain
from tasks.migrate import migrate
from tests.domain.desk import NASTY, Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.guests import Behaviour


def results(ended: Ended) -> dict[str, str]:
    return {o["vm"]: o["result"] for o in ended.document["outcomes"]}


def changes(sim: SimCluster) -> list[str]:
    reads = {"connect", "ping", "observe", "running", "dumpxml", "look", "store.read", "store.read_dir"}
    return [str(c) for c in sim.calls if c.op not in reads]


def test_drain_empties_and_undrain_brings_back(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", "vmhost1") for n in range(6)]
        stays = sim.add_vm("other", "vmhost2")
        ended = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert ended.code == 0, ended.text
        assert "vmhost1 is empty and cordoned" in ended.out
        assert all(sim.where(vm) != ("vmhost1",) and len(sim.where(vm)) == 1 for vm in vms)
        back = desk.type(undrain, hosts=["vmhost1"], yes=True)
        assert back.code == 0, back.text
        assert all(sim.where(vm) == ("vmhost1",) for vm in vms)
        assert sim.where(stays) == ("vmhost2",)


def test_second_drain_finds_nothing_to_do(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        before = len(sim.calls)
        again = desk.type(drain, hosts=["vmhost1"])
        assert again.code == 0, again.text
        assert "No VM has to leave vmhost1" in again.out
        assert not [c for c in sim.calls[before:] if c.op in ("shutdown", "start", "store.append")]


def test_cordon_keeps_moves_away_until_undrain(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost2")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        other = sim.another_laptop("other")
        refused = desk.type(migrate, "web", to="vmhost1", yes=True, laptop=other)
        assert refused.code == 2
        assert "cordoned" in refused.text
        assert desk.type(undrain, hosts=["vmhost1"], yes=True).code == 0
        assert desk.type(migrate, "web", to="vmhost1", yes=True).code == 0
        assert sim.where(vm) == ("vmhost1",)


def test_two_hosts_are_no_targets_for_each_other(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", f"vmhost{n % 2 + 1}") for n in range(6)]
        assert desk.type(drain, hosts=["vmhost1", "vmhost2"], yes=True).code == 0
        assert {sim.where(vm)[0] for vm in vms} <= {"vmhost3", "vmhost4"}


def test_what_several_vms_are_refused_for_is_said_once(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "db"):
            sim.add_vm(name, "vmhost2")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        ended = desk.type(migrate, "web,db", to="vmhost1")
        assert ended.out == "db, web cannot be moved:\n  vmhost1: is cordoned\n"
        document = desk.type(migrate, "web,db", to="vmhost1", json=True).document
        assert [(r["vm"], r["reason"]) for r in document["refusals"]] == [
            ("db", "is cordoned"),
            ("web", "is cordoned"),
        ]


def test_to_only_and_exclude(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web-1", "web-2", "db", "mail"):
            sim.add_vm(name, "vmhost1")
        ended = desk.type(
            drain, hosts=["vmhost1"], to="vmhost3,vmhost4", only=["web-*,db"], exclude=["web-2"], yes=True
        )
        assert ended.code == 0, ended.text
        assert "vmhost1 is not empty" in ended.out
        assert {sim.where(n)[0] for n in ("web-1", "db")} <= {"vmhost3", "vmhost4"}
        assert sim.where("web-2") == sim.where("mail") == ("vmhost1",)


@pytest.mark.parametrize("flag", ["only", "exclude"])
@pytest.mark.parametrize("given", ["", " , "])
def test_a_choice_of_nothing_is_not_a_choice_of_all(
    sim: SimCluster, desk: Desk, flag: str, given: str
) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(drain, hosts=["vmhost1"], yes=True, **{flag: [given]})
        assert ended.code == 2
        assert "--only and --exclude want names" in ended.err
        assert changes(sim) == []


@pytest.mark.parametrize("task", [drain, undrain, migrate])
def test_dry_run_changes_nothing(sim: SimCluster, desk: Desk, task: Any) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        if task is undrain:
            assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        sim.calls.clear()
        arguments = ("web",) if task is migrate else ()
        ended = desk.type(task, *arguments, hosts=["vmhost1"] if not arguments else [], dry_run=True)
        assert ended.code == 0, ended.text
        assert "web" in ended.out
        assert changes(sim) == []


def test_without_a_terminal_and_yes_it_refuses(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(drain, hosts=["vmhost1"])
        assert ended.code == 2
        assert "--yes" in ended.err
        assert changes(sim) == []


@pytest.mark.parametrize("name", NASTY)
def test_names_of_all_kinds(sim: SimCluster, desk: Desk, name: str) -> None:
    with sim:
        vm = sim.add_vm(name, "vmhost1")
        ended = desk.type(drain, hosts=["vmhost1"], yes=True, json=True)
        assert results(ended) == {name: "moved"}
        target = sim.where(vm)[0]
        assert sim[target].running_vms == f"{name}\n"
        assert sim["vmhost1"].running_vms == ""


def test_5_any_silent_host_refuses(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim["vmhost4"].cut()
        ended = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert ended.code == 2
        assert "vmhost4 does not answer" in ended.err
        assert changes(sim) == []


def test_12_no_room_refuses_with_a_reason_per_host() -> None:
    sim = SimCluster(
        ("vmhost1", "vmhost2", "vmhost3"), memory_gib={"vmhost1": 64, "vmhost2": 8, "vmhost3": 8}
    )
    desk = Desk(sim)
    with sim:
        sim.add_vm("small", "vmhost1", memory_mib=1024)
        sim.add_vm("big", "vmhost1", memory_mib=16 << 10)
        ended = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert ended.code == 2
        assert "big cannot be moved" in ended.out
        assert ended.out.count("vmhost2:") == ended.out.count("vmhost3:") == 1
        assert changes(sim) == []
        partial = desk.type(drain, hosts=["vmhost1"], yes=True, partial=True)
        assert partial.code == 1
        assert "not empty; there still run: big" in partial.out
        assert sim.where("small") != ("vmhost1",)
        assert sim.where("big") == ("vmhost1",)


def test_apart_rule_holds_for_the_plan(sim: SimCluster, desk: Desk) -> None:
    with sim:
        desk.inventory["apart"] = {"dns": ("ns1", "ns2")}
        sim.add_vm("ns1", "vmhost1")
        sim.add_vm("ns2", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        assert sim.where("ns1") != sim.where("ns2")


def test_1_no_destroy_leaves_one_and_goes_on(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("stubborn", "vmhost1", behaviour=Behaviour(off_after=None))
        sim.add_vm("web", "vmhost1")
        ended = desk.type(drain, hosts=["vmhost1"], yes=True, no_destroy=True, timeout=10.0)
        assert ended.code == 1
        assert "there still run: stubborn" in ended.out
        assert sim.where("stubborn") == ("vmhost1",)
        assert sim.where("web") != ("vmhost1",)


def test_11_two_drains_of_one_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vms = [sim.add_vm(f"vm{n}", "vmhost1", behaviour=Behaviour(off_after=8.0)) for n in range(4)]
        other = sim.another_laptop("other")
        answer = desk.beside(other, drain, hosts=["vmhost1"], yes=True)
        sim.wait(3.0)
        second = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert second.code == 2
        assert "is being worked on" in second.err
        assert answer().code == 0
        assert all(sim.where(vm) != ("vmhost1",) for vm in vms)


def test_undrain_leaves_what_was_moved_since(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], to="vmhost2", yes=True).code == 0
        assert desk.type(migrate, "web", to="vmhost3", yes=True).code == 0
        ended = desk.type(undrain, hosts=["vmhost1"], yes=True)
        assert ended.code == 0, ended.text
        assert "web stays: it was moved to vmhost3 since" in ended.out
        assert sim.where("web") == ("vmhost3",)
        assert sim.where("db") == ("vmhost1",)


def test_undrain_brings_back_what_two_drains_moved(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], only=["web"], yes=True).code == 0
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        assert desk.type(undrain, hosts=["vmhost1"], yes=True).code == 0
        assert sim.where("web") == sim.where("db") == ("vmhost1",)


def test_undrain_that_failed_goes_on(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        sim.behaviour("web").failing_starts["vmhost1"] = 2
        failed = desk.type(undrain, hosts=["vmhost1"], yes=True)
        assert failed.code == 1
        assert "stays cordoned" in failed.out
        assert desk.type(undrain, hosts=["vmhost1"], yes=True).code == 0
        assert sim.where("web") == ("vmhost1",)


def test_undrain_goes_as_far_as_its_drain_was_allowed_to(sim: SimCluster, desk: Desk) -> None:
    with sim:
        disk = Disk("/vmstorage/shared.qcow2")
        web = sim.add_vm("web", "vmhost1", disks=[disk])
        sim.add_vm("twin", "vmhost2", disks=[disk], running=False)
        assert desk.type(drain, hosts=["vmhost1"], yes=True, allow_shared_image=True).code == 0
        refused = desk.type(undrain, hosts=["vmhost1"], yes=True)
        assert refused.code == 2
        assert "(override: --allow-shared-image)" in refused.text
        assert desk.type(undrain, hosts=["vmhost1"], yes=True, allow_shared_image=True).code == 0
        assert sim.where(web) == ("vmhost1",)


def test_undrain_stay_only_uncordons(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        assert desk.type(undrain, hosts=["vmhost1"], yes=True, stay=True).code == 0
        assert sim.where("web") != ("vmhost1",)
        assert "not cordoned" in desk.type(undrain, hosts=["vmhost1"]).out


def test_undrain_stay_needs_only_its_own_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        assert desk.type(drain, hosts=["vmhost1"], yes=True).code == 0
        sim["vmhost4"].power_off()
        refused = desk.type(undrain, hosts=["vmhost1"], yes=True)
        assert (refused.code, "vmhost4 does not answer" in refused.text) == (2, True)
        lifted = desk.type(undrain, hosts=["vmhost1"], yes=True, stay=True)
        assert lifted.code == 0, lifted.text
        sim["vmhost1"].power_off()
        assert desk.type(undrain, hosts=["vmhost1"], yes=True, stay=True).code == 2


def test_undrain_goes_on_after_its_drain_was_killed(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.kill_laptop, op="watch")
        with pytest.raises(BaseException, match="laptop"):
            desk.type(drain, hosts=["vmhost1"], yes=True)
        sim.faults.clear()
        other = sim.another_laptop("other")
        answer = desk.beside(other, undrain, hosts=["vmhost1"], yes=True)()
        assert answer.code == 0, answer.text
        assert sim.where("web") == ("vmhost1",)


@pytest.mark.parametrize(
    ("vm", "to", "words"),
    [
        ("webb", "", "Did you mean web"),
        ("web", "vmhost9", "not in the inventory"),
        ("web", "vmhost1", "runs it already"),
        ("off", "", "not running"),
    ],
)
def test_bad_input_to_migrate(sim: SimCluster, desk: Desk, vm: str, to: str, words: str) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("off", "vmhost1", running=False)
        ended = desk.type(migrate, vm, to=to, yes=True)
        assert ended.code == 2
        assert words in ended.text
        assert changes(sim) == []


def test_json_of_a_refusal_is_one_document(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        ended = desk.type(migrate, "web", to="vmhost1", yes=True, json=True)
        assert ended.code == 2
        assert ended.document["code"] == 2
        assert ended.document["refusals"][0]["vm"] == "web"


@pytest.mark.parametrize("seed", range(30))
def test_drain_under_random_faults_keeps_the_law(seed: int) -> None:
    chance = random.Random(seed)
    sim = SimCluster(seed=seed)
    desk = Desk(sim)
    kinds = [
        faults.silent,
        faults.reply_lost,
        faults.delayed(20.0),
        faults.cut(15.0),
        faults.power_off(40.0),
        faults.fail("virsh", "error: no"),
        faults.fail("store", "Input/output error"),
    ]
    with sim:
        for number in range(8):
            guest = Behaviour(off_after=chance.choice([1.0, 5.0, None]), ignores=chance.randrange(2))
            sim.add_vm(f"vm{number}", chance.choice(["vmhost1", "vmhost1", "vmhost2"]), behaviour=guest)
        for _ in range(3):
            sim.faults.on(
                chance.choice(kinds), n=chance.randrange(20, 160), when=chance.choice(["before", "after"])
            )
        ended = desk.type(drain, hosts=["vmhost1"], yes=True, timeout=10.0, json=True)
        if ended.code == 0:
            assert not sim["vmhost1"].guests
        for vm, result in results(ended).items() if ended.out else ():
            if result == "moved" and ended.code == 0:
                assert len(sim.where(vm)) == 1
        sim.wait(300.0)
        again = desk.type(drain, hosts=["vmhost1"], yes=True, timeout=10.0)
        assert again.code in (0, 1, 2, 3)
        sim.wait(120.0)


def started_by_hand(sim: SimCluster, name: str, host: str) -> None:
    """An admin moves the VM with virsh: off here, on there."""
    sim["vmhost1"].destroy(name)
    sim[host].start(name)


@pytest.mark.parametrize("off_after", [5.0, 60.0])
def test_what_happens_to_a_vm_between_its_check_and_its_turn_is_noticed(
    sim: SimCluster, desk: Desk, off_after: float
) -> None:
    """The check made ahead is repeated when it is old; a young one is backed by the proof."""
    with sim:
        first = sim.add_vm("first", "vmhost1", behaviour=Behaviour(off_after=off_after))
        second = sim.add_vm("second", "vmhost1", also_defined_on=["vmhost3"])
        sim.after(off_after, lambda: started_by_hand(sim, "second", "vmhost3"))
        ended = desk.type(drain, hosts=["vmhost1"], yes=True, parallel=1, to="vmhost2", json=True)
        assert results(ended)["first"] == "moved", ended.text
        assert results(ended)["second"] == "left"
        assert sim.where(first) == ("vmhost2",)
        assert sim.where(second) == ("vmhost3",)
        assert sum(c.op == "shutdown" for c in sim.calls) == (2 if off_after < 10 else 1)


def test_a_host_that_has_just_booted_is_not_called_empty(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", "vmhost1")
        sim.add_vm("off", "vmhost1", running=False)
        sim["vmhost1"].power_off()
        sim["vmhost1"].power_on()
        early = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert early.code == 3, early.text
        assert "its restart script may still start: web." in early.text
        assert "is empty" not in early.text
        sim.wait(60.0)
        again = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert again.code == 0, again.text
        assert len(sim.where(web)) == 1
        assert sim.where(web) != ("vmhost1",)


def test_what_a_boot_did_not_start_keeps_no_drain(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", "vmhost1")
        sim["vmhost1"].restarts_vms = False
        sim["vmhost1"].power_off()
        sim["vmhost1"].power_on()
        sim.wait(300.0)
        ended = desk.type(drain, hosts=["vmhost1"], yes=True)
        assert ended.code == 0, ended.text
        assert "vmhost1 is empty" in ended.out
        assert sim.where(web) == ()
