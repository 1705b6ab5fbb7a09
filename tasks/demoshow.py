"""The demo's story: what is shown, the commands as an operator types them, and the proof."""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.cli import Operator, Table, subcommand
from tasks.cli.steps import steps
from tasks.cluster.errors import Failed
from tasks.lab import evidence, law, packages
from tasks.lab.evidence import Standing
from tasks.lab.guests import SAMPLES
from tasks.lab.lab import Lab
from tasks.lab.pulse import Pulse

LAUNCHER = Path(__file__).resolve().parent.parent / "fab"
HOSTS = 4
EMPTIED = "vmhost1"
#: Seconds that a VM gets for its shutdown here.
TIMEOUT = 15
#: Seconds that VMs may need to boot; on a busy machine without KVM that is long.
PATIENCE = 240.0
WIDTH = 78


@dataclass(frozen=True)
class Moved:
    """A move as its journal on /vmstorage tells it; `downtime` in seconds."""

    vm: str
    source: str
    target: str
    stopped_by: str
    downtime: float


@dataclass(frozen=True)
class Act:
    """The moves of one command by VM, and how long each VM's counter stood still meanwhile, in seconds."""

    moved: Mapping[str, Moved]
    pauses: Mapping[str, float]

    @property
    def silent(self) -> float:
        """The longest silence of a VM that was moved."""
        return max(self.pauses[name] for name in self.moved)

    @property
    def others_silent(self) -> float:
        """The longest silence of a VM that was left alone."""
        return max(pause for name, pause in self.pauses.items() if name not in self.moved)


