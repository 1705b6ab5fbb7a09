"""The cold move and its faults, row by row of the protocol, on the simulated cluster."""

from __future__ import annotations

import pytest

from tasks.cluster.events import Event, Phase
from tasks.cluster.model import Outcome, Vm
from tasks.cluster.store import journal
from tests.domain.moves import OPERATION, journal_of, move_of, run_all, run_move
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.guests import Behaviour


def move_web(sim: SimCluster, vm: Vm, **options: object) -> Outcome:
    with sim.session() as session:
        return run_move(sim, session, move_of(vm), **options)  # type: ignore[arg-type]


def test_moves_and_keeps_the_books(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim["vmhost1"].definitions[vm.uuid].autostart = True
        outcome = move_web(sim, vm)
        assert outcome.result == "moved", outcome
        assert (outcome.running_on, outcome.stopped_by) == ("vmhost2", "shutdown")
        assert outcome.warnings == ()
        assert outcome.downtime is not None
        assert outcome.downtime < 0.5
        assert sim.where(vm) == ("vmhost2",)
        assert sim["vmhost1"].running_vms == ""
        assert sim["vmhost2"].running_vms == "web\n"
        assert vm.uuid in sim["vmhost1"].definitions
        assert not sim["vmhost1"].definitions[vm.uuid].autostart


def test_security_info_travels(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        move_web(sim, vm)
        assert "secret" in sim["vmhost2"].definitions[vm.uuid].xml


def test_undefine_source(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        assert move_web(sim, vm, undefine_source=True).result == "moved"
        assert vm.uuid not in sim["vmhost1"].definitions


def test_same_definition_is_not_defined_again(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        assert move_web(sim, vm).result == "moved"
        assert not [c for c in sim.calls if c.op == "define"]


def test_autostart_is_turned_off_on_the_target_before_anything_is_stopped(sim: SimCluster) -> None:
    """After a reboot libvirt would start it there, wherever it may run by then."""
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost2"].definitions[vm.uuid].autostart = True
        sim.faults.on(faults.fail("virsh", "error: no"), op="shutdown")
        assert move_web(sim, vm).result == "kept"
        assert not sim["vmhost2"].definitions[vm.uuid].autostart


def test_journal_announces_each_step_before_it(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        with sim.session() as session:
            outcome = run_move(sim, session, move_of(vm))
            text = session.host("vmhost3").store_read(f"moves/{OPERATION.id}.json")
        assert outcome.ok
        assert text is not None
        record = journal.read(OPERATION.id, text)
        assert record.started == {vm.uuid}
        assert record.results == {vm.uuid: "moved"}
        ops = [c.op for c in sim.calls]
        assert ops[ops.index("define") - 1] == "store.append"
        assert ops[ops.index("shutdown") - 1] == "store.append"
        assert "store.append" in ops[ops.index("wait_off") : ops.index("start")]


def test_1_guest_ignores_shutdown(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.stopped_by) == ("moved", "destroyed")
        assert sim.where(vm) == ("vmhost2",)


def test_1_no_destroy_leaves_it_running(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))
        outcome = move_web(sim, vm, destroy=False)
        assert (outcome.result, outcome.running_on) == ("kept", "vmhost1")
        assert sim.where(vm) == ("vmhost1",)
        assert not [c for c in sim.calls if c.op == "destroy"]


def test_first_request_ignored_is_asked_again(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(ignores=1))
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.stopped_by) == ("moved", "shutdown")


def test_sigterm_ignored_is_followed_by_sigkill(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None, ignores_sigterm=True))
        assert move_web(sim, vm).stopped_by == "destroyed"
        assert sim.where(vm) == ("vmhost2",)


def test_2_destroy_fails(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None, destroy="fails"))
        outcome = move_web(sim, vm)
        assert outcome.result == "unknown"
        assert sim.where(vm) == ("vmhost1",)
        assert not [c for c in sim.calls if c.op == "start"]


def test_2_destroy_works_but_says_otherwise(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None, destroy="lies"))
        assert move_web(sim, vm).result == "moved"


