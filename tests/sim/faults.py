"""Scripted faults: something happens just before or just after a host carries out a request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.sim.errors import AgentError

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.host import SimHost
    from tests.sim.link import Laptop


@dataclass(eq=False, slots=True)
class Call:
    """One request on its way. A fault may change what becomes of it."""

    cluster: SimCluster
    laptop: Laptop
    host: SimHost
    op: str
    args: Mapping[str, Any]
    at: float
    deadline: float
    #: the request vanishes, and the link with it
    silent: bool = False
    #: the request is carried out, its reply vanishes with the link
    reply_lost: bool = False
    #: the host carries it out only so many seconds later
    late: float | None = None
    #: and the link breaks meanwhile
    late_unheard: bool = False
    #: what the caller is told meanwhile; nothing at all if None
    meanwhile: AgentError | None = None
    #: set for faults that run after it: how it failed
    failed: AgentError | None = None
    #: what the laptop was told in the end, if not that it worked
    told: AgentError | None = None

    def __str__(self) -> str:
        shown = {k: v for k, v in self.args.items() if k not in ("mount", "xml", "text")}
        return f"{self.laptop.name} -> {self.host.name}: {self.op} {shown or ''}".rstrip()


Fault = Callable[[Call], None]


@dataclass(eq=False, slots=True)
class Rule:
    """When a fault strikes. `n` counts from 1 the calls that match; None is each of them."""

    do: Fault
    op: str | None
    host: str | None
    n: int | None
    when: str
    match: Callable[[Call], bool] | None
    seen: int = 0
    struck: int = 0


@dataclass(slots=True)
class Faults:
    """The script of a simulation."""

    rules: list[Rule] = field(default_factory=list)

    def on(
        self,
        do: Fault,
        *,
        op: str | None = None,
        host: str | None = None,
        n: int | None = 1,
        when: str = "before",
        match: Callable[[Call], bool] | None = None,
    ) -> Rule:
        """Let `do` happen before or after the n-th matching call; op "connect" is the opening of a link."""
        if when not in ("before", "after"):
            raise ValueError(f"when is before or after, not {when!r}")
        rule = Rule(do, op, host, n, when, match)
        self.rules.append(rule)
        return rule

    def clear(self) -> None:
        self.rules.clear()

    def run(self, call: Call, when: str) -> None:
        """Strike. What a fault raises (an AgentError, SimKilled) meets the caller."""
        due = []
        for rule in self.rules:
            if rule.when != when or rule.op not in (None, call.op) or rule.host not in (None, call.host.name):
                continue
            if rule.match is not None and not rule.match(call):
                continue
            rule.seen += 1
            if rule.n in (None, rule.seen):
                due.append(rule)
        for rule in due:
            rule.struck += 1
            rule.do(call)


def fail(kind: str, detail: str) -> Fault:
    """The call fails with this HostError; struck before, it is not carried out."""

    def do(call: Call) -> None:
        raise AgentError(kind, detail)

    return do


def silent(call: Call) -> None:
    """The host does not answer this call and loses the link; it is not carried out. New links work."""
    call.silent = True


def reply_lost(call: Call) -> None:
    """The call is carried out, its answer is lost."""
    call.reply_lost = True


def delayed(seconds: float, *, told: str | None = None, unheard: bool = False) -> Fault:
    """The host carries a change out only so many seconds later; a read gets no answer at all.

    The caller waits until then or its deadline; or, `unheard`, loses the link meanwhile; or gets at once an
    error of the kind `told`.
    """

    def do(call: Call) -> None:
        call.late = seconds
        call.late_unheard = unheard
        call.meanwhile = None if told is None else AgentError(told, "no answer in time")

    return do


def cut(seconds: float | None = None) -> Fault:
    """The host's network is cut, for so long or for good."""
    return lambda call: call.host.cut(seconds)


def power_off(seconds: float | None = None) -> Fault:
    """The host loses its power, for so long or for good."""
    return lambda call: call.host.power_off(seconds)


def kill_laptop(call: Call) -> None:
    """SIGKILL of the code that makes this call, and of everything else on its laptop."""
    call.laptop.kill()


def suspend_laptop(seconds: float) -> Fault:
    """The laptop's lid is closed for so long."""
    return lambda call: call.laptop.suspend(seconds)
