"""The lock that an operation holds, and what the holder of any lock is told as."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tasks.cluster.store.locks import Locked, describe_holder, lock_of_vm
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.oplock import OperationLock, path_of
from tasks.migrate import migrate
from tests.domain.desk import Desk
from tests.domain.moves import OPERATION
from tests.sim import faults
from tests.sim.cluster import SimCluster

PATH = path_of(OPERATION.id)
OTHER = Operation("20260101T000000Z-fedcba", "fab resume", "bob@pc", 1767225600.0)


@pytest.fixture
def sim() -> Iterator[SimCluster]:
    with SimCluster(("vmhost1", "vmhost2", "vmhost3")) as made:
        yield made


def test_it_is_taken_again_when_its_host_is_lost(sim: SimCluster) -> None:
    with sim.session() as session:
        lock = OperationLock(session, ["vmhost1", "vmhost2"], OPERATION.id, OPERATION)
        lock.take()
        assert sim.store.locks[PATH].host == "vmhost1"
        lock.keep()
        sim["vmhost1"].cut()
        session.running_now()
        lock.keep()
        sim.wait(8.0)
        # The lost host's agent holds it for us until it ends by itself.
        assert sim.store.locks[PATH].host == "vmhost1"
        sim.wait(40.0)
        lock.keep()
        sim.wait(8.0)
        assert sim.store.locks[PATH].host == "vmhost2"
        assert lock.warnings == ()
        lock.end()
        assert PATH not in sim.store.files
        assert PATH not in sim.store.locks


def test_another_one_that_took_it_meanwhile_is_warned_of(sim: SimCluster) -> None:
    with sim.session() as session, sim.session(sim.another_laptop("other")) as others:
        lock = OperationLock(session, ["vmhost1", "vmhost2"], OPERATION.id, OPERATION)
        lock.take()
        sim["vmhost1"].cut()
        session.running_now()
        sim.wait(40.0)
        theirs = OperationLock(others, ["vmhost3"], OPERATION.id, OTHER)
        theirs.take()
        lock.keep()
        sim.wait(8.0)
        assert "bob@pc runs 'fab resume'" in lock.warnings[0]
        # What is not ours is not removed.
        lock.end()
        assert sim.store.locks[PATH].host == "vmhost3"
        theirs.end()
        assert PATH not in sim.store.files


def test_no_host_no_operation(sim: SimCluster) -> None:
    with sim.session() as session:
        for host in sim.hosts.values():
            host.view.mounted = False
        lock = OperationLock(session, list(sim.hosts), OPERATION.id, OPERATION)
        with pytest.raises(Exception, match="vmhost3: /vmstorage is not mounted"):
            lock.take()


def test_whoever_is_kept_out_is_told_by_whom_and_how_it_ends(sim: SimCluster) -> None:
    vm = sim.add_vm("web", "vmhost1")
    with sim.session() as session, sim.session(sim.another_laptop("other")) as others:
        lock_of_vm(session, vm, OPERATION).hold_through("vmhost2")
        with pytest.raises(Locked) as caught:
            lock_of_vm(others, vm, OTHER).hold_through("vmhost3")
    error = caught.value
    assert error.operation == OPERATION.id
    assert re.fullmatch(
        r"VM web is being worked on: ada@laptop runs 'fab migrate web' since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d "
        r"\(\d+ (s|min)\), through process \d+ on vmhost2\.",
        error.message,
    )
    assert re.search(r"on vmhost2: kill \d+$", error.hint)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"by": "ada"}', '{"by": 1, "command": 2, "at": "x"}']
)
def test_a_lock_that_says_nothing_is_no_fault_of_ours(text: str) -> None:
    assert describe_holder(text).startswith("the lock says ")
    assert Locked("VM web", text).operation == ""


def test_an_operation_whose_plan_cannot_be_written_leaves_nothing_behind(sim: SimCluster) -> None:
    sim.add_vm("web", "vmhost1")
    sim.faults.on(faults.fail("store", "Input/output error"), op="store.append", n=None)
    ended = Desk(sim).type(migrate, "web", to="vmhost2", yes=True)
    assert ended.code == 1, ended.text
    assert "Input/output error" in ended.err
    assert not [path for path in sim.store.files if path.startswith("locks/op-")]
    assert sim.where("web") == ("vmhost1",)
