"""resume: whatever a killed command left, another laptop finishes or undoes it, and the law holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from tasks.drain import drain
from tasks.resume import resume
from tests.domain.desk import Desk, Ended
from tests.sim import faults
from tests.sim.cluster import SimCluster
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


@pytest.fixture
def desk(sim: SimCluster) -> Desk:
    return Desk(sim)


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
