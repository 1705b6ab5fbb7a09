"""The same work on many VMs: so many at a time, and what Ctrl-C means."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from tasks.cluster.asking.beside import beside
from tasks.cluster.errors import Interrupted

#: Seconds between two looks at the queue of answers, so that Ctrl-C is noticed.
_LOOK = 0.2

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Rest(Generic[R]):
    """What is left of an item's work when it no longer needs to keep the next item waiting."""

    finish: Callable[[], R]


class Ahead(Generic[T]):
    """Prepares items in threads, so many ahead of those that are worked on."""

    def __init__(self, items: Sequence[T], prepare: Callable[[T], None], count: int) -> None:
        self._items = items
        self._prepare = prepare
        self._count = count
        self._lock = threading.Lock()
        self._begun: list[Callable[[], None]] = []

    def reach(self, index: int, *, no_more: bool) -> None:
        """Wait until this item is prepared, then begin the following ones, unless there will be `no_more`."""
        if no_more:
            self._wait(index)
            return
        self._begin(index + 1)
        self._wait(index)
        self._begin(min(len(self._items), index + 1 + self._count))

    def _begin(self, end: int) -> None:
        with self._lock:
            for item in self._items[len(self._begun) : end]:
                self._begun.append(beside(partial(self._prepare, item)))

    def _wait(self, index: int) -> None:
        with self._lock:
            prepared = self._begun[index] if index < len(self._begun) else None
        if prepared:
            prepared()


#: What to type after a second Ctrl-C.
RESUME = (
    "Run 'fab resume', here or on another laptop: it looks where each of them is, and finishes or undoes its "
    "move."
)


class Batch(Generic[T, R]):
    """Does `work` on each item, `parallel` of them at the same time.

    Work that answers with a Rest gives its place to the next item, and the rest is done beside. `prepare` is
    done ahead for as many items as have places, and has ended before the item's work begins.
    `left` makes the result of an item that was not begun, `describe` names one, and `interrupted` is called
    at the first Ctrl-C, to tell the operator. `go_on` says after the second one what to type.
    """

    def __init__(
        self,
        items: Sequence[T],
        work: Callable[[T], R | Rest[R]],
        *,
        parallel: int,
        left: Callable[[T], R],
        describe: Callable[[T], str],
        interrupted: Callable[[], None],
        prepare: Callable[[T], None] | None = None,
        go_on: str = RESUME,
    ) -> None:
        self._items = list(items)
        self._ahead = Ahead(self._items, prepare, max(1, parallel)) if prepare else None
        self._work = work
        self._parallel = max(1, parallel)
        self._left = left
        self._describe = describe
        self._interrupted = interrupted
        self._go_on = go_on
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
        self._no_more = threading.Event()
        self._results: dict[int, R] = {}

    @property
    def stopped_early(self) -> bool:
        """Whether the operator pressed Ctrl-C."""
        return self._no_more.is_set()

    def run(self) -> tuple[R, ...]:
        """Do it; one result per item, in their order.

        The first Ctrl-C finishes what is under way and begins no more. The second raises Interrupted at once.
        What `work` raises is raised here.
        """
        for index in range(len(self._items)):
            self._waiting.put(index)
        for _ in range(min(self._parallel, len(self._items))):
            threading.Thread(target=self._run, name="batch", daemon=True).start()
        try:
            self._collect_all()
        except KeyboardInterrupt:
            # A second Ctrl-C may come while the operator is still being told of the first.
            try:
                self._no_more.set()
                self._interrupted()
                self._collect_all()
            except KeyboardInterrupt:
                raise self._cut_short() from None
        return tuple(self._results[index] for index in range(len(self._items)))

    def _collect_all(self) -> None:
        while len(self._results) < len(self._items):
            self._collect()

    def _collect(self) -> None:
        try:
            index, answer = self._done.get(timeout=_LOOK)
        except queue.Empty:
            return
        if isinstance(answer, BaseException):
            raise answer
        self._results[index] = answer

    def _run(self) -> None:
        while True:
            try:
                index = self._waiting.get_nowait()
            except queue.Empty:
                return
            item = self._items[index]
            try:
                if self._ahead:
                    self._ahead.reach(index, no_more=self._no_more.is_set())
                result = self._left(item) if self._no_more.is_set() else self._work(item)
            except BaseException as error:  # handed to the main thread, which raises it
                self._done.put((index, error))
                return
            if isinstance(result, Rest):
                threading.Thread(target=self._finish, args=(index, result), name="rest", daemon=True).start()
            else:
                self._done.put((index, result))

    def _finish(self, index: int, rest: Rest[R]) -> None:
        try:
            self._done.put((index, rest.finish()))
        except BaseException as error:  # handed to the main thread, which raises it
            self._done.put((index, error))

    def _cut_short(self) -> Interrupted:
        open_ones = [self._describe(item) for i, item in enumerate(self._items) if i not in self._results]
        return Interrupted(
            f"Interrupted with {len(open_ones)} unfinished: {'; '.join(open_ones)}.", self._go_on
        )
