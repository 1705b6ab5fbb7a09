"""Progress of many VMs at once, as lines of a log and on a terminal."""

from __future__ import annotations

import re
import threading
from datetime import datetime

import pytest

from tasks.cli.board import Board, sentence, spent
from tasks.cli.livelines import LiveLines
from tasks.cli.progress import HEARTBEAT, Log, progress
from tasks.cluster.clock import Clock
from tasks.cluster.events import Event, Phase

from .streams import captured


class HandClock(Clock):
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return datetime(2030, 1, 1, 12, 0, 0).timestamp() + self.time  # noqa: DTZ001  (local time is shown)

    def monotonic(self) -> float:
        return self.time


def event(phase: Phase, vm: str = "web", **more: object) -> Event:
    return Event(vm, phase, "vmhost1", "vmhost2", **more)  # type: ignore[arg-type]


def test_a_log_has_a_line_per_phase_and_a_sign_of_life() -> None:
    output, out, _ = captured()
    clock = HandClock()
    log = Log(output, clock)
    log(event(Phase.WAITING))
    log(event(Phase.SHUTTING_DOWN, limit=180.0))
    for second in range(1, 14):
        clock.time = float(second)
        log(event(Phase.SHUTTING_DOWN, waited=clock.time, limit=180.0))
        log.beat()
    log(event(Phase.SHUTTING_DOWN, waited=16.0, limit=180.0, detail="asked again"))
    log(event(Phase.SHUTTING_DOWN, waited=17.0, limit=180.0, detail="asked again"))
    log(event(Phase.STARTING))
    log(event(Phase.MOVED))
    clock.time += 2 * HEARTBEAT
    log.beat()
    assert out.getvalue().splitlines() == [
        "12:00:00 web: shutting down on vmhost1 (180 s at most)",
        "12:00:12 web: still shutting down on vmhost1, 12 s of 180 s",
        "12:00:13 web: shutting down on vmhost1 (180 s at most; asked again)",
        "12:00:13 web: starting on vmhost2",
        "12:00:13 web: moved from vmhost1 to vmhost2",
    ]


def test_events_from_many_threads_make_whole_lines() -> None:
    output, out, _ = captured()
    with progress(output, 20) as notify:

        def all_phases(vm: str) -> None:
            for phase in Phase:
                notify(event(phase, vm))

        threads = [threading.Thread(target=all_phases, args=[f"vm{n}"]) for n in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = out.getvalue().splitlines()
    assert len(lines) == 20 * (len(Phase) - 1)
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d vm\d+: \S.*", line) for line in lines)


def test_words_of_a_failure_tell_why() -> None:
    assert sentence(event(Phase.FAILED, detail="no room")) == "web: failed (no room)"
    alone = Event("web", Phase.STARTING, source="vmhost1")
    assert sentence(alone) == "web: starting on vmhost1"


def test_time_spent_grows_without_events() -> None:
    board = Board()
    board.update(event(Phase.PROVING), 100.0)
    (line,) = board.active()
    assert spent(line, 100.5) == ""
    assert spent(line, 107.0) == "7 s"


def drawn(lines: LiveLines, height: int = 24) -> str:
    from rich.console import Console

    console = Console(width=80, height=height, force_terminal=True, no_color=True, legacy_windows=False)
    with console.capture() as capture:
        console.print(lines)
    return re.sub(r"\x1b\[[0-9;]*m", "", capture.get())


def test_live_lines_show_who_is_under_way() -> None:
    clock = HandClock()
    lines = LiveLines(3, clock)
    lines.take(event(Phase.WAITING, "later"))
    lines.take(event(Phase.MOVED, "done"))
    lines.take(event(Phase.SHUTTING_DOWN, "[red]web\x1b", limit=180.0))
    clock.time = 12.0
    text = drawn(lines)
    assert r"[red]web\x1b" in text
    assert "vmhost1 → vmhost2" in text
    assert "shutting down on vmhost1 12 s of 180 s" in text
    assert "1 of 3 done, 1 waiting" in text


def test_live_lines_never_outgrow_the_terminal() -> None:
    lines = LiveLines(40, HandClock())
    for number in range(40):
        lines.take(event(Phase.STARTING, f"vm{number}"))
    text = drawn(lines, height=10)
    assert len(text.splitlines()) <= 10
    assert "33 more under way" in text


def test_on_a_terminal_what_is_done_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    output, out, _ = captured(terminal=True)
    with progress(output, 1, clock=HandClock()) as notify:
        notify(event(Phase.STARTING))
        output.warn("Interrupted")
        notify(event(Phase.MOVED))
        notify(event(Phase.MOVED))
    assert out.getvalue().count("web: moved from vmhost1 to vmhost2") == 1
    assert "Interrupted" in out.getvalue()
    output.say("after")
    assert out.getvalue().endswith("after\n")
