"""Measure `fab status`: against loops over ssh, and how its time grows with the number of distant hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.bench.result import Row, times_as_long
from tests.bench.workbench import Timed, Workbench

DELAY = 25.0
FEW = 4


def against_shell(bench: Workbench, repetitions: int) -> list[Row]:
    """Four hosts with two VMs each: vmfab and the loops in turn."""
    hosts = bench.lab.hosts
    bench.fresh()
    for number, host in enumerate(hosts):
        bench.add_vms([f"bench-{number}-{letter}" for letter in "ab"], host)
    config = bench.ssh_config
    ways: dict[str, Callable[[], Timed]] = {
        "vmfab": lambda: bench.fab("status"),
        "each": lambda: bench.shell("status.sh", "each", config, *hosts),
        "joined": lambda: bench.shell("status.sh", "joined", config, *hosts),
        "list": lambda: bench.shell("status.sh", "list", config, *hosts),
    }
    bench.say("Status of four hosts")
    took = _in_turn(ways, repetitions)
    return [
        times_as_long(f"status of {len(hosts)} hosts", took["vmfab"], took["each"], "ssh per command", 0.5),
        times_as_long("- against all commands in one ssh per host", took["vmfab"], took["joined"], "shell"),
        times_as_long(
            "- against only `ssh HOST virsh list --all` per host", took["vmfab"], took["list"], "shell"
        ),
    ]


def with_delay(bench: Workbench, repetitions: int) -> list[Row]:
    """All hosts of a large cluster against its first four, each host far away; and the same near by."""
    few = _inventory_of(bench, FEW)
    hosts = bench.lab.hosts
    bench.say(f"One VM on each of {len(hosts)} hosts")
    for host in hosts:
        bench.lab.add_vm(f"bench-{host}", host)
    bench.wait_booted([f"bench-{host}" for host in hosts])
    ways: dict[str, Callable[[], Timed]] = {
        "few": lambda: bench.fab("status", inventory=few),
        "all": lambda: bench.fab("status"),
    }
    bench.say(f"Status of {FEW} and of {len(hosts)} hosts")
    near = _in_turn(ways, repetitions)
    bench.say(f"The same with {DELAY:g} ms to each host")
    for host in hosts:
        bench.lab.add_latency(host, DELAY)
    far = _in_turn(ways, repetitions)
    what = f"status of {len(hosts)} hosts, {DELAY:g} ms one way to each"
    return [
        times_as_long(what, far["all"], far["few"], f"vmfab, {FEW} hosts", 2),
        times_as_long("- the same without delay", near["all"], near["few"], f"vmfab, {FEW} hosts"),
    ]


def connections(benches: list[Workbench]) -> Row:
    """The most connections to one host that any command of vmfab in this run made."""
    most = max(bench.connections for bench in benches)
    commands = sum(bench.commands for bench in benches)
    what = "Connections per host and command, as sshd counts them"
    return Row(what, f"{most} at most, in {commands} commands", "", "", "1", most == 1)


def _in_turn(ways: dict[str, Callable[[], Timed]], repetitions: int) -> dict[str, list[float]]:
    """Time each way once per repetition, in turn, after a first round that does not count."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repetitions + 1):
        for name, way in ways.items():
            seconds = way().seconds
            if number:
                took[name].append(seconds)
    return took


def _inventory_of(bench: Workbench, count: int) -> Path:
    """An inventory of the first hosts only."""
    root = bench.lab.root
    left_out = bench.lab.hosts[count:]
    lines = (root / "hosts.ini").read_text(encoding="utf-8").splitlines(keepends=True)
    path = root / f"hosts-{count}.ini"
    path.write_text("".join(x for x in lines if x.split(" ")[0] not in left_out), encoding="utf-8")
    return path
