"""Rounds: many threads that want to know, few questions, no answer older than its question."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping

import pytest

from tasks.cluster.asking.rounds import Round, Rounds
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed

WAIT = 20.0


class Hosts:
    """Answers each round with its number, as soon as it is let go on."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.go = threading.Semaphore(0)

    def ask(self, hosts: Collection[str]) -> Mapping[str, int]:
        self.asked.append(tuple(hosts))
        number = len(self.asked)
        assert self.go.acquire(timeout=WAIT)
        return dict.fromkeys(hosts, number)

    def until_asked(self, times: int) -> None:
        end = time.monotonic() + WAIT
        while len(self.asked) < times:
            assert time.monotonic() < end, f"asked {len(self.asked)} times only"
            time.sleep(0.01)


def in_threads(
    rounds: Rounds[int], *wanted: Collection[str]
) -> tuple[list[threading.Thread], list[Round[int]]]:
    answers: list[Round[int]] = []
    threads = [
        threading.Thread(target=lambda hosts=hosts: answers.append(rounds.ask(hosts)), daemon=True)
        for hosts in wanted
    ]
    for thread in threads:
        thread.start()
    return threads, answers


def test_who_comes_during_a_round_shares_the_next() -> None:
    hosts = Hosts()
    rounds = Rounds(hosts.ask, Clock())
    first, early = in_threads(rounds, ["a"])
    hosts.until_asked(1)
    asked_at = time.monotonic()
    others, late = in_threads(rounds, ["a", "b"], ["b", "c"], ["a", "d"])
    end = time.monotonic() + WAIT
    while rounds._gathering.hosts != set("abcd"):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert hosts.asked == [("a",)]
    hosts.go.release(2)
    for thread in first + others:
        thread.join(WAIT)
    assert hosts.asked == [("a",), ("a", "b", "c", "d")]
    assert early[0].answers == {"a": 1}
    assert [r.answers for r in late] == [dict.fromkeys("abcd", 2)] * 3
    # Theirs was asked after they had come.
    assert all(r.begun >= asked_at for r in late)


def test_what_goes_wrong_reaches_all_who_wait_and_nobody_else() -> None:
    calls = 0

    def ask(hosts: Collection[str]) -> Mapping[str, int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Failed("the first round went wrong")
        return dict.fromkeys(hosts, calls)

    rounds = Rounds(ask, Clock())
    with pytest.raises(Failed):
        rounds.ask(["a"])
    assert rounds.ask(["a"]).answers == {"a": 2}
