"""One command's view of the cluster: a link per host, all hosts asked at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from tasks.cluster.asking.hostops import HostOps, Working
from tasks.cluster.asking.link import Connector
from tasks.cluster.asking.rounds import Round, Rounds
from tasks.cluster.clock import Clock
from tasks.cluster.errors import HostError, HostSilent
from tasks.cluster.model import HostFacts, Inventory, RunningNow, Silent, Snapshot

#: Seconds within which a host must let us in, and answer the first question; together below the 10 s
#: after which `status` has to say that it is silent.
CONNECT = 5.0
ANSWER = 9.0
#: Seconds that a host which stopped answering in the middle of a move gets to come back before we give up.
COMEBACK = 30.0
#: Times longer for who has time: a host that is being set up, or has just booted, may be busy.
UNHURRIED = 4.0

T = TypeVar("T")


class Session:
    """Links to the hosts of an inventory, opened on first use, one per host, closed together.

    Use it as a context manager. Nothing here decides; it asks, and says who did not answer.
    """

    def __init__(
        self,
        inventory: Inventory,
        connector: Connector,
        clock: Clock | None = None,
        working: Working | None = None,
        patience: float = 1.0,
    ) -> None:
        """`working` hears what long work on a host is at. Logins, answers and hosts that come back get
        `patience` times longer than usual, or as many times as the inventory says.
        """
        self.inventory = inventory
        self.clock = clock or Clock()
        self._connector = connector
        self._working = working
        self._patience = max(patience, inventory.patience)
        #: Seconds that a host which stopped answering in the middle of a move gets to come back.
        self.comeback = COMEBACK * self._patience
        self._ops: dict[str, Future[HostOps]] = {}
        #: hosts that are proved to be dead, and what tells that they still are
        self._fences: dict[str, Callable[[], str]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(
            max_workers=max(8, 2 * len(inventory.hosts)), thread_name_prefix="host"
        )
        self._plans: Rounds[HostFacts | Silent] = Rounds(
            lambda names: self.each(names, lambda h: h.observe(plan=True)), self.clock
        )
        self._running: Rounds[RunningNow | Silent] = Rounds(
            lambda names: self.each(names, lambda h: h.running()), self.clock
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            opened = list(self._ops.values())  # a second Ctrl-C closes links that are still used, and so lost
        for future in opened:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def host(self, name: str) -> HostOps:
        """The open link to a host; opens it if need be. Raises HostSilent."""
        return self._opening(name).result()

    def renew(self, name: str) -> HostOps:
        """Log in to a host anew and use this link from now on; the old one is closed. Raises HostSilent.

        Until the new login has succeeded, the old link stays.
        """
        ops = self._pool.submit(self._open, name)
        ops.result()
        with self._lock:
            before, self._ops[name] = self._ops.get(name), ops
        if before is not None and before.done() and not before.cancelled() and before.exception() is None:
            before.result().close()
        return ops.result()

    def tell(self, host: str, line: str) -> None:
        """Tell whoever hears of long work what is waited for."""
        if self._working is not None:
            self._working(host, line)

    def current(self, ops: HostOps) -> bool:
        """Whether this is the open link to its host, as far as was noticed, and not one that was lost."""
        with self._lock:
            future = self._ops.get(ops.host)
        return future is not None and future.done() and not future.exception() and future.result() is ops

    @contextmanager
    def fence(self, name: str, check: Callable[[], str]) -> Iterator[None]:
        """Leave a host out of every question for as long as it is proved to be dead.

        `check` tells at each question why that is no longer proved, "" while it is.
        """
        self._fences[name] = check
        try:
            yield
        finally:
            del self._fences[name]

    @contextmanager
    def using(self, name: str) -> Iterator[HostOps]:
        """The open link to a host for a few calls; when it is lost in them, the next use opens a new one.

        Raises HostSilent when it cannot be opened.
        """
        with self._used(name, self.host(name)) as ops:
            yield ops

    @contextmanager
    def _used(self, name: str, ops: HostOps) -> Iterator[HostOps]:
        try:
            yield ops
        except HostSilent as error:
            # LinkLost: it broke in this call; plain HostSilent: it had broken before, unnoticed here.
            if error.host != name:
                raise
            with self._lock:
                future = self._ops.get(name)
                if future is not None and future.done() and not future.exception() and future.result() is ops:
                    del self._ops[name]
            ops.close()
            raise

    def _opening(self, name: str) -> Future[HostOps]:
        with self._lock:
            future = self._ops.get(name)
            if future is None or (future.done() and future.exception() is not None):
                future = self._ops[name] = self._pool.submit(self._open, name)
            return future

    def _open(self, name: str) -> HostOps:
        link = self._connector(self.inventory.hosts[name], CONNECT * self._patience)
        return HostOps(link, self.inventory.mount, self._working, self._patience)

    def each(
        self, names: Iterable[str], ask: Callable[[HostOps], T], *, seconds: float = ANSWER
    ) -> Mapping[str, T | Silent]:
        """Ask hosts at the same time. A host that fails or is late in any way is Silent in the answer.

        They get `seconds`, times the session's patience.

        A fenced host is not asked. It is left out of the answer while its fence holds, else it is Silent.
        """
        fenced = {name: self._fences.get(name) for name in names}
        opening = {name: self._opening(name) for name, fence in fenced.items() if fence is None}
        fences = {name: self._pool.submit(fence) for name, fence in fenced.items() if fence is not None}

        def one(name: str) -> T | Silent:
            try:
                with self._used(name, opening[name].result()) as ops:
                    return ask(ops)
            except HostSilent as error:
                return Silent(name, error.reason, error.hint, alive=error.alive)
            except HostError as error:
                return Silent(name, error.detail, alive=True)

        asked = {name: self._pool.submit(one, name) for name in opening}
        seconds *= self._patience
        pending: list[Future[Any]] = [*asked.values(), *fences.values()]
        wait(pending, timeout=seconds)
        late = f"no answer within {seconds:.0f} s"
        seen = {name: f.result() if f.done() else Silent(name, late) for name, f in asked.items()}
        for name, fence in fences.items():
            if problem := fence.result() if fence.done() else late:
                seen[name] = Silent(name, problem)
        return seen

    def observe(self, *, plan: bool = False, hosts: Iterable[str] | None = None) -> Snapshot:
        """All hosts of the inventory (or those named) at this moment."""
        names = list(hosts or self.inventory.hosts)
        if not plan:
            return Snapshot(self.each(names, lambda h: h.observe(plan=False)))
        answers = self._plans.ask(names).answers
        return Snapshot({name: answers[name] for name in names if name in answers})

    def running_now(self) -> Mapping[str, RunningNow | Silent]:
        """The light question, to every host of the inventory: who runs there now?"""
        return self.running_round().answers

    def running_round(self) -> Round[RunningNow | Silent]:
        """The same, and when the question was asked."""
        return self._running.ask(self.inventory.hosts.keys())
