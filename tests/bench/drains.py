"""Measure the drain of a host with eight VMs that need five seconds to shut down."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.ansible import Ansible
from tests.bench.journals import went_on
from tests.bench.observer import Ends, Observer
from tests.bench.result import BenchError, Row, at_most, seconds, times_as_fast
from tests.bench.workbench import Timed, Workbench

SOURCE = "vmhost1"
VMS = [f"bench-{number}" for number in range(1, 9)]
SHUTDOWN = "5"

LEAST = 3.0


def measure(bench: Workbench, repetitions: int, ansible: Ansible | None) -> list[Row]:
    """Drain with each tool in turn, from the same state each time."""
    targets = [host for host in bench.lab.hosts if host != SOURCE]
    config = bench.ssh_config
    tools: dict[str, Callable[[], Timed]] = {
        "vmfab": lambda: bench.fab("-H", SOURCE, "drain", "--yes"),
        "shell": lambda: bench.shell("move.sh", config, SOURCE, " ".join(targets)),
    }
    if ansible:
        tools["ansible"] = lambda: ansible.drain(bench, SOURCE, targets)
    whole: dict[str, list[float]] = {name: [] for name in tools}
    down: dict[str, list[float]] = {name: [] for name in tools}
    noticed: list[float] = []
    for number in range(repetitions):
        for name, tool in tools.items():
            bench.say(f"Drain by {name}, {number + 1} of {repetitions}")
            bench.fresh()
            uuids = bench.add_vms(VMS, SOURCE, SHUTDOWN)
            with Observer(bench.lab) as observer:
                with Ends(list(uuids.values())).watched() as ends:
                    whole[name].append(tool().seconds)
                for vm, uuid in uuids.items():
                    host = _where(bench, vm)
                    down[name].append(observer.when("Started", vm, host, ends.at[uuid]) - ends.at[uuid])
            if name == "vmfab":
                seen = went_on(bench.lab)
                noticed += [seen[uuid] - ends.at[uuid] for uuid in uuids.values()]
    what = f"Drain of {len(VMS)} VMs that need {SHUTDOWN} s to shut down"
    rows = [times_as_fast(what, whole["vmfab"], whole["shell"], "shell", LEAST)]
    if ansible:
        rows.append(times_as_fast("- the same", whole["vmfab"], whole["ansible"], "Ansible", LEAST))
    else:
        rows.append(
            Row("- the same", seconds(whole["vmfab"]), "Ansible", "", f"at least {LEAST:g} x as fast")
        )
    others = ", ".join(f"{name}: {seconds(down[name])}" for name in tools if name != "vmfab")
    rows.append(Row("- downtime of each VM in it", seconds(down["vmfab"]), others))
    rows.append(at_most("- guest's end until the next step in it", noticed, 0.25))
    return rows


def _where(bench: Workbench, vm: str) -> str:
    """The host that runs it now. Raises BenchError unless the drain moved it away."""
    hosts = [host for host in bench.lab.hosts if vm in bench.lab.running(host)]
    if len(hosts) != 1 or hosts == [SOURCE]:
        raise BenchError(f"after the drain {vm} runs on: {', '.join(hosts) or 'no host'}")
    return hosts[0]
