"""The real hook and tender on simulated hosts: live migrations typed by hand, and power cuts in the hook."""

from __future__ import annotations

import json
from itertools import count

import pytest

from tests.sim import hooks, migration, process
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.errors import VirshError
from tests.sim.guard import SimGuard
from tests.sim.host import SimHost

HOSTS = ("vmhost1", "vmhost2", "vmhost3")
SOURCE, TARGET, THIRD = HOSTS


@pytest.fixture
def sim() -> SimCluster:
    return SimCluster(HOSTS)


def owners(sim: SimCluster) -> set[str]:
    """Who owns the images, with where they are on their way to."""
    # A draft that was never finished is no owner file.
    texts = [
        text for path, text in sim.store.files.items() if path.startswith("owners/") and "/.tmp-" not in path
    ]
    records = [json.loads(text) for text in texts]
    return {r["host"] + (f">{r['to']['host']}" if "to" in r else "") for r in records}


def may_start(host: SimHost, vm: str) -> bool:
    try:
        host.start(vm)
    except VirshError as error:
        return "is owned by" not in error.message
    return True


def migrated(sim: SimCluster, seconds: float = 5.0) -> None:
    migration.begin(sim[SOURCE], "web", sim[TARGET], seconds=seconds, undefine=False)
    assert owners(sim) == {f"{SOURCE}>{TARGET}"}


def test_17_the_owner_goes_with_the_vm(sim: SimCluster) -> None:
    with sim:
        sim.add_vm("web", SOURCE, also_defined_on=[THIRD])
        SimGuard(sim)
        migrated(sim)
        assert not may_start(sim[THIRD], "web")
        sim.wait(6.0)
        assert owners(sim) == {TARGET}
        assert sim.where("web") == (TARGET,)
        assert not may_start(sim[SOURCE], "web")
        assert [h.name for h in sim.hosts.values() if h.names_to_restart() == ["web"]] == [TARGET]


@pytest.mark.parametrize("back", [5.0, 300.0])
def test_17_the_target_dies_before_it_runs_there(sim: SimCluster, back: float) -> None:
    with sim:
        sim.add_vm("web", SOURCE, also_defined_on=[THIRD])
        SimGuard(sim)
        migrated(sim)
        sim.wait(2.0)
        sim[TARGET].power_off(back)
        sim.wait(3.0)
        assert sim.where("web") == (SOURCE,)
        assert not may_start(sim[THIRD], "web")
        sim.wait(150.0)
        assert owners(sim) == {SOURCE}
        sim.wait(300.0)
        assert sim.where("web") == (SOURCE,)


@pytest.mark.parametrize("back", [5.0, 300.0])
def test_17_the_source_dies_in_the_moment_after(sim: SimCluster, back: float) -> None:
    with sim:
        sim.add_vm("web", SOURCE)
        SimGuard(sim)
        migrated(sim)
        sim.wait(5.1)
        assert len(sim.where("web")) == 2, "the process on the source waits for its end"
        sim[SOURCE].power_off(back)
        assert owners(sim) == {f"{SOURCE}>{TARGET}"}
        sim.wait(150.0)
        assert owners(sim) == {TARGET}
        sim.wait(300.0)
        assert sim.where("web") == (TARGET,)


def test_17_the_source_may_not_start_what_has_left_it(sim: SimCluster) -> None:
    with sim:
        sim.add_vm("web", SOURCE)
        SimGuard(sim)
        migrated(sim)
        sim.wait(5.1)
        sim[SOURCE].power_off()
        sim[SOURCE].power_on()
        assert owners(sim) == {f"{SOURCE}>{TARGET}"}
        assert not may_start(sim[SOURCE], "web")
        sim.wait(60.0)
        assert owners(sim) == {TARGET}


