"""Code that runs on a laptop while the test goes on."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any, Generic, TypeVar

from tests.sim.scheduler import Scheduler, SimKilled, Task

T = TypeVar("T")


class Beside(Generic[T]):
    """Work under way. Call it for its end: it returns or raises what the work did."""

    def __init__(self, scheduler: Scheduler, work: Callable[[], T], laptop: Any) -> None:
        self._scheduler = scheduler
        self._results: list[T] = []
        self._errors: list[BaseException] = []

        def body() -> None:
            scheduler.current.owner = laptop
            try:
                self._results.append(work())
            except BaseException as error:
                self._errors.append(error)

        self._thread = Thread(target=body, name=laptop.name, daemon=True)
        self._thread.start()
        self._task: Task = self._thread.sim_task  # type: ignore[attr-defined]

    def __call__(self) -> T:
        self._thread.join()
        if self._errors:
            raise self._errors[0]
        if not self._results:
            raise SimKilled("before it began")
        return self._results[0]

    @property
    def done(self) -> bool:
        return bool(self._task.done)

    def interrupt(self) -> None:
        """Press Ctrl-C: KeyboardInterrupt comes out of wherever the work's main thread waits."""
        if not self.done:
            self._scheduler.doom(self._task, KeyboardInterrupt())
