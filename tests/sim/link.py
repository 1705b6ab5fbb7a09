"""A laptop and its links to simulated hosts: `tasks.cluster.asking.link` without ssh."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tasks.cluster.asking.link import Progress
from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.model import Host
from tests.sim.agent import Agent, Gone
from tests.sim.beside import Beside
from tests.sim.errors import AgentError
from tests.sim.faults import Call
from tests.sim.host import SimHost
from tests.sim.law import LawBroken
from tests.sim.scheduler import SimKilled, Task, Waiter

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster

#: Seconds of silence after which a laptop gives up a link, and an agent ends.
LOST = 12.0
SILENCE = 30.0

#: Requests to libvirt that are carried out even if the agent, the link or the laptop ends meanwhile.
CHANGES = frozenset({"define", "undefine", "autostart", "start", "shutdown", "destroy", "reboot"})

T = TypeVar("T")


class Laptop:
    """One operator's machine. Whatever runs in `run` dies with it."""

    def __init__(self, cluster: SimCluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.dead = False
        self.links: list[SimLink] = []
        self._asleep_until = 0.0

    def connector(self, host: Host, seconds: float) -> SimLink:
        """Open a link within so many simulated seconds, or raise HostSilent."""
        self._wait_awake()
        machine = self.cluster.hosts[host.name]
        call = Call(self.cluster, self, machine, "connect", {}, self.cluster.scheduler.time, seconds)
        failed = _faults(call, "before")
        self._alive()
        self.cluster.scheduler.sleep(3 * self.cluster.latency())
        self._alive()
        if failed is not None:
            raise HostSilent(host.name, failed.message)
        if not machine.answers or machine.sshd_frozen:
            self.cluster.scheduler.sleep(seconds)
            self._alive()
            alive = machine.answers
            raise HostSilent(host.name, f"no connection within {seconds:.0f} s", alive=alive)
        link = SimLink(self, machine)
        self.links.append(link)
        _faults(call, "after")
        self._alive()
        return link

    def run(self, work: Callable[[], T]) -> T:
        """Run code on this laptop and wait for its end. Raises what it raises, SimKilled if it was killed."""
        return self.start(work)()

    def start(self, work: Callable[[], T]) -> Beside[T]:
        """Run code on this laptop at the side."""
        return self.cluster.beside(work, self)

    def kill(self) -> None:
        """SIGKILL: its code goes no further, its connections close, the agents give back their locks."""
        if self.dead:
            return
        self.dead = True
        self.cluster.history.append(f"{self.cluster.stamp()} {self.name} was killed")
        for link in list(self.links):
            link.close()
        for task in self._tasks():
            self.cluster.scheduler.doom(task, SimKilled(self.name))

    def suspend(self, seconds: float) -> None:
        """Close the lid for so long: no code runs, the agents end by themselves."""
        self._asleep_until = self.cluster.scheduler.time + seconds
        for link in list(self.links):
            link.cut(grace=SILENCE)

    def _tasks(self) -> list[Task]:
        scheduler = self.cluster.scheduler
        return [t for t in scheduler.tasks if t.owner is self and t is not scheduler.current]

    def _alive(self) -> None:
        if self.dead:
            raise SimKilled(self.name)

    def _wait_awake(self) -> None:
        self._alive()
        while (left := self._asleep_until - self.cluster.scheduler.time) > 0:
            self.cluster.scheduler.sleep(left)
            self._alive()


class SimLink:
    """One connection with its agent. `broken` is final: a lost link never comes back."""

    def __init__(self, laptop: Laptop, host: SimHost) -> None:
        self._laptop = laptop
        self._machine = host
        self.agent = Agent(host, self)
        self.broken = False
        #: when the laptop notices that it is broken
        self._noticed = math.inf
        self.closed = False
        self._boot = host.boot_id
        self._changing = 0
        self._ended = False
        self._waiting: list[Waiter] = []

    @property
    def host(self) -> str:
        return self._machine.name

    @property
    def ended(self) -> bool:
        """Has its agent ended, and given its locks back?"""
        return self._ended

    @property
    def carries(self) -> bool:
        """Do requests and replies get through?"""
        machine = self._machine
        return not self.broken and not self.closed and machine.answers and machine.boot_id == self._boot

    def call(
        self, op: str, args: Mapping[str, Any], *, deadline: float, progress: Progress | None = None
    ) -> Mapping[str, Any]:
        laptop, cluster, scheduler = self._laptop, self._laptop.cluster, self._laptop.cluster.scheduler
        laptop._wait_awake()
        if self.closed or scheduler.time >= self._noticed:
            raise HostSilent(self.host, "the connection is lost")
        call = Call(cluster, laptop, self._machine, op, _through_wire(args), scheduler.time, deadline)
        cluster.calls.append(call)
        failed = _faults(call, "before")
        laptop._alive()
        scheduler.sleep(cluster.latency())
        reply: dict[str, Any] = {}
        if failed is None:
            try:
                reply = self._carried_out(call, progress)
            except AgentError as error:
                failed = error
        call.failed = failed
        failed = call.told = _faults(call, "after") or failed
        laptop._alive()
        if call.reply_lost:
            self.cut(grace=SILENCE)
            self._noticed = scheduler.time
            raise LinkLost(self.host, "the connection broke")
        if not self.carries:
            self._lost(call)
        scheduler.sleep(cluster.latency())
        laptop._wait_awake()
        if failed is not None:
            raise HostError(self.host, failed.kind, failed.message)
        return _through_wire(reply)

    def _carried_out(self, call: Call, progress: Progress | None) -> dict[str, Any]:
        """The host's reply. Raises AgentError, LinkLost."""
        if call.silent or not self.carries:
            self._lost(call)
        try:
            if call.op in CHANGES:
                return self._change(call)
            if call.late is not None:
                self._lost(call)
            return self.agent.perform(call.op, call.args, call.deadline, self._emitter(progress))
        except Gone:
            self._lost(call)

    def _change(self, call: Call) -> dict[str, Any]:
        """Let the host do it in its own time, and wait for its reply as long as the deadline lets us."""
        scheduler = self._laptop.cluster.scheduler
        waiter = scheduler.waiter()
        ended: list[dict[str, Any] | AgentError | LawBroken] = []

        def act() -> None:
            try:
                scheduler.sleep(call.late or 0.0)
                ended.append(self.agent.perform(call.op, call.args, call.deadline, lambda event: None))
            except (AgentError, LawBroken) as error:
                ended.append(error)
            except Gone:
                pass
            finally:
                self._changing -= 1
                self._free_if_over()
                if self.carries:
                    waiter.fire("done")

        self._changing += 1
        self._laptop.cluster.spawn(act)
        if call.late is not None and call.meanwhile is not None:
            raise call.meanwhile
        self._waiting.append(waiter)
        if call.late_unheard:
            self.cut(grace=SILENCE)
        try:
            why = scheduler.wait(waiter, max(0.0, call.at + call.deadline - scheduler.time))
        finally:
            self._waiting.remove(waiter)
        self._laptop._wait_awake()
        if why == "timeout":
            raise LinkLost(self.host, f"no reply to {call.op} within {call.deadline:g} s")
        if why == "lost":
            raise LinkLost(self.host, "it has answered nothing for 12 s")
        result = ended[0]
        if isinstance(result, BaseException):
            raise result
        return result

    def _emitter(self, progress: Progress | None) -> Callable[[Mapping[str, Any]], None]:
        def emit(event: Mapping[str, Any]) -> None:
            if progress is not None and self.carries:
                progress(json.loads(json.dumps(dict(event))))

        return emit

    def _lost(self, call: Call) -> NoReturn:
        """Wait until the silence is noticed. Raises LinkLost."""
        scheduler = self._laptop.cluster.scheduler
        self.cut(grace=SILENCE)
        scheduler.sleep(min(self._noticed, call.at + call.deadline) - scheduler.time)
        self._laptop._wait_awake()
        raise LinkLost(self.host, "it has answered nothing for 12 s")

    def cut(self, *, grace: float) -> None:
        """Break the connection; the agent notices within `grace` seconds and gives its locks back."""
        if self.broken:
            return
        self.broken = True
        self._noticed = self._laptop.cluster.scheduler.time + LOST
        self._laptop.cluster.after(grace, self._agent_ends)
        for waiter in self._waiting:
            self._laptop.cluster.after(LOST, functools.partial(waiter.fire, "lost"))

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self in self._laptop.links:
            self._laptop.links.remove(self)
        if self._machine.answers and self._machine.boot_id == self._boot:
            self._agent_ends()
        elif not self.broken:
            self.cut(grace=SILENCE)

    def _agent_ends(self) -> None:
        self._ended = True
        self._free_if_over()

    def _free_if_over(self) -> None:
        """The agent's locks outlive it for as long as a change that it asked for is under way."""
        locks = self._machine.view.store.locks
        if self._ended and not self._changing:
            for path in [p for p, link in locks.items() if link is self]:
                del locks[path]


def _through_wire(what: Mapping[str, Any]) -> dict[str, Any]:
    return dict(json.loads(json.dumps(dict(what))))


def _faults(call: Call, when: str) -> AgentError | None:
    """Run the scripted faults of this moment; the error that they give the call, if any."""
    try:
        call.cluster.faults.run(call, when)
    except AgentError as error:
        return error
    return None
