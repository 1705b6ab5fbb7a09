"""Every kind of fault at every single request of a move: the law holds, and the outcome tells the truth."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from tasks.cluster.errors import VmfabError
from tasks.cluster.model import Outcome, Vm
from tests.domain.moves import move_of, run_all
from tests.sim import faults
from tests.sim.cluster import SimCluster
from tests.sim.faults import Fault
from tests.sim.guests import Behaviour
from tests.sim.scheduler import SimKilled

FAULTS: dict[str, Callable[[], Fault]] = {
    "request lost": lambda: faults.silent,
    "reply lost": lambda: faults.reply_lost,
    "carried out 5 s late": lambda: faults.delayed(5.0),
    "carried out 60 s late": lambda: faults.delayed(60.0),
    "host cut for 10 s": lambda: faults.cut(10.0),
    "host cut for good": lambda: faults.cut(),
    "host loses power": lambda: faults.power_off(),
    "host loses power for 20 s": lambda: faults.power_off(20.0),
    "libvirt says no": lambda: faults.fail("virsh", "error: no"),
    "libvirt hangs": lambda: faults.fail("libvirt-silent", "libvirtd does not answer"),
    "store fails": lambda: faults.fail("store", "Input/output error"),
    "laptop killed": lambda: faults.kill_laptop,
    "laptop suspended for 60 s": lambda: faults.suspend_laptop(60.0),
}

GUESTS = {
    "quick": Behaviour(),
    "stubborn": Behaviour(off_after=None),
    "dies on the target": Behaviour(crash_after={"vmhost2": 1.0}),
}


def attempt(sim: SimCluster, vm: Vm) -> Outcome | None:
    """One move; None when the laptop was killed or the move never began."""
    try:
        with sim.session() as session:
            return run_all(sim, session, [move_of(vm, timeout=10.0)]).outcomes[0]
    except (SimKilled, VmfabError):
        return None


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_law_holds_whatever_breaks_wherever(fault: str, when: str, guest: str) -> None:
    for n in count(1):
        sim = SimCluster(("vmhost1", "vmhost2", "vmhost3"), seed=n)
        given = GUESTS[guest]
        behaviour = Behaviour(off_after=given.off_after, crash_after=dict(given.crash_after))
        with sim:
            vm = sim.add_vm("web", "vmhost1", behaviour=behaviour)
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            outcome = attempt(sim, vm)
            if outcome is not None and outcome.result in ("moved", "already-there"):
                assert sim.where(vm) == (outcome.running_on,), outcome
            sim.wait(300.0)
            assert len(sim.where(vm)) <= 1
            sim.assert_law()
        if not rule.struck:
            assert n > 15, "a move asks more often than that"
            return
