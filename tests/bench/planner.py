"""Measure the planner on growing clusters, without hosts.

Two questions: `place` alone with every VM of the cluster to be placed, and `plan_drain` of one host in ten,
each VM with a whole definition as libvirt prints it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from tasks.cluster.model import Domain
from tasks.cluster.planning.packing import place
from tasks.cluster.planning.placement import plan_drain
from tasks.cluster.planning.rooms import HostRoom, VmNeed
from tests.bench.result import BenchError, Row, at_most
from tests.unit import clusters

VMS_PER_HOST = 20
HOSTS = 1000
FEW_HOSTS = 125
DEFINITION = Path(__file__).parents[1] / "data/domains/q35-file.xml"
LIMIT = 5.0
#: n log n, and what timing alone varies by.
GROWTH = 1.2
GIB = clusters.GIB


def measure(repetitions: int) -> list[Row]:
    """Time both questions for a small and a large cluster."""
    rows = []
    for name, make in (("all placed anew", _placing), ("one host in ten drained", _draining)):
        few, many = make(FEW_HOSTS), make(HOSTS)
        short, long = [], []
        for _ in range(repetitions):
            short.append(_time(few))
            long.append(_time(many))
        vms = HOSTS * VMS_PER_HOST
        rows.append(
            at_most(f"Planner: {HOSTS:,} hosts, {vms:,} VMs, {name}", [wall for wall, _ in long], LIMIT)
        )
        # Time on the processor: a benchmark of milliseconds is at the mercy of whatever else runs.
        growth = min(cpu for _, cpu in long) / min(cpu for _, cpu in short) / _n_log_n(FEW_HOSTS, HOSTS)
        rows.append(
            Row(
                f"- its growth from {FEW_HOSTS} hosts, as a multiple of n log n",
                f"{growth:.2f} x", "", "", f"at most {GROWTH:g} x", growth <= GROWTH,
            )
        )  # fmt: skip
    return rows


def _n_log_n(few: int, many: int) -> float:
    a, b = few * VMS_PER_HOST, many * VMS_PER_HOST
    return b * math.log(b) / (a * math.log(a))


def _time(ask: Callable[[], int]) -> tuple[float, float]:
    """Seconds by the clock, and on the processor."""
    begin = time.perf_counter(), time.process_time()
    left = ask()
    took = time.perf_counter() - begin[0], time.process_time() - begin[1]
    if left:
        raise BenchError(f"the planner found no place for {left} VMs")
    return took


def _memory(random: Random) -> int:
    return random.choice((1, 2, 2, 4, 4, 8)) * GIB


def _domain(name: str, memory_kib: int) -> Domain:
    """A running VM with the definition of a real one, but its own name, UUID and image."""
    vm = clusters.vm_named(name)
    text = DEFINITION.read_text(encoding="utf-8")
    for old, new in (
        ("<name>web</name>", f"<name>{name}</name>"),
        ("00000004-0000-4000-8000-000000000004", vm.uuid),
        ("/vmstorage/web.qcow2", f"/vmstorage/{name}.qcow2"),
        ("/vmstorage/shared-quorum.img", f"/vmstorage/{name}-more.img"),
    ):
        if old not in text:
            raise BenchError(f"{DEFINITION} does not name {old}")
        text = text.replace(old, new)
    return clusters.domain(name, memory_kib=memory_kib, xml=text, live_xml=text)


def _placing(hosts: int) -> Callable[[], int]:
    random = Random(hosts)
    needs = [
        VmNeed(
            vm=clusters.vm_named(f"vm-{number}"),
            source="",
            memory_kib=_memory(random),
            needs=frozenset({"br0"}),
            apart=frozenset({f"group-{number // 5}"}) if number % 4 == 0 else frozenset(),
            targets=None,
            barred=frozenset(),
        )
        for number in range(hosts * VMS_PER_HOST)
    ]
    rooms = [
        HostRoom(
            name=f"host-{number}",
            free_kib=128 * GIB,
            total_kib=128 * GIB,
            features=frozenset({"br0"}),
            apart=frozenset(),
            accepting=True,
            withheld_kib=0,
        )
        for number in range(hosts)
    ]
    return lambda: len(place(needs, rooms).unplaced)


def _draining(hosts: int) -> Callable[[], int]:
    random = Random(hosts)
    facts = []
    for number in range(hosts):
        name = f"host-{number}"
        vms = [_domain(f"vm-{number}-{vm}", _memory(random)) for vm in range(VMS_PER_HOST)]
        facts.append(
            clusters.host(
                name,
                *vms,
                memory_total_kib=128 * GIB,
                memory_available_kib=60 * GIB,
                machines=frozenset({"x86_64/pc-q35-7.2"}),
                networks=frozenset({"storage"}),
            )
        )
    snapshot = clusters.snapshot(*facts)
    inventory = clusters.inventory(*snapshot.hosts)
    drained = [f"host-{number}" for number in range(0, hosts, 10)]

    def ask() -> int:
        plan = plan_drain(snapshot, inventory, drained, overrides=["--allow-local-iso"])
        return len(drained) * VMS_PER_HOST - len(plan.moves)

    return ask
