"""Every fault at every single request of vm.start and vm.shutdown: the law holds, the code is true."""

from __future__ import annotations

from itertools import count

import pytest

from tasks.cli.task import VmTask
from tasks.vmpower import shutdown, start
from tests.domain.desk import Desk, Ended
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.cluster import SimCluster


def attempt(desk: Desk, task: VmTask, *hosts: str) -> Ended | None:
    """One call about the VM; None when its laptop was killed."""
    return desk.type_or_die(task, "web", hosts=hosts)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_start_then_start_elsewhere(fault: str, when: str) -> None:
    for n in count(1):
        sim = SimCluster(("vmhost1", "vmhost2", "vmhost3"), seed=n)
        with sim:
            desk = Desk(sim)
            vm = sim.add_vm("web", "vmhost1", running=False, also_defined_on=("vmhost2",))
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = attempt(desk, start, "vmhost1")
            if ended is not None and ended.code == 0:
                assert sim.where(vm) == ("vmhost1",), ended
            if ended is not None and ended.code == 2:
                assert sim.where(vm) == (), ended
            sim.faults.clear()
            # A second operator who believes the first one's failure must not break anything.
            elsewhere = desk.beside(sim.another_laptop("other"), start, "web", hosts=["vmhost2"])()
            if elsewhere.code == 0:
                assert sim.where(vm) == ("vmhost2",), (ended, elsewhere)
            sim.wait(300.0)
            assert len(sim.where(vm)) <= 1
            sim.assert_law()
        if not rule.struck:
            assert n > 10, "a start asks more often than that"
            return


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_shutdown(fault: str, when: str) -> None:
    for n in count(1):
        sim = SimCluster(("vmhost1", "vmhost2", "vmhost3"), seed=n)
        with sim:
            desk = Desk(sim)
            vm = sim.add_vm("web", "vmhost1")
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = attempt(desk, shutdown)
            if ended is not None and ended.code == 0:
                assert sim.where(vm) == (), ended
            if ended is not None and ended.code == 2:
                assert not desk.ops("shutdown"), ended
        if not rule.struck:
            assert n > 8, "a shutdown asks more often than that"
            return
