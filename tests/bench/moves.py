"""Measure one cold move: how soon the guest's end is noticed, and what the move adds to the downtime."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.bench.journals import went_on
from tests.bench.observer import Ends, Observer
from tests.bench.result import Row, at_most, median, seconds, times_as_long
from tests.bench.workbench import Workbench

VM = "bench"
#: Seconds that the guest needs to shut down, one repetition after another: a poll once a second must not
#: always meet the end of the guest at the same moment.
SHUTDOWN = ("2", "3", "4", "5", "6")


@dataclass
class _Samples:
    """Seconds of all repetitions: from the VM's end until noticed, until it ran again, the whole command."""

    noticed: list[float] = field(default_factory=list)
    down: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)


def measure(bench: Workbench, repetitions: int) -> list[Row]:
    """Move a VM there with vmfab and back with the shell procedure; in between start it in place."""
    vmfab, shell, own = _Samples(), _Samples(), list[float]()
    with Observer(bench.lab) as observer:
        for number in range(repetitions):
            bench.say(f"Cold move, {number + 1} of {repetitions}")
            bench.fresh()
            uuid = bench.add_vms([VM], "vmhost1", SHUTDOWN[number % len(SHUTDOWN)])[VM]
            _by_vmfab(bench, observer, uuid, vmfab)
            own.append(_start_in_place(bench, observer, uuid, "vmhost2"))
            _by_shell(bench, observer, uuid, shell)
            own.append(_start_in_place(bench, observer, uuid, "vmhost1"))
    libvirt = median(own)
    beyond = [down - libvirt for down in vmfab.down]
    beyond_shell = [down - libvirt for down in shell.down]
    below = times_as_long("- the same against (a)", beyond, beyond_shell, "shell", 1)
    return [
        at_most("Guest's end until the next step, single moves", vmfab.noticed, 0.25, _shell(shell.noticed)),
        at_most(
            "Downtime of a cold move beyond the guest's shutdown and libvirt's start",
            beyond, 0.5, _shell(beyond_shell),
        ),
        Row(below.what, "", "", below.ratio, "below (a)", below.met),
        Row("- libvirt's own start (virsh start on the host)", "", f"libvirt: {seconds(own)}"),
        times_as_long(
            "Whole command for one VM (vmfab watches it for 3 s more)", vmfab.whole, shell.whole, "shell"
        ),
    ]  # fmt: skip


def _shell(samples: list[float]) -> str:
    return f"shell: {seconds(samples)}"


def _by_vmfab(bench: Workbench, observer: Observer, uuid: str, samples: _Samples) -> None:
    with Ends([uuid]).watched() as ends:
        samples.whole.append(bench.fab("migrate", VM, "--to", "vmhost2", "--yes").seconds)
    end = ends.at[uuid]
    samples.noticed.append(went_on(bench.lab)[uuid] - end)
    samples.down.append(observer.started(VM, "vmhost2", end) - end)
    bench.wait_booted([VM])


def _by_shell(bench: Workbench, observer: Observer, uuid: str, samples: _Samples) -> None:
    with Ends([uuid]).watched() as ends:
        done = bench.shell("move.sh", bench.ssh_config, "vmhost2", "vmhost1", VM)
    samples.whole.append(done.seconds)
    end = ends.at[uuid]
    samples.noticed.append(seen_by_shell(done.out)[VM] - end)
    samples.down.append(observer.started(VM, "vmhost1", end) - end)
    bench.wait_booted([VM])


def _start_in_place(bench: Workbench, observer: Observer, uuid: str, host: str) -> float:
    """Stop it and start it again on the same host, with virsh on the host itself; what the start took."""
    with Ends([uuid]).watched():
        bench.lab.virsh(host, "shutdown", uuid)
        while bench.lab.virsh(host, "domstate", uuid).strip() != "shut off":
            time.sleep(0.1)
    begin = time.time()
    bench.lab.virsh(host, "start", uuid)
    took = observer.started(VM, host, begin) - begin
    bench.wait_booted([VM])
    return took


def seen_by_shell(out: str) -> dict[str, float]:
    """When the shell procedure noticed each VM's end."""
    found = {}
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        if word == "seen":
            name, _, stamp = rest.rpartition(" ")
            found[name] = float(stamp)
    return found
