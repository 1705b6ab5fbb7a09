"""What does not fit together about practice guests is found."""

from __future__ import annotations

from dataclasses import replace

from tasks.lab.evidence import Standing, doubts

WEB = Standing("vmhost1", boots=1, counter=40, starts=1)
DB = Standing("vmhost2", boots=1, counter=50, starts=1)
BEFORE = {"web": WEB, "db": DB}
AFTER = {"web": replace(WEB, boots=3, counter=90, starts=3), "db": replace(DB, counter=130)}
MOVES = {"web": 2}


def test_one_boot_per_move_and_growing_counters_are_good() -> None:
    assert doubts(BEFORE, AFTER, MOVES) == []


def test_a_counter_that_stands_still_is_found() -> None:
    wrong = {**AFTER, "db": replace(DB, counter=50)}
    assert doubts(BEFORE, wrong, MOVES) == ["db: its counter stood at 50 and stands at 50"]


def test_a_boot_or_start_that_no_move_explains_is_found() -> None:
    wrong = {**AFTER, "db": replace(DB, boots=2, counter=130, starts=2)}
    assert doubts(BEFORE, wrong, MOVES) == [
        "db: moved 0 times, but its disk tells of 1 boots",
        "db: moved 0 times, but started 1 times",
    ]


def test_a_move_without_a_boot_is_found() -> None:
    wrong = {**AFTER, "web": replace(WEB, boots=2, counter=90, starts=3)}
    assert doubts(BEFORE, wrong, MOVES) == ["web: moved 2 times, but its disk tells of 1 boots"]
