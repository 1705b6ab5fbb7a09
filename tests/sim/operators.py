"""Operators at laptops of the simulated cluster: each has one command under way at most."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.cli.task import VmTask
from tests.domain.desk import Desk, Ended
from tests.sim.beside import Beside
from tests.sim.cluster import SimCluster
from tests.sim.scheduler import SimKilled

#: Simulated seconds after which a command has to have ended, whatever broke.
ENDLESS = 1800.0
#: Requests that change something; none of them may come from a command that says "nothing was changed".
CHANGING = (
    *("define", "undefine", "start", "shutdown", "destroy", "reboot", "note_running", "save_running"),
    "store.swap",
)
BUG = "This is a fault in vmfab itself"

#: how often each task ended how, in all clusters
ENDS: Counter[tuple[str, int | str]] = Counter()

Check = Callable[[], str]


def _verb(words: str) -> str:
    return next(word for word in words.split() if word != "-H" and not word.startswith("vmhost"))


@dataclass(eq=False)
class Command:
    """One command, as typed."""

    words: str
    first_call: int
    first_line: int
    work: Beside[Ended] = field(init=False)
    #: what was wrong when it ended, should it say that all went well
    wrong: str = ""
    #: something happened meanwhile that its operator did not do
    disturbed: bool = False


class Operator:
    """A person with a laptop; when that is killed, the next command is typed on another one."""

    def __init__(self, sim: SimCluster, desk: Desk, name: str) -> None:
        self._sim = sim
        self._desk = desk
        self.name = name
        self.laptop = sim.another_laptop(name)
        self._laptops = 1
        self.command: Command | None = None
        #: who else is at work
        self.others: list[Operator] = []

    @property
    def busy(self) -> bool:
        return self.command is not None and not self.command.work.done

    def type(
        self,
        words: str,
        task: VmTask,
        *args: Any,
        hosts: Sequence[str] = (),
        after: Check = lambda: "",
        **flags: Any,
    ) -> None:
        """Begin a command; one that is under way is waited for first.

        `after` says what is wrong at the end of one that did what it should; "" is nothing.
        """
        self.finish()
        if self.laptop.dead:
            self._laptops += 1
            self.laptop = self._sim.another_laptop(f"{self.name}-{self._laptops}")
        laptop = self.laptop
        given = {"yes": True, **flags} if "yes" in task.defaults else flags

        def work() -> Ended:
            ended = self._desk.type(task, *args, hosts=hosts, laptop=laptop, **given)
            # Now, for in the next moment somebody may change it.
            command.wrong = "" if self._booted(command) else after()
            return ended

        self._sim.history.append(f"{self._sim.stamp()} {laptop.name}$ fab {words}")
        command = Command(words, len(self._sim.calls), len(self._sim.history))
        command.disturbed = any(other.busy for other in self.others)
        command.work = self._sim.beside(work, laptop)
        self.command = command

    def _booted(self, command: Command) -> bool:
        """Whether a host started VMs by itself meanwhile, which nobody typed."""
        return any(" by boot" in line for line in self._sim.history[command.first_line :])

    def finish(self) -> Ended | None:
        """Wait for the end of what is under way. Raises AssertionError when it never ends."""
        begin = self._sim.scheduler.time
        while self.busy:
            assert self._sim.scheduler.time - begin < ENDLESS, f"never ends: {self.command}"
            self._sim.wait(1.0)
        return self.judge()

    def judge(self) -> Ended | None:
        """If a command has ended: was what it said true? Raises AssertionError, LawBroken."""
        command = self.command
        if command is None or not command.work.done:
            return None
        self.command = None
        try:
            ended = command.work()
        except SimKilled:
            ENDS[_verb(command.words), "killed"] += 1
            return None
        shown = f"{self.laptop.name}$ fab {command.words}: exit {ended.code}\n{ended.text}"
        self._sim.history.append(f"{self._sim.stamp()} {shown}")
        ENDS[_verb(command.words), ended.code] += 1
        assert BUG not in ended.err, shown
        assert ended.code in (0, 1, 2, 3, 130), shown
        if ended.code == 2:
            # Nobody doubts a libvirt that says no.
            changed = [str(c) for c in self._calls(command) if c.op in CHANGING and c.told is None]
            assert not changed, f"{shown}\nrefused, yet it asked for {changed}"
        assert ended.code != 0 or command.disturbed or not command.wrong, f"{shown}\nyet {command.wrong}"
        return ended

    def _calls(self, command: Command) -> list[Any]:
        return [c for c in self._sim.calls[command.first_call :] if c.laptop is self.laptop]

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self.busy and self.command is not None:
            self._sim.history.append(f"{self._sim.stamp()} {self.laptop.name}: Ctrl-C")
            self.command.work.interrupt()

    def disturb(self) -> None:
        if self.command is not None:
            self.command.disturbed = True
