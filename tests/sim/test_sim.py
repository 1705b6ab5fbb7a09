"""The simulator itself: the law fires, time moves by itself, the same seed gives the same run."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest

from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.model import HostFacts, Silent
from tests.sim import faults, process
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.errors import VirshError
from tests.sim.guests import Behaviour
from tests.sim.law import LawBroken
from tests.sim.process import Unsimulated
from tests.sim.scheduler import Deadlock, SimKilled

# -- the law -----------------------------------------------------------------------------------------


def started_twice(by_agent: bool) -> SimCluster:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        if by_agent:
            with sim.session() as session, session.using("vmhost2") as ops:
                ops.start(vm.uuid)
        else:
            sim["vmhost2"].start(vm.uuid)
    return sim


@pytest.mark.parametrize("by_agent", [True, False])
def test_a_planted_double_start_is_caught_at_that_moment(by_agent: bool) -> None:
    by = "vmfab" if by_agent else "hand"
    with pytest.raises(LawBroken, match=rf"by web on vmhost2 and web on vmhost1 \(started by {by}\)"):
        started_twice(by_agent)


def test_a_broken_law_stays_broken_even_if_nobody_looks() -> None:
    sim = SimCluster()
    sim.__enter__()
    vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
    with pytest.raises(LawBroken):
        sim["vmhost2"].start(vm.uuid)
    sim["vmhost1"].destroy(vm.uuid)
    with pytest.raises(LawBroken, match="started by hand"):
        sim.__exit__(None, None, None)
    assert sim.store.images[f"{vm.uuid[:8]}.qcow2"].faults()


def test_two_vms_that_share_a_writable_image_break_the_law() -> None:
    with SimCluster() as sim:
        sim.store.links["alias.img"] = "shared.img"
        sim.add_vm("one", "vmhost1", disks=[Disk("/vmstorage/shared.img")])
        with pytest.raises(LawBroken, match=r"shared\.img is written by"):
            sim.add_vm("two", "vmhost2", disks=[Disk("/vmstorage/./alias.img")])
        sim.forgive()


def test_read_only_and_shareable_disks_are_free() -> None:
    with SimCluster() as sim:
        disks = [Disk("/vmstorage/base.img", read_only=True), Disk("/vmstorage/s.img", "vdb", shareable=True)]
        sim.add_vm("one", "vmhost1", disks=disks)
        sim.add_vm("two", "vmhost2", disks=disks)


def test_the_same_vm_twice_breaks_the_law_even_with_images_of_its_own() -> None:
    with SimCluster() as sim:
        sim.add_vm("web", "vmhost1", disks=[Disk("/vmstorage/a.img")])
        with pytest.raises(LawBroken, match="web runs on"):
            sim.add_vm("web", "vmhost2", disks=[Disk("/vmstorage/b.img")])
        sim.forgive()


def test_a_start_by_the_boot_script_is_seen_too() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].power_off(seconds=60.0)
        sim["vmhost2"].start(vm.uuid)
        with pytest.raises(LawBroken, match="started by boot"):
            sim.wait(300.0)
        sim.forgive()


def test_counters_go_on_where_the_last_writer_stopped() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim.wait(10.0)
        sim["vmhost1"].destroy(vm.uuid)
        sim["vmhost2"].start(vm.uuid)
        sim.wait(5.0)
        image = sim.store.images[f"{vm.uuid[:8]}.qcow2"]
        sim.assert_law()
        first, second = image.boots
        assert (first.host, second.host) == ("vmhost1", "vmhost2")
        assert first.last is not None
        assert second.first == first.last + 1
        assert image.counter >= 150


# -- time --------------------------------------------------------------------------------------------


def test_an_hour_takes_no_time() -> None:
    begin = time.monotonic()
    with SimCluster() as sim:
        sim.clock.sleep(3600.0)
        assert sim.clock.monotonic() == 3600.0
    assert time.monotonic() - begin < 30.0


def test_threads_wait_at_the_same_time() -> None:
    with SimCluster() as sim:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: sim.clock.sleep(10.0), range(8)))
        assert sim.clock.monotonic() == 20.0


def test_locks_and_events_wait_in_simulated_time() -> None:
    with SimCluster() as sim:
        lock, event, order = threading.Lock(), Event(), []

        def second() -> None:
            with lock:
                order.append(("second", sim.clock.monotonic()))
            event.set()

        with lock:
            Thread(target=second).start()
            sim.clock.sleep(5.0)
            order.append(("first", sim.clock.monotonic()))
        assert not event.wait(0.0) or order[-1][0] == "second"
        assert event.wait(60.0)
        assert order == [("first", 5.0), ("second", 5.0)]
        assert sim.clock.monotonic() == 5.0
        assert not Event().wait(7.0)
        assert sim.clock.monotonic() == 12.0


def test_a_deadlock_is_told_with_its_threads() -> None:
    with pytest.raises(Deadlock, match="all threads wait"), SimCluster():
        Event().wait()


def test_really_sleeping_is_an_error() -> None:
    with SimCluster(), pytest.raises(AssertionError, match="injected clock"):
        time.sleep(0.1)


def test_everything_is_put_back() -> None:
    before = (threading.Lock, Thread.start, time.sleep)
    with SimCluster():
        assert (threading.Lock, Thread.start, time.sleep) != before
        Thread(target=Event().wait).start()
    assert (threading.Lock, Thread.start, time.sleep) == before


def drained(seed: int) -> tuple[list[str], list[str]]:
    """The history of four VMs that are stopped side by side."""
    with SimCluster(seed=seed) as sim:
        vms = [sim.add_vm(f"vm{n}", "vmhost1", behaviour=Behaviour(off_after=3.0)) for n in range(4)]
        with sim.session() as session, ThreadPoolExecutor(4) as pool:

            def stop(uuid: str) -> None:
                with session.using("vmhost1") as ops:
                    ops.shutdown(uuid)
                    assert ops.wait_off(uuid, timeout=30.0, ask_again=None)["off"]

            list(pool.map(stop, [vm.uuid for vm in vms]))
        assert sim.clock.monotonic() < 4.0
        return sim.history, [f"{c.at} {c}" for c in sim.calls]


def test_the_same_seed_gives_the_same_run() -> None:
    assert drained(7) == drained(7)
    assert drained(7) != drained(8)


# -- faults ------------------------------------------------------------------------------------------


def test_a_silent_host_holds_nobody_up() -> None:
    with SimCluster() as sim:
        sim["vmhost3"].power_off()
        with sim.session() as session:
            seen = session.observe()
        assert isinstance(seen.hosts["vmhost3"], Silent)
        assert sum(isinstance(h, HostFacts) for h in seen.hosts.values()) == 3
        assert sim.clock.monotonic() < 10.0


def test_a_lost_reply_is_carried_out_all_the_same() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        rule = sim.faults.on(faults.reply_lost, op="start")
        with sim.session() as session:
            with session.using("vmhost2"), pytest.raises(LinkLost), session.using("vmhost1") as ops:
                ops.start(vm.uuid)
            with session.using("vmhost1") as ops:
                assert [d.vm for d in ops.running().active] == [vm]
        assert rule.struck == 1


def test_a_late_start_keeps_the_lock_until_it_is_over() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", running=False)
        sim.faults.on(faults.delayed(100.0, unheard=True), op="start")
        with sim.session() as session:
            ops = session.host("vmhost1")
            ops.store_lock("locks/x", {})
            with pytest.raises(LinkLost):
                ops.start(vm.uuid)
            sim.wait(60.0)
            with session.using("vmhost2") as ops, pytest.raises(HostError):
                ops.store_lock("locks/x", {})
            sim.wait(60.0)
            assert sim.where(vm) == ("vmhost1",)
            with session.using("vmhost2") as ops:
                ops.store_lock("locks/x", {})


def test_a_killed_laptop_does_nothing_more_and_its_locks_go() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim.faults.on(faults.kill_laptop, op="shutdown", when="after")
        reached = []

        def work() -> None:
            with sim.session() as session, ThreadPoolExecutor(2) as pool:
                with session.using("vmhost1") as ops:
                    ops.store_lock("locks/x", {})
                beside = pool.submit(sim.clock.sleep, 1000.0)
                with session.using("vmhost1") as ops:
                    ops.shutdown(vm.uuid)
                reached.append("after the kill")
                beside.result()

        with pytest.raises(SimKilled):
            sim.laptop.run(work)
        assert reached == []
        assert sim.clock.monotonic() < 10.0
        with pytest.raises(SimKilled):
            sim.session().host("vmhost1")
        sim.wait(10.0)
        assert sim.where(vm) == ()
        with sim.session(sim.another_laptop("other")) as session, session.using("vmhost2") as ops:
            ops.store_lock("locks/x", {})
            ops.start(vm.uuid)


def test_power_loss_frees_locks_only_after_eviction() -> None:
    with SimCluster() as sim, sim.session() as session:
        session.host("vmhost1").store_lock("locks/x", {})
        sim["vmhost1"].power_off()
        other = session.host("vmhost2")
        sim.wait(60.0)
        with pytest.raises(HostError):
            other.store_lock("locks/x", {})
        sim.wait(20.0)
        other.store_lock("locks/x", {})


def test_a_boot_starts_what_running_vms_names_and_what_has_autostart() -> None:
    with SimCluster() as sim:
        web, db = sim.add_vm("web", "vmhost1"), sim.add_vm("db", "vmhost1", running=False)
        sim["vmhost1"].definitions[db.uuid].autostart = True
        sim["vmhost1"].running_vms = "unknown\r\n\nweb"
        before = sim["vmhost1"].boot_id
        sim["vmhost1"].power_off(seconds=30.0)
        assert sim.where(web) == ()
        sim.wait(120.0)
        assert (sim.where(web), sim.where(db)) == (("vmhost1",), ("vmhost1",))
        assert sim["vmhost1"].boot_id != before
        assert sim["vmhost1"].boot_log[-2:] == ["unknown: failed to get domain 'unknown'", "web: started"]


def test_a_boot_runs_the_real_restart_script_in_simulated_time() -> None:
    with SimCluster() as sim:
        sim.autostart()
        web, db = sim.add_vm("web", "vmhost1"), sim.add_vm("db", "vmhost1")
        sim["vmhost1"].running_vms = "web\r\n\nunknown\ndb"
        sim["vmhost1"].view.mounted = False
        sim["vmhost1"].power_off(seconds=30.0)
        sim.wait(300.0)
        assert (sim.where(web), sim.where(db)) == ((), ())
        sim["vmhost1"].view.mounted = True
        with sim.session() as session:
            session.host("vmhost2").store_lock(f"locks/vm-{db.uuid}", {})
            sim.wait(60.0)
        assert (sim.where(web), sim.where(db)) == (("vmhost1",), ())
        assert sim["vmhost1"].boot_log[0] == "web: started"
        assert "unknown: unknown: no VM of this name is defined here" in sim["vmhost1"].boot_log
        assert any(
            line.startswith("db: left off: vmfab is working on it") for line in sim["vmhost1"].boot_log
        )
        assert not any(path.startswith("locks/") for path in sim.store.locks)


def test_the_restart_script_ends_with_its_host() -> None:
    with SimCluster() as sim:
        sim.autostart()
        vms = [sim.add_vm(name, "vmhost1") for name in ("web", "db", "mail")]
        sim["vmhost1"].power_off(seconds=30.0)
        sim.wait(42.0)
        assert [sim.where(vm) for vm in vms] == [("vmhost1",), (), ()]
        sim["vmhost1"].power_off()
        sim.wait(100.0)
        assert [sim.where(vm) for vm in vms] == [(), (), ()]
        assert not sim.store.locks


def test_old_memory_on_a_changed_disk_is_noticed() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim["vmhost1"].managed_save(vm.uuid)
        sim["vmhost2"].start(vm.uuid)
        sim.wait(1.0)
        sim["vmhost2"].destroy(vm.uuid)
        sim.assert_law()
        sim["vmhost1"].start(vm.uuid)
        with pytest.raises(LawBroken, match="goes on from before"):
            sim.assert_law()
        sim.forgive()


def test_a_program_that_wants_what_is_not_simulated_is_loud() -> None:
    with SimCluster() as sim, pytest.raises(Unsimulated, match="statvfs"):
        process.run(sim["vmhost1"], "import os\ndef main(argv): os.statvfs('/')", [], "")


def test_a_suspended_laptop_finds_its_links_lost() -> None:
    with SimCluster() as sim, sim.session() as session:
        ops = session.host("vmhost1")
        sim.laptop.suspend(100.0)
        with pytest.raises(HostSilent):
            ops.running()
        assert sim.clock.monotonic() >= 100.0
        assert session.host("vmhost2").running().active == ()


# -- guests ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "asked_every", "off_at"),
    [
        (Behaviour(off_after=0.0), None, 0.0),
        (Behaviour(off_after=5.0), None, 5.0),
        (Behaviour(off_after=None), 15.0, None),
        (Behaviour(off_after=1.0, ignores=1), None, None),
        (Behaviour(off_after=1.0, ignores=1), 15.0, 16.0),
        (Behaviour(off_after=1.0, reboots_instead=True), None, None),
    ],
)
def test_guests_react_as_told(behaviour: Behaviour, asked_every: float | None, off_at: float | None) -> None:
    with SimCluster() as sim, sim.session() as session:
        vm = sim.add_vm("web", "vmhost1", behaviour=behaviour)
        with session.using("vmhost1") as ops:
            ops.shutdown(vm.uuid)
            reply = ops.wait_off(vm.uuid, timeout=40.0, ask_again=asked_every)
        assert reply["off"] is (off_at is not None)
        assert reply["waited"] == pytest.approx(40.0 if off_at is None else off_at, abs=0.2)


def test_a_destroy_may_fail_or_lie() -> None:
    with SimCluster() as sim:
        for how, left in (("fails", 1), ("lies", 0)):
            vm = sim.add_vm(how, "vmhost1", behaviour=Behaviour(destroy=how))
            with pytest.raises(VirshError):
                sim["vmhost1"].destroy(vm.uuid)
            assert len(sim.where(vm)) == left


def test_a_lost_process_still_shows_in_proc() -> None:
    with SimCluster() as sim, sim.session() as session:
        vm = sim.add_vm("web", "vmhost1")
        sim["vmhost1"].lose_track("web")
        seen = session.host("vmhost1").running()
        assert seen.active == ()
        assert [p.uuid for p in seen.processes] == [vm.uuid]
        with pytest.raises(VirshError, match="write"):
            sim["vmhost1"].start(vm.uuid)