class Show:
    """One performance, on a cluster that is not up yet."""

    def __init__(self, op: Operator, lab: Lab) -> None:
        self._op = op
        self._lab = lab
        self._read: set[str] = set()

    def play(self) -> None:
        """Play all of it; raises VmfabError as soon as something is not as it must be."""
        self._tell(
            "vmfab empties a host of a VM cluster for maintenance, and never lets a VM run on two hosts at "
            "once: two writers destroy a VM's disk. The demo shows both on a practice cluster on this "
            "machine. The commands after a $ are really run; --lab aims them at the practice cluster."
        )
        self._install()
        self._bring_up()
        with law.Watch(self._lab, pause=0.2) as watch, Pulse(self._lab) as pulse:
            before = evidence.standing(self._lab)
            self._look()
            away = self._drain(before, pulse)
            self._look_again(away)
            back = self._undrain(before, pulse)
            self._prove(before, away, back, watch)

    # the acts

    def _install(self) -> None:
        if not packages.missing():
            return
        self._title(
            "What the practice cluster needs",
            "Some Debian packages are missing. They are installed with apt-get, and no service that comes "
            "with them is started, now or at the next boot.",
        )
        with steps(self._op.output) as say:
            say("apt-get is at work")
            packages.install(lambda text: self._op.say(f"        {text}"))

    def _bring_up(self) -> None:
        self._title(
            "A cluster to practise on",
            f"{HOSTS} hosts, each with its own sshd, libvirtd and network, and one /vmstorage for all. Their "
            "VMs boot a real kernel and keep writing a growing number to their disks, so that every lost "
            "write and every second writer can be proved from there. Most shut down at once, ldap needs 2 s "
            "and db 5 s for it, and legacy never reacts.",
        )
        with steps(self._op.output) as say:
            self._lab.up(HOSTS, len(SAMPLES), say=say)
            say("Waiting until all VMs have booted")
            for name in self._lab.images():
                self._lab.wait_counting(name, PATIENCE)
            say("Ready")

    def _look(self) -> None:
        self._title("One look", f"{EMPTIED} needs maintenance, but half of the VMs run there.")
        self._fab("status")

    def _drain(self, before: Mapping[str, Standing], pulse: Pulse) -> Act:
        self._title(
            f"Empty {EMPTIED}",
            "Every VM gets a new place before the first one is shut down. It is started there only after all "
            "hosts have shown that it is off. legacy ignores the shutdown, so it is destroyed when its time "
            f"is up: here after {TIMEOUT} s, otherwise after 180 s.",
        )
        pulse.restart()
        self._fab("-H", EMPTIED, "drain", "--timeout", str(TIMEOUT), "--yes")
        moved = self._moves()
        expected = sorted(name for name, vm in before.items() if vm.host == EMPTIED)
        if sorted(moved) != expected:
            raise Failed(f"The drain moved {', '.join(sorted(moved))}, and not {', '.join(expected)}.")
        now = self._all_run(pulse)
        left = [name for name, vm in now.items() if vm.host == EMPTIED] + self._lab.running(EMPTIED)
        if left:
            raise Failed(f"{EMPTIED} is not empty after the drain: {', '.join(left)} run there.")
        return Act(moved, pulse.pauses())

    def _look_again(self, away: Act) -> None:
        self._title(
            "Look again",
            f"{EMPTIED} is empty and cordoned: nothing is placed there until it is undrained. Now it could "
            "be repaired or rebooted.",
        )
        self._fab("status")
        self._op.say()
        self._show_downtimes(away)

    def _undrain(self, before: Mapping[str, Standing], pulse: Pulse) -> Act:
        self._title(
            "Bring its VMs back",
            f"The work on {EMPTIED} is done. What the drain moved away comes back, and nothing else.",
        )
        pulse.restart()
        self._fab("-H", EMPTIED, "undrain", "--timeout", str(TIMEOUT), "--yes")
        moved = self._moves()
        now = self._all_run(pulse)
        astray = [name for name, vm in before.items() if now[name].host != vm.host]
        if astray:
            raise Failed(f"After the undrain {', '.join(astray)} did not run where it had run before.")
        back = Act(moved, pulse.pauses())
        self._op.say()
        self._show_downtimes(back)
        return back

    def _prove(self, before: Mapping[str, Standing], away: Act, back: Act, watch: law.Watch) -> None:
        self._title(
            "The proof",
            "Not what vmfab says, but what the VMs' disks say: each number must be there, written by the "
            "boot whose turn it was, and each VM must have booted once per move and no more often. And a "
            "watcher beside vmfab has looked all the time which emulators have which disk open.",
        )
        after = evidence.standing(self._lab)
        watch.finish()
        moves = {name: (name in away.moved) + (name in back.moved) for name in before}
        rows = [
            tuple(map(str, (name, old.host, moves[name], new.starts, new.boots, old.counter, new.counter)))
            for name, old, new in ((name, old, after[name]) for name, old in before.items())
        ]
        columns = ("VM", "host", "moves", "starts", "boots", "counter before", "after")
        self._op.output.table(Table(columns, rows, right=frozenset(columns[2:])))
        wrong = evidence.doubts(before, after, moves)
        if wrong:
            raise Failed(f"The disks do not tell what they should: {'; '.join(wrong)}.")
        downtimes = [one.downtime for act in (away, back) for one in act.moved.values()]
        silent, others = max(away.silent, back.silent), max(away.others_silent, back.others_silent)
        starts = sum(vm.starts for vm in after.values())
        numbers = sum(vm.counter for vm in after.values())
        self._op.say()
        for line in (
            f"{EMPTIED} was empty after the drain, and its {len(back.moved)} VMs are back.",
            f"{starts} starts of {len(after)} VMs: in {watch.looks} looks never two emulators on one disk.",
            f"{numbers} numbers on the disks: none lost, none written out of turn.",
            f"{len(downtimes)} moves: {min(downtimes):.1f} to {max(downtimes):.1f} s of downtime.",
            f"Longest silence of a moved VM, shutdown and boot included: {silent:.1f} s; of the others: "
            f"{others:.1f} s.",
        ):
            self._op.say(f"  {line}", "green")

    # how it is shown

    def _tell(self, text: str) -> None:
        self._op.say(textwrap.fill(text, WIDTH))

    def _title(self, title: str, text: str) -> None:
        self._op.say()
        self._op.say(f"== {title}", "bold")
        self._tell(text)
        self._op.say()

    def _show_downtimes(self, act: Act) -> None:
        self._tell(
            "Downtime is the time from a VM's end to its start. Its users also waited for its shutdown and "
            "boot: 'silent' is how long the counter on its disk stood still."
        )
        rows = [
            (m.vm, m.source, m.target, m.stopped_by, f"{m.downtime:.1f} s", f"{act.pauses[name]:.1f} s")
            for name, m in sorted(act.moved.items())
        ]
        columns = ("VM", "from", "to", "stopped by", "downtime", "silent")
        self._op.output.table(Table(columns, rows, right=frozenset({"downtime", "silent"})))
        self._op.say(f"The other VMs went on: none was silent for more than {act.others_silent:.1f} s.")

    # what is done

    def _fab(self, *words: str) -> None:
        """Run fab as an operator does, on our terminal; raises Failed unless it ends with 0."""
        # As it can be typed here: vmfab spells the commands that it advises like the one that was given.
        near = os.path.relpath(LAUNCHER)
        command = [near if "/" in near else f"./{near}", "--lab", *words]
        shown = " ".join(command)
        self._op.say(f"$ {shown}", "bold", as_is=True)
        code = subcommand.run(command, self._lab.laptop_environment())
        if code:
            raise Failed(f"'{shown}' ended with exit code {code}.")

    def _all_run(self, pulse: Pulse) -> dict[str, Standing]:
        """Wait until all VMs count on; raises LabError when one does not, or the law was broken."""
        self._op.say()
        with steps(self._op.output) as say:
            say("Waiting until the moved VMs have booted")
            pulse.wait(PATIENCE)
            say("All VMs count")
        return evidence.standing(self._lab)

    def _moves(self) -> dict[str, Moved]:
        """Read how each VM was moved from the journals that are new; raises Failed when one was not."""
        journals = {path.name: path for path in (self._lab.store / ".vmfab/moves").glob("*.json")}
        new = journals.keys() - self._read
        self._read |= new
        found: dict[str, Moved] = {}
        for name in new:
            for line in journals[name].read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["line"] != "outcome":
                    continue
                if entry["result"] != "moved":
                    raise Failed(f"{entry['vm']} was not moved: {entry['result']}, {entry['detail']}.")
                words = (entry[key] for key in ("vm", "source", "target", "stopped_by", "downtime"))
                found[entry["vm"]] = Moved(*words)
        return found
