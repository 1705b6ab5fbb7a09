"""A laptop and its links to simulated hosts: `tasks.cluster.link` without ssh."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.link import Progress
from tasks.cluster.model import Host
from tests.sim.agent import Agent, Gone
from tests.sim.errors import AgentError
from tests.sim.faults import Call
from tests.sim.host import SimHost
from tests.sim.scheduler import SimKilled, Task

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster

#: Seconds after which an agent that hears nothing from its laptop ends, and a laptop gives up a silent link.
SILENCE = 15.0

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
        call = Call(self.cluster, self, machine, "connect", {}, self.cluster.scheduler.time)
        failed = _faults(call, "before")
        self._alive()
        self.cluster.scheduler.sleep(3 * self.cluster.latency())
        self._alive()
        if failed is not None:
            raise HostSilent(host.name, failed.message)
        if not machine.answers or machine.sshd_frozen:
            self.cluster.scheduler.sleep(seconds)
            self._alive()
            raise HostSilent(host.name, f"no connection within {seconds:.0f} s")
        link = SimLink(self, machine)
        self.links.append(link)
        _faults(call, "after")
        self._alive()
        return link

    def run(self, work: Callable[[], T]) -> T:
        """Run code on this laptop and wait for its end. Raises what it raises, SimKilled if it was killed."""
        return self.start(work)()

    def start(self, work: Callable[[], T]) -> Callable[[], T]:
        """Run code on this laptop at the side; the answer waits for its end and gives its result."""
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
            link.cut(grace=2 * SILENCE)

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
        self.closed = False
        self._boot = host.boot_id

    @property
    def host(self) -> str:
        return self._machine.name

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
        if self.closed or self.broken:
            raise LinkLost(self.host, "the connection is closed")
        begin = scheduler.time
        wire_args: dict[str, Any] = json.loads(json.dumps(dict(args)))
        call = Call(cluster, laptop, self._machine, op, wire_args, begin)
        cluster.calls.append(call)
        failed = _faults(call, "before")
        laptop._alive()
        scheduler.sleep(cluster.latency())
        reply: dict[str, Any] = {}
        if failed is None:
            if not self.carries or call.silent:
                self._lost(begin, deadline)
            if call.delayed is not None:
                self._later(call, call.delayed)
                self._lost(begin, deadline)
            try:
                reply = self.agent.perform(op, wire_args, self._emitter(progress))
            except AgentError as error:
                failed = error
            except Gone:
                self._lost(begin, deadline)
        call.failed = failed
        failed = _faults(call, "after") or failed
        laptop._alive()
        if call.reply_lost:
            self.cut(grace=SILENCE)
            raise LinkLost(self.host, "the connection was lost")
        if not self.carries:
            self._lost(begin, deadline)
        scheduler.sleep(cluster.latency())
        laptop._wait_awake()
        if scheduler.time - begin > deadline + 1.0:
            self.cut(grace=SILENCE)
            raise LinkLost(self.host, f"no answer within {deadline:.0f} s")
        if failed is not None:
            raise HostError(self.host, failed.kind, failed.message)
        return dict(json.loads(json.dumps(reply)))

    def _later(self, call: Call, seconds: float) -> None:
        """Let the host carry the request out long after anybody waits for it."""

        def act() -> None:
            if self._machine.powered and self._machine.boot_id == self._boot:
                try:
                    self.agent.perform(call.op, call.args, lambda event: None)
                except (AgentError, Gone):
                    return

        cluster = self._laptop.cluster
        cluster.after(seconds, lambda: cluster.spawn(act))

    def _emitter(self, progress: Progress | None) -> Callable[[Mapping[str, Any]], None]:
        def emit(event: Mapping[str, Any]) -> None:
            if progress is not None and self.carries:
                progress(json.loads(json.dumps(dict(event))))

        return emit

    def _lost(self, begin: float, deadline: float) -> None:
        """Wait until the silence is noticed. Raises LinkLost."""
        scheduler = self._laptop.cluster.scheduler
        scheduler.sleep(min(SILENCE, max(0.0, begin + deadline - scheduler.time)))
        self._laptop._wait_awake()
        self.cut(grace=SILENCE)
        raise LinkLost(self.host, "no answer")

    def cut(self, *, grace: float) -> None:
        """Break the connection; the agent notices within `grace` seconds and gives its locks back."""
        if not self.broken:
            self.broken = True
            self._laptop.cluster.after(grace, self._free)

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self in self._laptop.links:
            self._laptop.links.remove(self)
        if self._machine.answers and self._machine.boot_id == self._boot:
            self._free()
        elif not self.broken:
            self.cut(grace=2 * SILENCE)

    def _free(self) -> None:
        locks = self._machine.view.store.locks
        for path in [p for p, link in locks.items() if link is self]:
            del locks[path]


def _faults(call: Call, when: str) -> AgentError | None:
    """Run the scripted faults of this moment; the error that they give the call, if any."""
    try:
        call.cluster.faults.run(call, when)
    except AgentError as error:
        return error
    return None
