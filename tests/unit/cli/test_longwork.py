"""What a host tells while it is at long work: a line now and then, and none that harms."""

from __future__ import annotations

import io

from tasks.cli.longwork import EVERY, LongWork
from tasks.cli.output import Output, Stream
from tasks.cluster.clock import Clock


class Hands(Clock):
    """A clock that is moved by hand."""

    at = 100.0

    def monotonic(self) -> float:
        return self.at


def test_a_line_now_and_then_for_each_host() -> None:
    clock, out = Hands(), io.StringIO()
    work = LongWork(Output(Stream(out), Stream(io.StringIO())), clock)
    for second in range(30):
        clock.at = 100.0 + second
        work("a", f"at {second}")
        if second > 20:
            work("b", f"at {second}")
    assert out.getvalue().splitlines() == ["a: at 5", "a: at 15", "a: at 25", "b: at 26"]


def test_a_line_is_harmless_and_short() -> None:
    clock, out = Hands(), io.StringIO()
    work = LongWork(Output(Stream(out), Stream(io.StringIO())), clock)
    work("a", "")
    clock.at += EVERY
    work("a", "\x1b[2J" + "x" * 500)
    (line,) = out.getvalue().splitlines()
    assert line.startswith("a: \\x1b[2Jxxx")
    assert len(line) < 120