def test_17_what_has_not_arrived_gets_no_owner(sim: SimCluster) -> None:
    """The source is dead, and a libvirtd that is stuck has not yet ended what waits for its memory."""
    with sim:
        sim.add_vm("web", SOURCE)
        SimGuard(sim)
        migrated(sim)
        sim[TARGET].freeze_libvirt()
        sim[SOURCE].power_off()
        sim.wait(150.0)
        assert sim.where("web") == (TARGET,)
        assert owners(sim) == {f"{SOURCE}>{TARGET}"}
        sim[TARGET].thaw_libvirt()
        sim.wait(1.0)
        assert sim.where("web") == ()
        assert owners(sim) == {SOURCE}


def test_17_the_source_dies_before(sim: SimCluster) -> None:
    with sim:
        sim.add_vm("web", SOURCE, also_defined_on=[THIRD])
        SimGuard(sim)
        migrated(sim)
        sim.wait(2.0)
        sim[SOURCE].power_off(100.0)
        sim.wait(50.0)
        assert sim.where("web") == ()
        assert owners(sim) == {SOURCE}
        assert not may_start(sim[THIRD], "web")
        sim.wait(100.0)
        assert sim.where("web") == (SOURCE,)


def test_17_both_die(sim: SimCluster) -> None:
    with sim:
        sim.add_vm("web", SOURCE, also_defined_on=[THIRD])
        SimGuard(sim)
        migrated(sim, seconds=60.0)
        sim[TARGET].power_off(50.0)
        sim[SOURCE].power_off()
        assert owners(sim) == {f"{SOURCE}>{TARGET}"}
        assert not may_start(sim[THIRD], "web")
        sim.wait(100.0)
        assert owners(sim) == {SOURCE}
        sim[SOURCE].power_on()
        sim.wait(60.0)
        assert sim.where("web") == (SOURCE,)


@pytest.mark.parametrize("end", ["source", "target"])
def test_17_one_side_is_destroyed(sim: SimCluster, end: str) -> None:
    with sim:
        sim.add_vm("web", SOURCE)
        SimGuard(sim)
        migrated(sim)
        sim[SOURCE if end == "source" else TARGET].destroy("web")
        assert sim.where("web") == (() if end == "source" else (SOURCE,))
        assert owners(sim) == (set() if end == "source" else {SOURCE})


@pytest.mark.parametrize("moment", ["start", "end"])
def test_power_may_go_at_every_change_that_the_hook_makes(moment: str) -> None:
    """Before the host is back nobody starts what it owns; then it starts it itself."""
    for changes in count(1):
        sim = SimCluster(HOSTS)
        with sim:
            disks = [Disk("/vmstorage/a.qcow2"), Disk("/vmstorage/b.qcow2", "vdb")]
            sim.add_vm("web", SOURCE, also_defined_on=[THIRD], disks=disks, running=moment == "end")
            SimGuard(sim)
            sim[SOURCE].restarts_vms = False
            sim[SOURCE].power_goes = (changes, 200.0)
            if moment == "start":
                try:
                    sim[SOURCE].start("web")
                except VirshError:
                    assert not sim[SOURCE].powered
            else:
                sim[SOURCE].destroy("web")
            if sim[SOURCE].powered:
                assert changes > (8 if moment == "start" else 2), "a hook changes more than that"
                return
            sim.wait(100.0)
            owned = owners(sim)
            assert may_start(sim[THIRD], "web") == (owned == set())
            if sim.where("web"):
                sim[THIRD].destroy("web")
            sim.wait(150.0)
            assert may_start(sim[SOURCE], "web")


def test_what_an_end_has_left_is_not_given_back_after_another_claim(sim: SimCluster) -> None:
    """The tender has seen the note; before it gets the lock, the VM is about to start again."""
    with sim:
        web = sim.add_vm("web", SOURCE, running=False)
        SimGuard(sim)
        host = sim[SOURCE]
        host.hook.prepare(host.find("web"), "")
        tender = process.Process(host, ["vmfab-tend"], "")
        tender.scope(host.disk.files[hooks.FILE][0])["give_back_left"](web.uuid)
        tender.end()
        assert owners(sim) == {SOURCE}
