"""Names made harmless, plain tables, sizes and durations."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cli.text import Table, clean, duration, plain, size, width


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("web-01", "web-01"),
        ("naïve Größe $x 'y'", "naïve Größe $x 'y'"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("line\nbreak\r", r"line\nbreak\r"),
        ("\u202edrow", r"\u202edrow"),
        ("c1\x9bm", r"c1\x9bm"),
        ("\udcff", r"\udcff"),
        ("日本", "日本"),
    ],
)
def test_clean(name: str, shown: str) -> None:
    assert clean(name) == shown


@given(st.text())
def test_what_is_clean_steers_no_terminal(name: str) -> None:
    shown = clean(name)
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)


def test_plain_table_keeps_names_whole_and_aligns() -> None:
    long = "x" * 120
    table = Table(("VM", "memory"), [(long, "1G"), ("日本", "118G")], right=frozenset({"memory"}))
    lines = plain(table).split("\n")
    assert lines[1] == f"{long}      1G"
    assert {width(line) for line in lines} == {128}


@given(st.lists(st.tuples(st.text(), st.text()), max_size=5))
def test_plain_table_has_one_line_per_row(rows: list[tuple[str, str]]) -> None:
    assert plain(Table(("a", "b"), rows)).count("\n") == len(rows)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0B"),
        (999, "999B"),
        (1024, "1K"),
        (1536, "1.5K"),
        (10 * 1024 - 1, "10K"),
        (999.9 * 1024, "1000K"),
        (118 << 30, "118G"),
        (1 << 40, "1T"),
        (5 << 60, "5120P"),
    ],
)
def test_size(number: float, shown: str) -> None:
    assert size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(8.2, "8 s"), (61, "1 min"), (7200, "2 h"), (86400 * 12 + 5, "12 d")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
