"""An operator's desk at the simulated cluster: types tasks, and sees their output and exit codes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.cli import exits
from tasks.cli.context import Operator
from tasks.cli.output import Output, Stream
from tasks.cli.task import VmTask
from tests.sim.cluster import SimCluster
from tests.sim.link import Laptop

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

    def beside(self, laptop: Laptop, task: VmTask, *args: Any, **more: Any) -> Callable[[], Ended]:
        """The same on another laptop, at the same time; call the answer for its end."""
        return self.sim.beside(lambda: self.type(task, *args, laptop=laptop, **more), laptop)

    def ops(self, *names: str) -> list[str]:
        """Which of these operations were sent, in order."""
        return [call.op for call in self.sim.calls if call.op in names]
