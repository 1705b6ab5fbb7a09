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
    """Seconds of all repetitions, from the end of the VM's process on unless said otherwise."""

    #: until the tool went on
    noticed: list[float] = field(default_factory=list)
    #: until libvirt called it shut off
    stopped: list[float] = field(default_factory=list)
    #: until the target's libvirt executed QEMU
    executed: list[float] = field(default_factory=list)
    #: until it ran again
    down: list[float] = field(default_factory=list)
    #: the whole command
    whole: list[float] = field(default_factory=list)

    def take(self, observer: Observer, uuid: str, source: str, target: str, end: float) -> None:
        """Add what was seen of a move from outside."""
        self.stopped.append(observer.when("Stopped", VM, source, end) - end)
        self.executed.append(observer.executed(uuid, target, end) - end)
        self.down.append(observer.when("Started", VM, target, end) - end)


def measure(bench: Workbench, repetitions: int) -> list[Row]:
    """Move a VM there with vmfab and back with the shell procedure; in between start it in place."""
    vmfab, shell, own = _Samples(), _Samples(), _Samples()
    with Observer(bench.lab) as observer:
        for number in range(repetitions):
            bench.say(f"Cold move, {number + 1} of {repetitions}")
            bench.fresh()
            uuid = bench.add_vms([VM], "vmhost1", SHUTDOWN[number % len(SHUTDOWN)])[VM]
            _by_vmfab(bench, observer, uuid, vmfab)
            _start_in_place(bench, observer, uuid, "vmhost2", own)
            _by_shell(bench, observer, uuid, shell)
            _start_in_place(bench, observer, uuid, "vmhost1", own)
    # A start is libvirt's own work on both sides of QEMU's execution. What follows that is the same for all
    # and takes a varying second; so only what comes before is compared, less libvirt's own part of it.
    before = median(own.executed)
    beyond = [found - before for found in vmfab.executed]
    beyond_shell = [found - before for found in shell.executed]
    below = times_as_long("- the same against (a)", beyond, beyond_shell, "shell", 1)
    return [
        at_most("Guest's end until the next step, single moves", vmfab.noticed, 0.25, _shell(shell.noticed)),
        Row(
            "- in it: until libvirt itself calls the VM shut off",
            "", f"libvirt: {seconds(vmfab.stopped + shell.stopped)}",
        ),
        at_most(
            "Downtime of a cold move beyond the guest's shutdown and libvirt's start",
            beyond, 0.5, _shell(beyond_shell),
        ),
        Row(below.what, "", "", below.ratio, "below (a)", below.met),
        times_as_long("- the whole downtime, with libvirt's start", vmfab.down, shell.down, "shell"),
        Row("- libvirt's own start: virsh start on the host", "", f"libvirt: {seconds(own.down)}"),
        times_as_long("Whole command (vmfab watches the VM for 3 s more)", vmfab.whole, shell.whole, "shell"),
    ]  # fmt: skip


def _shell(samples: list[float]) -> str:
    return f"shell: {seconds(samples)}"


def _by_vmfab(bench: Workbench, observer: Observer, uuid: str, samples: _Samples) -> None:
    with Ends([uuid]).watched() as ends:
        samples.whole.append(bench.fab("migrate", VM, "--to", "vmhost2", "--yes").seconds)
    samples.noticed.append(went_on(bench.lab)[uuid] - ends.at[uuid])
    samples.take(observer, uuid, "vmhost1", "vmhost2", ends.at[uuid])
    bench.wait_booted([VM])


def _by_shell(bench: Workbench, observer: Observer, uuid: str, samples: _Samples) -> None:
    with Ends([uuid]).watched() as ends:
        done = bench.shell("move.sh", bench.ssh_config, "vmhost2", "vmhost1", VM)
    samples.whole.append(done.seconds)
    samples.noticed.append(seen_by_shell(done.out)[VM] - ends.at[uuid])
    samples.take(observer, uuid, "vmhost2", "vmhost1", ends.at[uuid])
    bench.wait_booted([VM])


def _start_in_place(bench: Workbench, observer: Observer, uuid: str, host: str, samples: _Samples) -> None:
    """Stop it and start it on the same host with virsh there; seconds count from the call of virsh start."""
    with Ends([uuid]).watched():
        bench.lab.virsh(host, "shutdown", uuid)
        while bench.lab.virsh(host, "domstate", uuid).strip() != "shut off":
            time.sleep(0.1)
    begin = time.time()
    bench.lab.virsh(host, "start", uuid)
    samples.executed.append(observer.executed(uuid, host, begin) - begin)
    samples.down.append(observer.when("Started", VM, host, begin) - begin)
    bench.wait_booted([VM])


def seen_by_shell(out: str) -> dict[str, float]:
    """When the shell procedure noticed each VM's end."""
    found = {}
    for line in out.splitlines():
        word, _, rest = line.partition(" ")
        if word == "seen":
            name, _, stamp = rest.rpartition(" ")
            found[name] = float(stamp)
    return found
