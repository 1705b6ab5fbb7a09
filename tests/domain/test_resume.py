"""resume: whatever a killed command left, another laptop finishes or undoes it, and the law holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from tasks.drain import drain, undrain
from tasks.migrate import migrate
from tasks.resume import resume
from tests.domain.desk import Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.guests import Behaviour
from tests.sim.scheduler import SimKilled

HOSTS = ("vmhost1", "vmhost2", "vmhost3")

GUESTS: dict[str, Callable[[], Behaviour]] = {
    "quick": Behaviour,
    "slow": lambda: Behaviour(off_after=6.0),
    "stubborn": lambda: Behaviour(off_after=None),
    "dies on the target": lambda: Behaviour(crash_after={"vmhost2": 1.0}),
    "target refuses": lambda: Behaviour(failing_starts={"vmhost2": 2}),
}


@pytest.fixture
def sim() -> SimCluster:
    return SimCluster(HOSTS)


def killed(desk: Desk, task: Any, *args: Any, **more: Any) -> bool:
    """Type a task on a laptop of its own that a fault may kill; whether it was."""
    laptop = more.pop("laptop", None) or desk.sim.another_laptop(f"laptop {len(desk.sim.calls)}")
    try:
        desk.beside(laptop, task, *args, **more)()
    except SimKilled:
        return True
    return False


def elsewhere(desk: Desk, task: Any, *args: Any, name: str = "elsewhere", **more: Any) -> Ended:
    """Type a task on another laptop."""
    return desk.beside(desk.sim.another_laptop(name), task, *args, **more)()


def all_in_order(desk: Desk, vms: list[str]) -> None:
    """Each VM runs on exactly one host, is noted there alone, and nothing is open any more."""
    sim = desk.sim
    for vm in vms:
        where = sim.where(vm)
        assert len(where) == 1, (vm, where)
        noted = [h.name for h in sim.hosts.values() if vm in (h.running_vms or "").splitlines()]
        assert noted == list(where), vm
    calls = len(sim.calls)
    again = elsewhere(desk, resume, name="third", yes=True)
    assert again.code == 0, again.text
    assert "Nothing to resume." in again.out
    assert changes(sim, calls) == []
    assert [path for path in sim.store.files if path.startswith("locks/op-")] == []


def changes(sim: SimCluster, since: int) -> list[str]:
    reads = {"connect", "ping", "observe", "running", "dumpxml", "look"}
    reads |= {"store.read", "store.read_dir", "store.list"}
    return [str(c) for c in sim.calls[since:] if c.op not in reads]


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_9_killed_at_every_request_of_a_drain(when: str, guest: str) -> None:
    """Lines of the journal are requests, too; so is the lock of the operation before its first line."""
    steps: set[str] = set()
    for n in count(1):
        sim = SimCluster(HOSTS, seed=n)
        desk = Desk(sim)
        with sim:
            for name in ("web", "db"):
                sim.add_vm(name, "vmhost1", behaviour=GUESTS[guest]())
            rule = sim.faults.on(faults.kill_laptop, n=n, when=when)
            dead = killed(desk, drain, hosts=["vmhost1"], to="vmhost2", timeout=10.0, yes=True)
            sim.faults.clear()
            if not dead:
                assert not rule.struck
                assert n > 60, "a drain asks more often than that"
                break
            steps |= announced(sim)
            ended = elsewhere(desk, resume, yes=True)
            if "Under way" in ended.out:
                # What libvirt was asked for last goes on, and keeps the locks until it is done.
                sim.wait(60.0)
                ended = elsewhere(desk, resume, yes=True)
            assert ended.code in (0, 1), ended.text
            if ended.code == 1:
                assert guest in ("dies on the target", "target refuses"), ended.text
            all_in_order(desk, ["web", "db"])
            sim.wait(300.0)
            assert all(len(sim.where(vm)) == 1 for vm in ("web", "db"))
    assert {"define", "shutdown", "start", "bookkeeping"} <= steps | {"bookkeeping"}


def announced(sim: SimCluster) -> set[str]:
    texts = [text for path, text in sim.store.files.items() if path.startswith("moves/")]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    return {line["step"] for line in lines if line["line"] == "before"}


@pytest.mark.parametrize("when", ["before", "after"])
def test_9_resume_itself_is_killed_at_every_request(when: str) -> None:
    for n in count(1):
        sim = SimCluster(HOSTS, seed=n)
        desk = Desk(sim)
        with sim:
            sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=4.0))
            sim.add_vm("db", "vmhost1")
            sim.faults.on(faults.kill_laptop, op="watch")
            assert killed(desk, drain, hosts=["vmhost1"], to="vmhost2", yes=True)
            sim.faults.clear()
            sim.faults.on(faults.kill_laptop, n=n, when=when)
            dead = killed(desk, resume, yes=True)
            sim.faults.clear()
            if dead:
                sim.wait(60.0)
                ended = elsewhere(desk, resume, yes=True)
                assert ended.code == 0, ended.text
            all_in_order(desk, ["web", "db"])
        if not dead:
            assert n > 30, "a resume asks more often than that"
            return


@pytest.mark.parametrize("task", ["migrate", "undrain"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_9_other_commands_are_killed_at_every_request(task: str, when: str) -> None:
    for n in count(1):
        sim = SimCluster(HOSTS, seed=n)
        desk = Desk(sim)
        with sim:
            sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=4.0))
            if task == "undrain":
                assert desk.type(drain, hosts=["vmhost1"], to="vmhost2", yes=True).code == 0
            sim.faults.on(faults.kill_laptop, n=n, when=when)
            if task == "undrain":
                dead = killed(desk, undrain, hosts=["vmhost1"], yes=True)
            else:
                dead = killed(desk, migrate, "web", to="vmhost2", undefine_source=True, yes=True)
            sim.faults.clear()
            sim.wait(60.0)
            ended = elsewhere(desk, resume, yes=True)
            assert ended.code == 0, ended.text
            all_in_order(desk, ["web"])
            if task == "undrain":
                back = elsewhere(desk, undrain, hosts=["vmhost1"], yes=True)
                assert back.code == 0, back.text
                assert sim.where("web") == ("vmhost1",)
                assert not [path for path in sim.store.files if path.startswith("cordons/")]
            elif sim.where("web") == ("vmhost2",):
                assert not sim["vmhost1"].definitions
        if not dead:
            assert n > 20, "a move asks more often than that"
            return


def test_two_laptops_resume_at_once(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "db"):
            sim.add_vm(name, "vmhost1", behaviour=Behaviour(off_after=4.0))
        sim.faults.on(faults.kill_laptop, op="wait_off")
        assert killed(desk, drain, hosts=["vmhost1"], to="vmhost2", yes=True)
        sim.faults.clear()
        first = desk.beside(sim.another_laptop("first"), resume, yes=True)
        second = desk.beside(sim.another_laptop("second"), resume, yes=True)
        ended = [first(), second()]
        assert 0 in [one.code for one in ended], [one.text for one in ended]
        assert {one.code for one in ended} <= {0, 2}, [one.text for one in ended]
        all_in_order(desk, ["web", "db"])
        starts = [c for c in sim.calls if c.op == "start"]
        assert len(starts) == len({c.args["uuid"] for c in starts})


def cut_drain(sim: SimCluster, desk: Desk, op: str, when: str = "before", **more: Any) -> None:
    """Kill a drain of vmhost1 at its first request of this kind."""
    sim.faults.on(faults.kill_laptop, op=op, when=when)
    assert killed(desk, drain, hosts=["vmhost1"], to="vmhost2", yes=True, **more)
    sim.faults.clear()


def test_a_running_command_is_left_alone(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=20.0))
        answer = desk.beside(sim.another_laptop("other"), drain, hosts=["vmhost1"], yes=True)
        sim.wait(5.0)
        ended = desk.type(resume, yes=True, json=True)
        assert ended.code == 0, ended.text
        (under_way,) = ended.document["under_way"]
        assert under_way["by"]
        assert ended.document["operations"] == []
        assert "Under way:" in ended.err
        assert answer().code == 0


def test_what_had_not_begun_is_named_with_the_command_that_goes_on(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("db", "mail", "web"):
            sim.add_vm(name, "vmhost1")
        cut_drain(sim, desk, "wait_off", parallel=1)
        shown = elsewhere(desk, resume, dry_run=True)
        assert shown.code == 0, shown.text
        assert shown.out.count("not begun: stays as it is") == 2
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "fab -H vmhost1 drain" in ended.out
        assert sorted(len(sim.where(name)) for name in ("db", "mail", "web")) == [1, 1, 1]
        assert sum(sim.where(name) == ("vmhost1",) for name in ("db", "mail", "web")) == 2
        assert elsewhere(desk, drain, hosts=["vmhost1"], yes=True).code == 0


def test_dry_run_changes_nothing(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        cut_drain(sim, desk, "start")
        calls = len(sim.calls)
        shown = elsewhere(desk, resume, dry_run=True)
        assert shown.code == 0, shown.text
        assert "start it on vmhost2" in shown.out
        assert changes(sim, calls) == []
        refused = elsewhere(desk, resume)
        assert refused.code == 2
        assert "--yes" in refused.err
        assert changes(sim, calls) == []


def test_a_silent_host_refuses(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        cut_drain(sim, desk, "start")
        sim["vmhost3"].cut()
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 2
        assert "vmhost3 does not answer" in ended.err
        assert sim.where("web") == ()


def test_a_vm_that_runs_twice_is_not_touched(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost3"])
        cut_drain(sim, desk, "shutdown")
        with pytest.raises(BaseException, match="is written by"):
            sim["vmhost3"].start(vm.uuid)
        sim.forgive()
        calls = len(sim.calls)
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 3, ended.text
        assert "RUNS TWICE" in ended.out
        assert "Two hosts run one VM: web on vmhost1 and vmhost3. It was not touched." in ended.err
        assert "fab -H HOST vm.destroy NAME" in ended.err
        assert changes(sim, calls) == []
        sim["vmhost3"].destroy(vm.uuid, graceful=False)
        sim.forgive()


def test_a_vm_that_runs_twice_keeps_no_other_one_waiting(sim: SimCluster, desk: Desk) -> None:
    with sim:
        web = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost3"])
        db = sim.add_vm("db", "vmhost1")
        mail = sim.add_vm("mail", "vmhost2")
        sim.faults.on(faults.kill_laptop, op="start")
        assert killed(desk, drain, hosts=["vmhost1"], only=["db"], to="vmhost2", yes=True)
        sim.faults.clear()
        sim.faults.on(faults.kill_laptop, op="wait_off", n=1, when="after")
        assert killed(desk, migrate, "web,mail", to="vmhost3", yes=True)
        sim.faults.clear()
        sim.wait(60.0)
        if not sim.where(web):
            sim["vmhost1"].start(web.uuid)
        with pytest.raises(BaseException, match="is written by"):
            sim["vmhost3"].start(web.uuid)
        sim.forgive()
        preview = elsewhere(desk, resume, dry_run=True)
        assert preview.code == 3
        ended = elsewhere(desk, resume, name="third", yes=True)
        assert ended.code == 3, ended.text
        assert "RUNS TWICE: is not touched" in ended.out
        assert "web on vmhost1 and vmhost3" in ended.err
        assert len(sim.where(db)) == len(sim.where(mail)) == 1, ended.text
        assert sim.where(web) == ("vmhost1", "vmhost3")
        sim["vmhost3"].destroy(web.uuid, graceful=False)
        sim.forgive()
        assert elsewhere(desk, resume, name="fourth", yes=True).code == 0
        all_in_order(desk, ["web", "db", "mail"])


@pytest.mark.parametrize(
    ("host", "words"),
    [("vmhost1", "runs again on vmhost1"), ("vmhost2", "arrived"), ("vmhost3", "was started on vmhost3")],
)
def test_10_somebody_started_it_by_hand_meanwhile(sim: SimCluster, desk: Desk, host: str, words: str) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=["vmhost3"])
        cut_drain(sim, desk, "start")
        sim.wait(100.0)
        sim[host].start(vm.uuid)
        calls = len(sim.calls)
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert words in ended.out
        assert sim.where(vm) == (host,)
        assert not [c for c in sim.calls[calls:] if c.op in ("start", "shutdown", "destroy")]
        all_in_order(desk, ["web"])


def test_restarted_on_the_source_it_is_not_shut_down_again(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        cut_drain(sim, desk, "wait_off")
        sim.wait(60.0)
        assert sim.where(vm) == ()
        sim["vmhost1"].start(vm.uuid)
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "runs again on vmhost1" in ended.out
        assert sim.where(vm) == ("vmhost1",)
        assert len([c for c in sim.calls if c.op == "shutdown"]) == 1


def test_target_that_cannot_take_it_any_more(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("slow", "quick"):
            guest = Behaviour(off_after=8.0 if name == "slow" else 1.0)
            sim.add_vm(name, "vmhost1", behaviour=guest)
        cut_drain(sim, desk, "start")
        assert sim.where("slow") == ("vmhost1",)
        sim["vmhost2"].view.mounted = False
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 1, ended.text
        assert "vmhost2 cannot take it" in ended.out
        assert sim.where("slow") == sim.where("quick") == ("vmhost1",)
        sim["vmhost2"].view.mounted = True
        all_in_order(desk, ["slow", "quick"])


def test_no_destroy_still_holds(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))
        cut_drain(sim, desk, "wait_off", no_destroy=True)
        ended = elsewhere(desk, resume, yes=True, timeout=5.0)
        assert ended.code == 1, ended.text
        assert "still runs on vmhost1" in ended.out
        assert sim.where("web") == ("vmhost1",)
        assert not [c for c in sim.calls if c.op == "destroy"]


def test_an_unknown_outcome_is_resumed(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=5.0))
        sim.faults.on(faults.cut(120.0), op="wait_off", host="vmhost1")
        ended = desk.type(drain, hosts=["vmhost1"], to="vmhost2", yes=True)
        assert ended.code == 3, ended.text
        assert "fab resume" in ended.out
        sim.faults.clear()
        sim.wait(200.0)
        assert sim.where("web") == ()
        done = elsewhere(desk, resume, yes=True)
        assert done.code == 0, done.text
        assert sim.where("web") == ("vmhost2",)
        all_in_order(desk, ["web"])


def test_a_drain_that_was_cut_twice(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=30.0))
        cut_drain(sim, desk, "wait_off")
        sim.wait(1.0)
        sim.faults.on(faults.kill_laptop, op="start")
        assert killed(desk, drain, hosts=["vmhost1"], to="vmhost3", yes=True)
        sim.faults.clear()
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "a later command went on with it" in ended.out
        assert sim.where("web") == ("vmhost3",)
        all_in_order(desk, ["web"])


def test_an_id_chooses_and_bad_ones_are_refused(sim: SimCluster, desk: Desk) -> None:
    with sim:
        for name in ("web", "db"):
            sim.add_vm(name, "vmhost1")
            sim.faults.on(faults.kill_laptop, op="start")
            assert killed(desk, migrate, name, to="vmhost2", yes=True)
            sim.faults.clear()
            sim.wait(2.0)
        shown = elsewhere(desk, resume, dry_run=True, json=True).document["operations"]
        assert [one["vms"][0]["vm"] for one in shown] == ["web", "db"]
        for wrong in ("nonsense", "2030"):
            refused = elsewhere(desk, resume, operation=wrong, yes=True)
            assert refused.code == 2, refused.text
        ended = elsewhere(desk, resume, operation=shown[1]["id"], yes=True)
        assert ended.code == 0, ended.text
        assert sim.where("db") == ("vmhost2",)
        assert sim.where("web") == ()
        assert elsewhere(desk, resume, yes=True).code == 0
        all_in_order(desk, ["web", "db"])


def test_a_damaged_journal_is_named_and_left_alone(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        cut_drain(sim, desk, "start")
        sim.store.files["moves/20290101T000000Z-aaaaaa.json"] = '{"line": "plan"}\n'
        # A line that a dying host cut short does not spoil those that follow.
        (mine,) = (p for p in sim.store.files if p.startswith("moves/2030"))
        sim.store.files[mine] += '{"t": 5, "line": "bef'
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "20290101T000000Z-aaaaaa: is damaged" in ended.out
        assert sim.where("web") == ("vmhost2",)
        assert sim.store.files["moves/20290101T000000Z-aaaaaa.json"] == '{"line": "plan"}\n'
        assert '"line": "end"' in sim.store.files[mine]


def test_an_evacuation_goes_on_with_its_own_command(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        cut_drain(sim, desk, "start")
        (mine,) = (p for p in sim.store.files if p.startswith("moves/"))
        sim.store.files[mine] = sim.store.files[mine].replace('"kind": "drain"', '"kind": "evacuate"')
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "The same command goes on with it" in ended.out
        assert sim.where("web") == ()


@pytest.mark.parametrize("guest", ["quick", "slow", "stubborn"])
def test_9_a_suspended_laptop_wakes_up_after_another_one_has_resumed(guest: str) -> None:
    for n in count(1):
        sim = SimCluster(HOSTS, seed=n)
        desk = Desk(sim)
        with sim:
            sim.add_vm("web", "vmhost1", behaviour=GUESTS[guest]())
            sleepy = sim.another_laptop("sleepy")
            rule = sim.faults.on(
                faults.suspend_laptop(600.0), n=n, match=lambda call: call.laptop.name == "sleepy"
            )
            answer = desk.beside(sleepy, drain, hosts=["vmhost1"], to="vmhost2", timeout=10.0, yes=True)
            sim.wait(120.0)
            ended = elsewhere(desk, resume, yes=True)
            assert ended.code == 0, ended.text
            assert len(sim.where("web")) == 1
            woken = answer()
            assert woken.code in (0, 1, 2, 3), woken.text
            sim.wait(120.0)
            again = elsewhere(desk, resume, yes=True)
            assert again.code == 0, again.text
            all_in_order(desk, ["web"])
        if not rule.struck:
            assert n > 20, "a drain asks more often than that"
            return


def test_an_image_that_another_vm_has_taken_stays_with_it(sim: SimCluster, desk: Desk) -> None:
    with sim:
        disk = Disk("/vmstorage/shared.qcow2")
        web = sim.add_vm("web", "vmhost1", disks=[disk])
        sim.add_vm("twin", "vmhost3", disks=[disk], running=False)
        sim.faults.on(faults.kill_laptop, op="wait_off", when="after")
        assert killed(desk, migrate, "web", to="vmhost2", allow_shared_image=True, yes=True)
        sim["vmhost3"].start("twin")
        ended = elsewhere(desk, resume, yes=True)
        assert ended.code == 0, ended.text
        assert "stays off: VM twin runs on vmhost3 with its image" in ended.out
        assert sim.where(web) == ()
        assert "Nothing to resume." in elsewhere(desk, resume, name="third", yes=True).out
