"""The engine behind drain and vm.*: places, rests, and what Ctrl-C means."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from tasks.cluster.errors import Interrupted
from tasks.cluster.moving.batch import Batch, Rest

WAIT = 20.0


def batch(
    work: Callable[[int], str | Rest[str]],
    *,
    items: int = 4,
    parallel: int = 2,
    told: list[str] | None = None,
) -> Batch[int, str]:
    heard = told if told is not None else []
    return Batch(
        range(items),
        work,
        parallel=parallel,
        left=lambda item: f"left {item}",
        describe=lambda item: f"item {item}",
        interrupted=lambda: heard.append("interrupted"),
    )


def press(after: threading.Event, times: int = 1) -> None:
    """Ctrl-C in the main thread once `after` is set."""

    def body() -> None:
        assert after.wait(WAIT)
        for _ in range(times):
            time.sleep(0.5)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    threading.Thread(target=body, daemon=True).start()


def test_results_keep_the_order() -> None:
    assert batch(lambda item: f"done {item}").run() == ("done 0", "done 1", "done 2", "done 3")


def test_never_more_than_parallel_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0
    together = threading.Barrier(3)

    def work(item: int) -> str:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(WAIT)
        with lock:
            now -= 1
        return ""

    batch(work, items=12, parallel=3).run()
    assert most == 3


def test_a_rest_gives_its_place_away() -> None:
    begun = threading.Event()

    def work(item: int) -> str | Rest[str]:
        if item == 1:
            begun.set()
            return "one"

        def finish() -> str:
            assert begun.wait(WAIT), "the next item never got the place"
            return "zero"

        return Rest(finish)

    assert batch(work, items=2, parallel=1).run() == ("zero", "one")


@pytest.mark.parametrize("in_rest", [False, True])
def test_a_bug_in_the_work_reaches_the_caller(in_rest: bool) -> None:
    def fail() -> str:
        raise RuntimeError("bug")

    with pytest.raises(RuntimeError, match="bug"):
        batch(lambda item: Rest(fail) if in_rest else fail()).run()


def test_first_ctrl_c_finishes_what_is_under_way_and_begins_no_more() -> None:
    begun, told = threading.Event(), list[str]()

    def work(item: int) -> str:
        begun.set()
        while not told:
            time.sleep(0.01)
        return f"done {item}"

    press(begun)
    carried = batch(work, parallel=1, told=told)
    assert carried.run() == ("done 0", "left 1", "left 2", "left 3")
    assert told == ["interrupted"]
    assert carried.stopped_early


def test_second_ctrl_c_stops_now_and_names_what_is_open() -> None:
    begun, over = threading.Event(), threading.Event()

    def work(item: int) -> str:
        begun.set()
        over.wait(WAIT)
        return ""

    press(begun, times=2)
    with pytest.raises(Interrupted, match="item 0; item 1") as caught:
        batch(work, items=2, parallel=2).run()
    over.set()
    assert caught.value.code == 130


def test_a_second_ctrl_c_while_the_first_is_being_told_stops_as_well() -> None:
    begun, over = threading.Event(), threading.Event()

    def work(item: int) -> str:
        begun.set()
        over.wait(WAIT)
        return ""

    def told() -> None:
        raise KeyboardInterrupt

    made = Batch([0], work, parallel=1, left=str, describe=lambda item: f"item {item}", interrupted=told)
    press(begun)
    with pytest.raises(Interrupted, match="1 unfinished: item 0") as caught:
        made.run()
    over.set()
    assert "fab resume" in caught.value.hint


def test_the_next_items_are_prepared_while_the_first_are_worked_on() -> None:
    prepared: list[int] = []
    two = threading.Event()

    def prepare(item: int) -> None:
        prepared.append(item)
        if len(prepared) == 2:
            two.set()

    def work(item: int) -> str:
        assert item in prepared
        if item == 0:
            assert two.wait(WAIT), "nothing was prepared ahead"
        return f"done {item}"

    made: Batch[int, str] = Batch(
        range(5),
        work,
        parallel=1,
        left=lambda item: f"left {item}",
        describe=str,
        interrupted=lambda: None,
        prepare=prepare,
    )
    assert made.run() == tuple(f"done {item}" for item in range(5))
    assert sorted(prepared) == list(range(5))


def test_nothing_more_is_prepared_after_ctrl_c() -> None:
    prepared: list[int] = []
    begun, told = threading.Event(), threading.Event()

    def work(item: int) -> str:
        begun.set()
        assert told.wait(WAIT)
        return f"done {item}"

    made: Batch[int, str] = Batch(
        range(9),
        work,
        parallel=2,
        left=lambda item: f"left {item}",
        describe=str,
        interrupted=told.set,
        prepare=prepared.append,
    )
    press(begun)
    assert made.run() == ("done 0", "done 1", *(f"left {item}" for item in range(2, 9)))
    assert sorted(prepared) == [0, 1, 2, 3]
