"""State machines: operators, hands and faults in any order and combination, the law checked after every step.

Each run is a list of steps with short words in them; one that fails is shrunk to the shortest list that still
does, and is printed with the cluster's history. The runs are always the same; another set is made with
VMFAB_SEED=NUMBER. A new rule is a method with @rule and @step.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from tests.sim import faults
from tests.sim.faults import Call, Fault
from tests.sim.law import LawBroken
from tests.sim.practice import HOSTS, VMS, Practice

#: steps of one run, at most
LENGTH = 50

COUNTS: Counter[str] = Counter()

hosts = st.sampled_from(HOSTS)
any_host = st.sampled_from(("", *HOSTS))
vms = st.sampled_from(VMS)
people = st.sampled_from(("ada", "bob"))
rarely = st.sampled_from((False, False, False, True))
mostly = st.sampled_from((True, True, False))
#: seconds after which the next step comes
soon = st.sampled_from((0.0, 0.1, 0.3, 1.0, 3.0, 8.0, 60.0))
#: seconds that a fault lasts
spans = st.sampled_from((3.0, 20.0, 60.0, 200.0))

FAULTS: dict[str, Callable[[], Fault]] = {
    "request lost": lambda: faults.silent,
    "reply lost": lambda: faults.reply_lost,
    "5 s late": lambda: faults.delayed(5.0),
    "60 s late, unheard": lambda: faults.delayed(60.0, unheard=True),
    "virsh says no": lambda: faults.fail("virsh", "error: no"),
    "libvirt silent": lambda: faults.fail("libvirt-silent", "libvirtd does not answer"),
    "store fails": lambda: faults.fail("store", "Input/output error"),
    "cut for 10 s": lambda: faults.cut(10.0),
    "power cut for 40 s": lambda: faults.power_off(40.0),
    "laptop killed": lambda: faults.kill_laptop,
    "laptop asleep for 60 s": lambda: faults.suspend_laptop(60.0),
}
OPS = ("start", "shutdown", "destroy", "wait_off", "running", "define", "store.lock", "store.append")


def step(body: Callable[..., None]) -> Callable[..., None]:
    """Count a step, and let every violation be a failure that can be shrunk."""

    @functools.wraps(body)
    def counted(machine: Cluster, *args: Any, **given: Any) -> None:
        COUNTS[body.__name__] += 1
        try:
            body(machine, *args, **given)
            machine.check()
        except LawBroken as broken:
            raise AssertionError(str(broken)) from None

    return counted


class Cluster(RuleBasedStateMachine):
    """Everything that anybody may do, and everything that may break."""

    guarded = False
    restarting = False

    def __init__(self) -> None:
        super().__init__()
        self.world = Practice(guarded=self.guarded, restarting=self.restarting)
        self.sim = self.world.sim
        COUNTS["runs"] += 1

    def check(self) -> None:
        """The law as the processes and the disks show it, and what commands said about themselves."""
        self.sim.assert_law()
        for operator in self.world.operators.values():
            operator.judge()

    def teardown(self) -> None:
        try:
            self.world.heal()
            self.check()
            self.world.nothing_is_stuck()
            self.check()
        except LawBroken as broken:
            raise AssertionError(str(broken)) from None
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *self.sim.history[-80:]])) from None
        finally:
            self.world.close()

    def disturb(self, but: str = "") -> None:
        for name, operator in self.world.operators.items():
            if name != but:
                operator.disturb()

    # -- operators -----------------------------------------------------------------------------------

    def ready(self, who: str, calm: bool) -> None:
        """Before a command: with `calm` all is well again, and what was under way has ended."""
        self.disturb(who)
        if calm:
            self.world.mend()
            self.sim.wait(60.0)
            self.world.operators[who].finish()

    def movable(self, who: str, vm: str, to: str) -> None:
        """Before a move in calm: the VM runs on another host than the target, which takes VMs."""
        if to in self.world.cordoned():
            self.world.undrain(who, to, stay=True)
        if not self.sim.where(vm):
            away = next(host for host in HOSTS if host != to)
            self.world.start(who, vm, away)
        self.world.operators[who].finish()

    @rule(who=people, vm=vms, to=hosts, calm=mostly, wait=soon, no_destroy=rarely, undefine_source=rarely)
    @step
    def migrate(
        self, who: str, vm: str, to: str, calm: bool, wait: float, no_destroy: bool, undefine_source: bool
    ) -> None:
        self.ready(who, calm)
        if calm:
            self.movable(who, vm, to)
        self.world.migrate(who, vm, to, no_destroy=no_destroy, undefine_source=undefine_source)
        self.sim.wait(wait)

    @rule(who=people, host=hosts, calm=mostly, wait=soon, partial=rarely)
    @step
    def drain(self, who: str, host: str, calm: bool, wait: float, partial: bool) -> None:
        self.ready(who, calm)
        self.world.drain(who, host, partial=partial)
        self.sim.wait(wait)

    @rule(who=people, host=hosts, calm=mostly, wait=soon, stay=rarely)
    @step
    def undrain(self, who: str, host: str, calm: bool, wait: float, stay: bool) -> None:
        self.ready(who, calm)
        self.world.undrain(who, host, stay=stay)
        self.sim.wait(wait)

    @rule(who=people, vm=vms, host=any_host, calm=mostly, wait=soon)
    @step
    def start(self, who: str, vm: str, host: str, calm: bool, wait: float) -> None:
        self.ready(who, calm)
        self.world.start(who, vm, host)
        self.sim.wait(wait)

    @rule(who=people, vm=vms, hard=rarely, calm=mostly, wait=soon)
    @step
    def stop(self, who: str, vm: str, hard: bool, calm: bool, wait: float) -> None:
        self.ready(who, calm)
        (self.world.destroy if hard else self.world.shutdown)(who, vm)
        self.sim.wait(wait)

    @rule(who=people, vm=vms, host=hosts, verb=st.sampled_from(("define", "undefine")), wait=soon)
    @step
    def definition(self, who: str, vm: str, host: str, verb: str, wait: float) -> None:
        self.disturb(who)
        (self.world.define if verb == "define" else self.world.undefine)(who, vm, host)
        self.sim.wait(wait)

    @rule(who=people, host=hosts, dead=mostly, back=spans, wait=soon)
    @step
    def evacuate(self, who: str, host: str, dead: bool, back: float, wait: float) -> None:
        """With `dead`, of a host that runs a VM and has no power until it is `back`, but for bad luck."""
        self.ready(who, dead)
        if dead:
            if not self.sim[host].guests:
                self.world.start(who, "db", host)
                self.world.operators[who].finish()
            self.disturb()
            self.world.breaks(host, "power", 95.0 + back)
            self.sim.wait(90.0)
        self.world.evacuate(who, host)
        self.sim.wait(wait)

    @rule(who=people, calm=mostly, wait=soon)
    @step
    def resume(self, who: str, calm: bool, wait: float) -> None:
        self.ready(who, calm)
        self.world.resume(who)
        self.sim.wait(wait)

    @rule(who=people)
    @step
    def status(self, who: str) -> None:
        self.world.status(who)

    @rule(who=people)
    @step
    def audit(self, who: str) -> None:
        self.world.audit(who)

    @rule(who=people, wait=soon)
    @step
    def ctrl_c(self, who: str, wait: float) -> None:
        self.disturb()
        self.world.operators[who].interrupt()
        self.sim.wait(wait)

    @rule(who=people)
    @step
    def kill_laptop(self, who: str) -> None:
        self.disturb()
        if self.world.operators[who].busy:
            self.world.operators[who].laptop.kill()

    @rule(who=people)
    @step
    def close_lid(self, who: str) -> None:
        self.disturb()
        self.world.operators[who].laptop.suspend(60.0)

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0, 30.0, 120.0)))
    @step
    def wait(self, seconds: float) -> None:
        self.sim.wait(seconds)

    # -- hands ---------------------------------------------------------------------------------------

    @rule(host=hosts, vm=vms)
    @step
    def virsh_start(self, host: str, vm: str) -> None:
        self.disturb()
        self.world.start_by_hand(host, vm)

    @rule(host=hosts, then=st.sampled_from(("nothing", "network", "libvirtd")))
    @step
    def virsh_start_behind(self, host: str, then: str) -> None:
        self.disturb()
        self.world.start_behind(host, then)

    @rule(host=hosts, vm=vms, verb=st.sampled_from(Practice.VERBS))
    @step
    def virsh(self, host: str, verb: str, vm: str) -> None:
        self.disturb()
        # Autostart without the guard is an order to break the law.
        if verb != "autostart" or self.guarded:
            self.world.virsh(host, verb, vm)

    @rule(vm=vms, to=hosts, seconds=st.sampled_from((0.5, 5.0, 30.0)), undefine=rarely, wait=soon)
    @step
    def virsh_migrate(self, vm: str, to: str, seconds: float, undefine: bool, wait: float) -> None:
        self.disturb()
        for source in self.sim.where(vm)[:1]:
            if source != to:
                self.world.migrate_by_hand(source, vm, to, seconds=seconds, undefine=undefine)
        self.sim.wait(wait)

    # -- faults --------------------------------------------------------------------------------------

    @rule(
        fault=st.sampled_from(sorted(FAULTS)),
        op=st.sampled_from((None, *OPS)),
        n=st.integers(1, 12),
        when=st.sampled_from(("before", "after")),
    )
    @step
    def strike(self, fault: str, op: str | None, n: int, when: str) -> None:
        def do(call: Call) -> None:
            self.disturb()
            FAULTS[fault]()(call)

        self.sim.faults.on(do, op=op, n=n, when=when)

    @rule(host=hosts, what=st.sampled_from(Practice.BREAKS), seconds=spans)
    @step
    def breaks(self, host: str, what: str, seconds: float) -> None:
        self.disturb()
        self.world.breaks(host, what, seconds)

    @rule(host=hosts, changes=st.integers(1, 8), seconds=spans)
    @step
    def power_cut_within(self, host: str, changes: int, seconds: float) -> None:
        self.disturb()
        self.world.power_cut_within(host, changes, seconds)

    @rule()
    @step
    def blackout(self) -> None:
        self.disturb()
        for host in HOSTS:
            self.world.breaks(host, "power", 60.0)

    @rule()
    @step
    def mend(self) -> None:
        self.disturb()
        self.sim.faults.clear()
        self.world.mend()

    @rule(vm=vms, how=st.sampled_from(Practice.GUESTS), host=any_host)
    @step
    def guest(self, vm: str, how: str, host: str) -> None:
        self.disturb()
        self.world.guest(vm, how, host)

    @rule(seconds=st.sampled_from((0.002, 0.1, 0.4)))
    @step
    def latency(self, seconds: float) -> None:
        self.sim.delay = seconds


class Guarded(Cluster):
    """With the guard on every host: any hand may type any start at any moment."""

    guarded = True


class Restarting(Guarded):
    """With the restart script as well, run by a real sh after every boot."""

    restarting = True


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("machine", "runs", "least"), [(Cluster, 110, 5000), (Guarded, 110, 5000), (Restarting, 30, 1000)]
)
def test_the_law_holds_and_nothing_stays_stuck(
    machine: type[Cluster], runs: int, least: int, capsys: pytest.CaptureFixture[str]
) -> None:
    COUNTS.clear()
    number = os.environ.get("VMFAB_SEED", "")
    chosen = settings(
        max_examples=runs,
        stateful_step_count=LENGTH,
        derandomize=not number,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    if number:
        machine = seed(int(number))(machine)
    run_state_machine_as_test(machine, settings=chosen)
    made = COUNTS.pop("runs")
    with capsys.disabled():
        print(f"\n{machine.__name__}: {COUNTS.total()} steps in {made} runs: {dict(COUNTS.most_common())}")
    assert COUNTS.total() >= least
