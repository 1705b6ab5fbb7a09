"""An operator's desk at the simulated cluster: types tasks, and sees their output and exit codes."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from tasks.cli import exits
from tasks.cli.context import Operator
from tasks.cli.output import Output, Stream
from tasks.cli.task import VmTask
from tests.sim.cluster import SimCluster
from tests.sim.link import Laptop
from tests.sim.scheduler import SimKilled

NASTY = ("-rf", "web server", "it's $HOME", 'a"b', "größe", "$(reboot)", "web[1]", "a,b")


@dataclass(frozen=True)
class Ended:
    """What the operator saw."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


def executed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Give the tasks a terminal; collects the commands that would have taken the place of fab."""
    commands: list[list[str]] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr(os, "execvp", lambda name, words: commands.append(words))
    return commands


class Desk:
    """Calls tasks as the executor does: with an Operator, and every end turned into a code."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim
        self.inventory: dict[str, Any] = {}

    def type(
        self,
        task: VmTask,
        *args: Any,
        hosts: Sequence[str] = (),
        laptop: Laptop | None = None,
        yes: bool = False,
        **flags: Any,
    ) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        output = Output(Stream(out), Stream(err), json=bool(flags.get("json")))
        operator = Operator(
            hosts=tuple(hosts),
            output=output,
            yes=yes,
            inventory=self.sim.inventory(**self.inventory),
            connector=lambda inventory: (laptop or self.sim.laptop).connector,
            clock=self.sim.clock,
        )
        code = exits.ending(lambda: task.answer(operator, *args, **flags) or 0, output)
        return Ended(code, out.getvalue(), err.getvalue())

    def type_or_die(self, task: VmTask, *args: Any, **more: Any) -> Ended | None:
        """The same; None when its laptop is killed on the way."""
        try:
            return self.type(task, *args, **more)
        except SimKilled:
            return None

    def beside(self, laptop: Laptop, task: VmTask, *args: Any, **more: Any) -> Callable[[], Ended]:
        """The same on another laptop, at the same time; call the answer for its end."""
        return self.sim.beside(lambda: self.type(task, *args, laptop=laptop, **more), laptop)

    def ops(self, *names: str) -> list[str]:
        """Which of these operations were sent, in order."""
        return [call.op for call in self.sim.calls if call.op in names]
