"""A question to hosts, asked once for all threads that want to know at that moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tasks.cluster.clock import Clock

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Round(Generic[A]):
    """What hosts answered; `begun` is the clock's monotonic moment before the first of them was asked."""

    answers: Mapping[str, A]
    begun: float


@dataclass(slots=True)
class _Gathering(Generic[A]):
    hosts: set[str] = field(default_factory=set)
    round: Round[A] | None = None
    error: BaseException | None = None


class Rounds(Generic[A]):
    """Asks one round after another; who comes while one is under way gets the next, together with others.

    No answer is older than the call that it answers: a round begins only after all its callers have asked.
    """

    def __init__(self, ask: Callable[[Collection[str]], Mapping[str, A]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way = threading.Lock()
        self._gathering: _Gathering[A] = _Gathering()

    def ask(self, hosts: Collection[str]) -> Round[A]:
        """The answers of these hosts, perhaps of more. Raises what `ask` raises."""
        with self._lock:
            mine = self._gathering
            mine.hosts.update(hosts)
        with self._under_way:
            if mine.round is None and mine.error is None:
                self._begin(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.round is not None
        return mine.round

    def _begin(self, gathered: _Gathering[A]) -> None:
        with self._lock:
            self._gathering = _Gathering()
        begun = self._clock.monotonic()
        try:
            gathered.round = Round(self._ask(sorted(gathered.hosts)), begun)
        except BaseException as error:  # raised again in every thread that waits for this round
            gathered.error = error
