"""Simulated time for real threads: one runs at a time, and time moves when all of them wait.

While a scheduler is installed, every thread started by a managed thread is managed too. Exactly one holds the
baton; it gives it up only where it blocks (lock, queue, join, sleep). When nobody can run, time jumps to the
earliest timer. The order is that of a queue, so a run depends on nothing but the code and the seed.
"""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

#: Timers that may strike at one moment before we believe that it will never end.
LIVELOCK = 100_000

_real_lock = threading._allocate_lock  # type: ignore[attr-defined]


class SimKilled(BaseException):
    """The laptop whose code runs in this thread was killed, as by SIGKILL."""


class SimOver(BaseException):
    """The simulation ends; threads that still wait in it end with it."""


class Deadlock(AssertionError):
    """Every thread waits for another one, and no timer is left."""


class Task:
    """A managed thread. `owner` is inherited by the threads it starts."""

    def __init__(self, name: str, owner: Any = None) -> None:
        self.name = name
        self.owner = owner
        self.gate = _real_lock()
        self.gate.acquire()
        self.ident = 0
        self.waiter: Waiter | None = None
        self.doom: BaseException | None = None
        self.done = False
        self.joiners: list[Waiter] = []


class Waiter:
    """One wait of one task; whoever fires it first decides why the task goes on."""

    def __init__(self, scheduler: Scheduler, task: Task) -> None:
        self._scheduler = scheduler
        self.task = task
        self.why = ""

    def fire(self, why: str) -> bool:
        """Let the task go on; False if it does already."""
        if self.why:
            return False
        self.why = why
        self._scheduler.ready.append(self.task)
        return True


class Scheduler:
    """The baton, the timers and the time."""

    def __init__(self) -> None:
        self.time = 0.0
        self.ready: deque[Task] = deque()
        self.main = Task("main")
        self.main.ident = threading.get_ident()
        self.current = self.main
        self.tasks: list[Task] = [self.main]
        self.closing = False
        self._still = 0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._sequence = itertools.count()

    # -- time ----------------------------------------------------------------------------------------

    def at(self, when: float, do: Callable[[], object]) -> None:
        """Do something at a simulated moment. An error in it is raised in the main thread."""
        heapq.heappush(self._timers, (max(when, self.time), next(self._sequence), do))

    def after(self, seconds: float, do: Callable[[], object]) -> None:
        self.at(self.time + seconds, do)

    def sleep(self, seconds: float) -> None:
        """Let this thread wait, in simulated seconds; the others go on."""
        self.wait(self.waiter(), max(seconds, 0.0))

    # -- waiting -------------------------------------------------------------------------------------

    def managed(self) -> bool:
        """Does the calling thread belong to the simulation?"""
        return self.current.ident == threading.get_ident()

    def waiter(self) -> Waiter:
        return Waiter(self, self.current)

    def wait(self, waiter: Waiter, timeout: float | None = None) -> str:
        """Give up the baton until `waiter` is fired; why it was ("timeout" after so many seconds)."""
        me = waiter.task
        if not self.managed():
            raise RuntimeError("a thread that is not part of the simulation waits in it")
        if timeout is not None:
            self.after(timeout, lambda: waiter.fire("timeout"))
        me.waiter = waiter
        following = self._next()
        if following is not me:
            self.current = following
            following.gate.release()
            me.gate.acquire()
        me.waiter = None
        if me.doom is not None:
            doom, me.doom = me.doom, None
            raise doom
        if self.closing and me is not self.main:
            raise SimOver
        return waiter.why

    def doom(self, task: Task, error: BaseException) -> None:
        """Let `error` come out of the place where `task` waits or will wait next."""
        if task.done:
            return
        task.doom = error
        if task.waiter is not None:
            task.waiter.fire("doom")

    def _next(self) -> Task:
        while not self.ready:
            if self._timers:
                when, _, do = heapq.heappop(self._timers)
                self._still = 0 if when > self.time else self._still + 1
                self.time = max(self.time, when)
                if self._still > LIVELOCK:
                    self._still = 0
                    self.doom(self.main, Deadlock(f"time stands still at {self.time}: {self._stacks()}"))
                try:
                    do()
                except BaseException as error:
                    self.doom(self.main, error)
            else:
                self.doom(self.main, Deadlock(self._stacks()))
        return self.ready.popleft()

    def _stacks(self) -> str:
        frames = sys._current_frames()
        parts = ["all threads wait:"]
        for task in self.tasks:
            frame = frames.get(task.ident)
            if not task.done and frame is not None:
                parts.append(f"-- {task.name}\n" + "".join(traceback.format_stack(frame)[-8:]))
        return "\n".join(parts)

    # -- threads -------------------------------------------------------------------------------------

    def adopt(self, thread: threading.Thread) -> Task:
        """Make a thread that is about to be started a managed one; it runs when its turn comes."""
        task = Task(thread.name, self.current.owner)
        self.tasks.append(task)
        self.ready.append(task)
        run = thread.run

        def managed_run() -> None:
            task.ident = threading.get_ident()
            task.gate.acquire()
            try:
                if task.doom is None and not self.closing:
                    run()
            except (SimKilled, SimOver):
                pass
            finally:
                self._finish(task)

        thread.run = managed_run  # type: ignore[method-assign]
        return task

    def _finish(self, task: Task) -> None:
        task.done = True
        self.tasks.remove(task)
        for joiner in task.joiners:
            joiner.fire("joined")
        following = self._next()
        self.current = following
        following.gate.release()

    def join(self, task: Task, timeout: float | None) -> None:
        """Wait until a managed thread has ended."""
        if not task.done:
            waiter = self.waiter()
            task.joiners.append(waiter)
            self.wait(waiter, timeout)

    def close(self) -> None:
        """End every managed thread but the main one."""
        self.closing = True
        while others := [t for t in self.tasks if t is not self.main]:
            for task in others:
                if task.waiter is not None:
                    task.waiter.fire("over")
            self.main.doom = None
            self.join(others[0], None)