def test_3_target_refuses_twice(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(failing_starts={"vmhost2": 2}))
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("back", "vmhost1")
        assert "vmhost2 refused" in outcome.detail
        assert sim.where(vm) == ("vmhost1",)
        assert len([c for c in sim.calls if c.op == "start" and c.host.name == "vmhost2"]) == 2


def test_3_second_try_works(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(failing_starts={"vmhost2": 1}))
        outcome = move_web(sim, vm)
        assert outcome.result == "moved"
        assert any("second try" in w for w in outcome.warnings)


def test_3_nobody_can_start_it(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim["vmhost1"].refusals["web"] = "no such network"
        sim["vmhost2"].refusals["web"] = "no such network"
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("failed", "")
        assert sim.where(vm) == ()


def test_4_dies_after_its_start(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(crash_after={"vmhost2": 1.0}))
        outcome = move_web(sim, vm)
        assert outcome.result == "back"
        assert "did not stay up" in outcome.detail
        assert sim.where(vm) == ("vmhost1",)


def test_5_other_host_silent(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim["vmhost4"].cut()
        outcome = move_web(sim, vm)
        assert outcome.result == "left"
        assert "vmhost4" in outcome.detail
        assert not [c for c in sim.calls if c.op in ("shutdown", "define", "start")]


def test_5_other_hosts_libvirt_frozen(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim["vmhost4"].libvirt_frozen = True
        outcome = move_web(sim, vm)
        assert outcome.result == "left"
        assert "vmhost4" in outcome.detail


@pytest.mark.parametrize("trouble", ["cut", "libvirt frozen"])
def test_5_other_host_falls_silent_while_it_stops(sim: SimCluster, trouble: str) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")

        def strike(call: faults.Call) -> None:
            if trouble == "cut":
                sim["vmhost4"].cut()
            else:
                sim["vmhost4"].libvirt_frozen = True

        sim.faults.on(strike, op="shutdown", host="vmhost1")
        outcome = move_web(sim, vm)
        assert (outcome.result, sim.where(vm)) == ("unknown", ())
        assert "vmhost4 does not answer" in outcome.detail
        assert not [c for c in sim.calls if c.op == "start"]


def test_6_target_loses_the_store_while_it_stops(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(
            lambda call: setattr(sim["vmhost2"].view, "mounted", False), op="shutdown", host="vmhost1"
        )
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("back", "vmhost1")
        assert not [c for c in sim.calls if c.op == "start" and c.host.name == "vmhost2"]


def test_7_source_cut_while_it_stops_and_back(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.cut(10.0), op="wait_off", host="vmhost1")
        outcome = move_web(sim, vm)
        assert outcome.result == "moved"
        assert sim.where(vm) == ("vmhost2",)


def test_7_source_cut_for_good(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.cut(), op="wait_off", host="vmhost1")
        outcome = move_web(sim, vm)
        assert outcome.result == "unknown"
        assert not [c for c in sim.calls if c.op == "start"]


def test_8_answer_to_start_lost(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.reply_lost, op="start", host="vmhost2")
        outcome = move_web(sim, vm)
        assert outcome.result == "moved", (outcome, sim.calls)
        assert len([c for c in sim.calls if c.op == "start"]) == 1


def test_8_start_lost_and_carried_out_late(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.delayed(60.0), op="start", host="vmhost2")
        outcome = move_web(sim, vm)
        assert outcome.result == "moved"
        sim.wait(120.0)
        assert sim.where(vm) == ("vmhost2",)
        assert {c.host.name for c in sim.calls if c.op == "start"} == {"vmhost2"}


def test_8_start_under_way_unheard_is_unknown(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.delayed(200.0, unheard=True), op="start", host="vmhost2")
        outcome = move_web(sim, vm)
        assert outcome.result == "unknown", outcome
        assert "vmhost2" in outcome.detail
        sim.wait(300.0)
        assert sim.where(vm) == ("vmhost2",)


def test_8_start_lost_and_refused_again_starts_nowhere_else(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.delayed(200.0), op="start", host="vmhost2")
        sim.faults.on(faults.fail("virsh", "error: no"), op="start", host="vmhost2", n=2)
        outcome = move_web(sim, vm)
        assert outcome.result == "unknown"
        assert "twice" in outcome.detail
        sim.wait(300.0)
        assert sim.where(vm) == ("vmhost2",)


@pytest.mark.parametrize("taken", [False, True])
def test_9_laptop_is_suspended_while_it_stops(sim: SimCluster, taken: bool) -> None:
    """For longer than hosts wait for it; somebody else may start the VM again meanwhile."""
    with sim:
        vm = sim.add_vm("web", "vmhost1")

        def strike(call: faults.Call) -> None:
            faults.suspend_laptop(60.0)(call)
            if taken:
                sim.after(40.0, lambda: sim["vmhost1"].start(vm.uuid))

        sim.faults.on(strike, op="wait_off", host="vmhost1", when="after")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == (
            ("left", "vmhost1") if taken else ("moved", "vmhost2")
        )
        assert sim.where(vm) == (outcome.running_on,)
        assert len([c for c in sim.calls if c.op == "start"]) == (0 if taken else 1)


def test_11_no_start_goes_over_a_link_that_does_not_hold_the_lock(sim: SimCluster) -> None:
    """The target's link is lost in the proof, and the lock with it; a new link is there, without the lock."""
    held = []
    with sim:
        vm = sim.add_vm("web", "vmhost1")

        def proof_comes(call: faults.Call) -> None:
            sim.faults.on(faults.silent, op="running", host="vmhost2")

        def look(call: faults.Call) -> None:
            link = sim.store.locks.get(f"locks/vm-{vm.uuid}")
            held.append(link is not None and link.carries)

        sim.faults.on(proof_comes, op="wait_off", host="vmhost1", when="after")
        sim.faults.on(look, op="start", n=None)
        outcome = move_web(sim, vm)
        assert (outcome.result, held) == ("moved", [True]), outcome
        assert sim.where(vm) == ("vmhost2",)


def test_10_started_by_hand_elsewhere_meanwhile(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost3",))
        sim.faults.on(lambda call: sim["vmhost3"].start(vm.uuid), op="wait_off", host="vmhost1", when="after")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("left", "vmhost3")
        assert sim.where(vm) == ("vmhost3",)


def test_10_started_by_hand_while_another_host_is_slow_to_answer(sim: SimCluster) -> None:
    """The host where it is started has answered before, and would be believed."""
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost3",))

        def slow(call: faults.Call) -> None:
            sim.wait(4.0)
            sim["vmhost3"].start(vm.uuid)
            sim.wait(1.0)

        def proof_comes(call: faults.Call) -> None:
            sim.faults.on(slow, op="running", host="vmhost4")

        sim.faults.on(proof_comes, op="wait_off", host="vmhost1", when="after")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("left", "vmhost3"), outcome
        assert sim.where(vm) == ("vmhost3",)


def test_10_started_by_hand_after_the_proof_while_the_source_is_slow(sim: SimCluster) -> None:
    """The source is being told to let go: the proof, made at the same time, is old when that is done."""
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost3",))

        def slow(call: faults.Call) -> None:
            sim.wait(3.0)
            sim["vmhost3"].start(vm.uuid)

        sim.faults.on(slow, op="note_running", host="vmhost1")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("left", "vmhost3"), outcome
        assert not [c for c in sim.calls if c.op == "start"]


def test_10_started_again_on_the_source_between_two_looks(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=None))

        def again() -> None:
            sim["vmhost1"].destroy(vm.uuid)
            sim["vmhost1"].start(vm.uuid)

        sim.faults.on(lambda call: sim.after(5.0, again), op="shutdown")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("left", "vmhost1"), outcome
        assert "somebody started it there again" in outcome.detail
        assert not [c for c in sim.calls if c.op in ("destroy", "start")]


def test_10_started_by_hand_on_the_target_meanwhile(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(lambda call: sim["vmhost2"].start(vm.uuid), op="wait_off", host="vmhost1", when="after")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("already-there", "vmhost2")
        assert sim.where(vm) == ("vmhost2",)


def test_10_shut_down_by_hand_before_its_turn(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        outcome = move_web(sim, vm)
        assert outcome.result == "left"
        assert sim.where(vm) == ()


@pytest.mark.parametrize("where", ["nowhere", "vmhost3"])
def test_10_stopped_or_moved_by_hand_before_the_end(sim: SimCluster, where: str) -> None:
    """A VM that has arrived is looked at once more when all are done."""
    with sim, sim.session() as session:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost3",))
        slow = sim.add_vm("slow", "vmhost1", behaviour=Behaviour(off_after=20.0))

        def strike(call: faults.Call) -> None:
            sim["vmhost2"].destroy(vm.uuid)
            if where != "nowhere":
                sim[where].start(vm.uuid)

        sim.faults.on(strike, op="start", match=lambda call: call.args["uuid"] == slow.uuid)
        web, other = run_all(sim, session, [move_of(vm), move_of(slow)]).outcomes
        assert other.result == "moved"
        assert web.result == "failed"
        assert web.detail == f"moved, but at the end it ran on: {where}"


def test_11_second_operator_is_refused(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", behaviour=Behaviour(off_after=20.0))
        other = sim.another_laptop("other")

        def work() -> Outcome:
            with sim.session(other) as session:
                return run_move(sim, session, move_of(vm, target="vmhost3"))

        answer = sim.beside(work, other)
        sim.wait(5.0)
        outcome = move_web(sim, vm)
        assert outcome.result == "left"
        assert "ada@laptop" in outcome.detail
        assert "fab migrate web" in outcome.detail
        assert answer().result == "moved"
        assert sim.where(vm) == ("vmhost3",)


def test_18_store_full_refuses_before_anything(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(faults.fail("store", "no space left on /vmstorage"), op="store.append", n=None)
        with sim.session() as session:
            journal_ = journal_of(sim, session)
            with pytest.raises(Exception, match="no space left"):
                journal_.plan([move_of(vm)], kind="migrate")
        assert sim.where(vm) == ("vmhost1",)


def test_18_store_fills_up_while_it_stops(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        sim.faults.on(lambda call: setattr(sim.store, "full", True), op="wait_off", host="vmhost1")
        outcome = move_web(sim, vm)
        assert (outcome.result, outcome.running_on) == ("moved", "vmhost2"), outcome
        assert any("is full" in w for w in outcome.warnings)
        assert sim.where(vm) == ("vmhost2",)


def test_journal_lost_while_it_is_down_does_not_keep_it_down(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")

        def break_store(call: faults.Call) -> None:
            sim.faults.on(faults.fail("store", "no space left"), op="store.append", n=None)

        sim.faults.on(break_store, op="wait_off", when="after")
        outcome = move_web(sim, vm)
        assert outcome.result == "moved"
        assert any("no space left" in w for w in outcome.warnings)


def test_events_tell_the_story(sim: SimCluster) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1")
        events: list[Event] = []
        assert move_web(sim, vm, events=events).ok
        phases = list(dict.fromkeys(e.phase for e in events))
        assert phases == [
            Phase.CHECKING,
            Phase.DEFINING,
            Phase.SHUTTING_DOWN,
            Phase.PROVING,
            Phase.STARTING,
            Phase.WATCHING,
            Phase.MOVED,
        ]
