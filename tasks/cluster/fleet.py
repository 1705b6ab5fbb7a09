"""Carry out many moves at once: so many at a time, so many starts per target, and what Ctrl-C means."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence

from tasks.cluster.errors import Interrupted
from tasks.cluster.events import Event, Notify, Phase
from tasks.cluster.model import Move, Outcome
from tasks.cluster.move import ColdMove, Gate

#: Starts at the same time on one target: more only makes each slower.
STARTS_PER_TARGET = 2

#: Seconds between two looks at the queue of answers, so that Ctrl-C is noticed.
_LOOK = 0.2


class StartGates:
    """At most `limit` starts at the same time on each host."""

    def __init__(self, limit: int = STARTS_PER_TARGET) -> None:
        self._lock = threading.Lock()
        self._gates: dict[str, threading.Semaphore] = defaultdict(lambda: threading.Semaphore(limit))

    def __call__(self, host: str) -> threading.Semaphore:
        with self._lock:
            return self._gates[host]


class Fleet:
    """Runs the moves of one operation.

    `parallel` of them are between their check and their start at the same time; a VM that is merely being
    watched on its target does not keep the next one waiting.
    """

    def __init__(
        self,
        moves: Sequence[Move],
        make: Callable[[Move, Gate], ColdMove],
        *,
        parallel: int,
        notify: Notify,
        interrupted: Callable[[], None],
    ) -> None:
        """`make` builds a move; `interrupted` is called at the first Ctrl-C, to tell the operator."""
        self._moves = list(moves)
        self._make = make
        self._parallel = max(1, parallel)
        self._notify = notify
        self._interrupted = interrupted
        self._gates = StartGates()
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Outcome | BaseException]] = queue.SimpleQueue()
        self._no_more = threading.Event()
        self._outcomes: dict[int, Outcome] = {}
        self._last: dict[int, Event] = {}

    @property
    def stopped_early(self) -> bool:
        """Whether the operator pressed Ctrl-C."""
        return self._no_more.is_set()

    def run(self) -> tuple[Outcome, ...]:
        """Carry them out; one outcome per move, in their order.

        The first Ctrl-C finishes the moves under way and begins no more (their outcome is "left"). The second
        raises Interrupted at once, saying where each VM was last seen.
        """
        for index, move in enumerate(self._moves):
            self._waiting.put(index)
            self._notify(Event(move.vm.name, Phase.WAITING, move.source, move.target))
        for _ in range(min(self._parallel, len(self._moves))):
            threading.Thread(target=self._work, name="move", daemon=True).start()
        while len(self._outcomes) < len(self._moves):
            try:
                self._collect()
            except KeyboardInterrupt:
                if self._no_more.is_set():
                    raise Interrupted(*self._where_they_are()) from None
                self._no_more.set()
                self._interrupted()
        return tuple(self._outcomes[i] for i in range(len(self._moves)))

    def _collect(self) -> None:
        try:
            index, answer = self._done.get(timeout=_LOOK)
        except queue.Empty:
            return
        if isinstance(answer, BaseException):
            raise answer
        self._outcomes[index] = answer

    def _work(self) -> None:
        while True:
            try:
                index = self._waiting.get_nowait()
            except queue.Empty:
                return
            move = self._moves[index]
            if self._no_more.is_set():
                self._notify(Event(move.vm.name, Phase.LEFT, move.source, move.target, "interrupted"))
                self._done.put((index, Outcome(move, "left", move.source, detail="not begun: interrupted")))
                continue
            try:
                carried = self._make(move, self._gates)
                outcome = carried.stop_and_start()
            except BaseException as error:  # handed to the main thread, which raises it
                self._done.put((index, error))
                return
            if outcome is not None:
                self._done.put((index, outcome))
            else:
                threading.Thread(
                    target=self._settle, args=(index, carried), name="settle", daemon=True
                ).start()

    def _settle(self, index: int, carried: ColdMove) -> None:
        try:
            self._done.put((index, carried.settle()))
        except BaseException as error:  # handed to the main thread, which raises it
            self._done.put((index, error))

    def note(self, index: int, event: Event) -> None:
        """Remember the last that was seen of a move."""
        self._last[index] = event

    def _where_they_are(self) -> tuple[str, str]:
        parts = []
        for index, move in enumerate(self._moves):
            if index in self._outcomes:
                continue
            event = self._last.get(index)
            phase = event.phase.value if event else Phase.WAITING.value
            parts.append(f"{move.vm.name} ({move.source} to {move.target}): {phase}")
        return (
            f"Interrupted with {len(parts)} moves unfinished: {'; '.join(parts)}.",
            "Run 'fab status' to see where each VM is; run the same command again to go on.",
        )
