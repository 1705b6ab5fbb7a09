"""Time the planner: `PYTHONPATH=. python tests/bench/planner.py`.

Prints CPU seconds for growing clusters with 20 VMs a host, in four ways:

- place: the packing alone, every VM of the cluster is to be placed (a fifth of the memory stays free)
- rules: the same with three host features, and a third of the VMs in apart rules
- short: the same as place, but with less memory than the VMs need
- drain: plan_drain of every tenth host, with the definitions as libvirt prints them

`n log n` is the growth that n log n allows against the row above; a column that grows by less scales well.
"""

from __future__ import annotations

import dataclasses
import math
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tasks.cluster.domainxml import parse, writable_keys
from tasks.cluster.model import Domain, FileId, Host, HostFacts, Inventory, Snapshot, Store, Vm
from tasks.cluster.packing import place
from tasks.cluster.placement import plan_drain
from tasks.cluster.rooms import HostRoom, VmNeed

SIZES = (100, 200, 500, 1000)
VMS_PER_HOST = 20
GIB = 1 << 20
DEFINITION = Path(__file__).resolve().parents[1] / "data" / "domains" / "q35-file.xml"


def needs_and_rooms(hosts: int, fill: float, *, rules: bool) -> tuple[list[VmNeed], list[HostRoom]]:
    """VMs that use `fill` of the hosts' memory in all; hosts of three sizes, each a little different."""
    r = random.Random(hosts)
    memory = [r.choice((1, 2, 4, 8, 16)) * GIB for _ in range(hosts * VMS_PER_HOST)]
    average = sum(memory) / fill / hosts
    rooms = []
    for i in range(hosts):
        size = int(average * (0.8, 1.0, 1.2)[i % 3]) + r.randrange(10_000)
        features = frozenset({"plain", *(("fast",) if i % 3 else ()), *(("old",) if i % 7 == 0 else ())})
        rooms.append(HostRoom(f"host{i}", size, size, features if rules else frozenset()))
    needs = []
    for i, kib in enumerate(memory):
        wants = frozenset({"fast" if i % 10 == 0 else "plain"}) if rules else frozenset()
        # a rule of half as many VMs as there are hosts, and many small ones
        apart = {"large"} if i % 40 == 0 else {f"rule{i // 12}"} if i % 3 == 0 else ()
        vm = Vm(str(i), f"vm{i}")
        needs.append(VmNeed(vm, "elsewhere", kib, wants, frozenset(apart if rules else ())))
    return needs, rooms


def cluster(hosts: int) -> tuple[Snapshot, Inventory, list[str]]:
    """A snapshot for planning, half full, and the hosts to drain."""
    text = DEFINITION.read_text(encoding="utf-8")
    text = text.replace("/var/lib/libvirt/images/", "/vmstorage/iso/")
    model = parse(text)
    store = Store("/vmstorage", True, store_id="s", total_bytes=1 << 40, free_bytes=1 << 39)
    facts = {}
    for h in range(hosts):
        domains, files = [], {}
        for v in range(VMS_PER_HOST):
            name, uuid = f"vm{h}-{v}", f"{h:08x}-0000-4000-8000-{v:012x}"
            xml = text.replace("web.qcow2", f"{name}.qcow2")
            xml = xml.replace("<name>web<", f"<name>{name}<").replace(model.uuid, uuid)
            for disk in parse(xml).disks:
                if disk.source is not None:
                    path = disk.source.path
                    files[path] = FileId(path, path, True, True, f"store:{path}")
            images = writable_keys(parse(xml), files)
            made = Domain(
                Vm(uuid, name), f"host{h}", "running", "", True, False, False, model.memory_kib, 1, 100 + v
            )
            domains.append(dataclasses.replace(made, xml=xml, live_xml=xml, images=images))
        facts[f"host{h}"] = HostFacts(
            host=f"host{h}",
            at=0.0,
            boot_id="b",
            uptime=1.0,
            cpus=32,
            load1=1.0,
            memory_total_kib=2 * VMS_PER_HOST * model.memory_kib,
            memory_available_kib=2 * VMS_PER_HOST * model.memory_kib,
            libvirt_version="10.0.0",
            libvirt_problem="",
            store=store,
            domains=tuple(domains),
            processes=(),
            bridges=frozenset(model.bridges),
            networks=frozenset(model.networks),
            machines=frozenset(
                {f"{model.arch}/{model.machine}", *(f"{model.arch}/old-{i}" for i in range(80))}
            ),
            files=files,
        )
    inventory = Inventory("hosts.ini", {name: Host(name, name) for name in facts}, {})
    return Snapshot(dict(facts)), inventory, [f"host{h}" for h in range(0, hosts, 10)]


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def packing(hosts: int, fill: float, *, rules: bool = False, left_over: bool = False) -> float:
    needs, rooms = needs_and_rooms(hosts, fill, rules=rules)
    found: list[int] = []
    took = seconds(lambda: found.append(len(place(needs, rooms).unplaced)))
    if left_over != bool(found[0]):
        sys.exit(f"{hosts} hosts: {found[0]} VMs were left over")
    return took


def draining(hosts: int) -> float:
    snapshot, inventory, sources = cluster(hosts)
    found: list[int] = []
    took = seconds(lambda: found.append(len(plan_drain(snapshot, inventory, sources).moves)))
    if found[0] != len(sources) * VMS_PER_HOST:
        sys.exit(f"{hosts} hosts: only {found[0]} VMs can be moved")
    return took


def main() -> None:
    print(f"{'hosts':>6} {'VMs':>6} {'place':>7} {'rules':>7} {'short':>7} {'drain':>7}   n log n")
    before: tuple[int, list[float]] | None = None
    for hosts in SIZES:
        n = hosts * VMS_PER_HOST
        took = [
            packing(hosts, 0.8),
            packing(hosts, 0.8, rules=True),
            packing(hosts, 1.2, left_over=True),
            draining(hosts),
        ]
        line = f"{hosts:6} {n:6} " + " ".join(f"{t:7.2f}" for t in took)
        if before is not None:
            allowed = n * math.log(n) / (before[0] * math.log(before[0]))
            line += f"   x{allowed:.1f}, grew " + " ".join(
                f"x{now / then:.1f}" for now, then in zip(took, before[1], strict=True)
            )
        print(line, flush=True)
        before = n, took


if __name__ == "__main__":
    main()
