"""Puts a scheduler under `threading` and `concurrent.futures`: unchanged code runs in simulated time."""

from __future__ import annotations

import concurrent.futures._base as futures_base
import concurrent.futures.thread as futures_thread
import logging
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from tests.sim.scheduler import Scheduler, SimKilled, SimOver, Task, Waiter

_real_lock = threading._allocate_lock  # type: ignore[attr-defined]
_real_rlock = threading.RLock
_real_queue = queue.SimpleQueue
_real_start = threading.Thread.start
_real_join = threading.Thread.join
_real_sleep = time.sleep

_active: Scheduler | None = None


def _scheduler() -> Scheduler | None:
    """The installed scheduler if the calling thread is managed by it."""
    return _active if _active is not None and _active.managed() else None


class SimLock:
    """A lock whose waiters wait in simulated time; handed over in the order of asking."""

    def __init__(self) -> None:
        self._held = False
        self._waiters: deque[Waiter] = deque()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._held:
            self._held = True
            return True
        if not blocking or timeout == 0:
            return False
        scheduler = _scheduler()
        if scheduler is None:
            raise RuntimeError("a simulated lock is waited for outside of the simulation")
        waiter = scheduler.waiter()
        self._waiters.append(waiter)
        try:
            why = scheduler.wait(waiter, None if timeout < 0 else timeout)
        except BaseException:
            if waiter.why == "released":
                self.release()
            raise
        return why == "released"

    def release(self) -> None:
        if not self._held:
            raise RuntimeError("release unlocked lock")
        while self._waiters:
            if self._waiters.popleft().fire("released"):
                return
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


class SimQueue:
    """`queue.SimpleQueue` in simulated time."""

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._waiters: deque[Waiter] = deque()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._items.append(item)
        while self._waiters:
            if self._waiters.popleft().fire("put"):
                return

    put_nowait = put

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        while not self._items:
            scheduler = _scheduler()
            if not block or scheduler is None:
                raise queue.Empty
            waiter = scheduler.waiter()
            self._waiters.append(waiter)
            if scheduler.wait(waiter, timeout) == "timeout":
                raise queue.Empty
        return self._items.popleft()

    def get_nowait(self) -> Any:
        return self.get(block=False)

    def empty(self) -> bool:
        return not self._items

    def qsize(self) -> int:
        return len(self._items)


class _Started:
    """A thread's "started" event. Nobody has to wait: the thread does nothing before its turn."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def wait(self, timeout: float | None = None) -> bool:
        self._set = True
        return True


def _lock() -> Any:
    return SimLock() if _scheduler() is not None else _real_lock()


def _rlock() -> Any:
    return threading._PyRLock() if _scheduler() is not None else _real_rlock()  # type: ignore[attr-defined]


def _queue() -> Any:
    return SimQueue() if _scheduler() is not None else _real_queue()


def _start(thread: threading.Thread) -> None:
    scheduler = _scheduler()
    if scheduler is not None and not thread._started.is_set():  # type: ignore[attr-defined]
        thread._started = _Started()  # type: ignore[attr-defined]
        thread.sim_task = scheduler.adopt(thread)  # type: ignore[attr-defined]
    _real_start(thread)


def _join(thread: threading.Thread, timeout: float | None = None) -> None:
    task: Task | None = getattr(thread, "sim_task", None)
    scheduler = _scheduler()
    if task is not None and scheduler is not None:
        scheduler.join(task, timeout)
        if not task.done:
            return
    _real_join(thread, timeout)


def _sleep(seconds: float) -> None:
    if _scheduler() is not None:
        raise AssertionError("time.sleep in simulated code: sleep on the injected clock instead")
    _real_sleep(seconds)


def _not_about_the_end(record: logging.LogRecord) -> bool:
    """Keep an executor's complaints about workers that the simulation itself ended out of the log."""
    kind = record.exc_info[0] if isinstance(record.exc_info, tuple) else None
    return kind is None or not issubclass(kind, (SimKilled, SimOver))


def _imported_by_name() -> list[tuple[Any, str, Any]]:
    """Places in our own modules that hold the real things under a name of their own."""
    ours = [m for name, m in sys.modules.items() if name.startswith("tasks.")]
    swaps: list[tuple[Any, Any]] = [
        (_real_lock, _lock),
        (_real_rlock, _rlock),
        (_real_queue, _queue),
        (_real_sleep, _sleep),
    ]
    return [
        (module, name, ours_now)
        for module in ours
        for name, value in vars(module).items()
        for real, ours_now in swaps
        if value is real
    ]


@contextmanager
def installed(scheduler: Scheduler) -> Iterator[None]:
    """Run what is inside, and all threads it starts, on the scheduler."""
    global _active
    if _active is not None:
        raise RuntimeError("another simulation is open")
    places: list[tuple[Any, str, Any]] = [
        (threading, "_allocate_lock", _lock),
        (threading, "Lock", _lock),
        (threading, "RLock", _rlock),
        (threading, "_time", lambda: scheduler.time),
        (threading.Thread, "start", _start),
        (threading.Thread, "join", _join),
        (queue, "SimpleQueue", _queue),
        (time, "sleep", _sleep),
        (futures_base, "time", SimpleNamespace(monotonic=lambda: scheduler.time)),
        (futures_thread, "_global_shutdown_lock", SimLock()),
    ]
    places += _imported_by_name()
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    futures_base.LOGGER.addFilter(_not_about_the_end)
    _active = scheduler
    for place, name, value in places:
        setattr(place, name, value)
    try:
        yield
    finally:
        try:
            scheduler.close()
        finally:
            for place, name, value in before:
                setattr(place, name, value)
            _active = None
            futures_base.LOGGER.removeFilter(_not_about_the_end)
