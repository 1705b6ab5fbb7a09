"""Live lines on a terminal. Imports rich, and is therefore imported only when they are shown."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from tasks.cli.board import Board, Line, phase_words, sentence, spent, way
from tasks.cli.output import Output
from tasks.cli.text import clean
from tasks.cluster.clock import Clock
from tasks.cluster.events import Event, Notify, Phase

_GOOD = (Phase.MOVED, Phase.STARTED, Phase.REBOOTED, Phase.STOPPED)
_ENDS = {**dict.fromkeys(_GOOD, "green"), Phase.LEFT: "yellow"}


@contextmanager
def live_lines(output: Output, total: int, clock: Clock) -> Iterator[Notify]:
    """A line per VM under way that is drawn again and again, a line that stays for each that is done."""
    lines = LiveLines(total, clock)
    console: Console = output.console()
    live = Live(lines, console=console, refresh_per_second=4, transient=True, redirect_stdout=False)

    def notify(event: Event) -> None:
        if lines.take(event) and event.phase.final:
            live.console.print(Text(clean(sentence(event)), style=_ENDS.get(event.phase, "bold red")))

    with live, output.through(lambda text, style: live.console.print(Text(text, style=style))):
        yield notify


class LiveLines:
    """The lines as rich draws them; every drawing shows the latest."""

    def __init__(self, total: int, clock: Clock) -> None:
        self._total = total
        self._clock = clock
        self._board = Board()
        self._lock = threading.Lock()

    def take(self, event: Event) -> bool:
        """Take an event in; True when it is news."""
        with self._lock:
            return self._board.update(event, self._clock.monotonic())

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            now = self._clock.monotonic()
            active = self._board.active()
            room = max(1, options.size.height - 3)
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(12, options.max_width // 4))
            table.add_column(no_wrap=True, overflow="ellipsis")
            table.add_column(overflow="fold")
            for line in active[:room]:
                table.add_row(*self._cells(line, now))
            hidden = f", {len(active) - room} more under way" if len(active) > room else ""
            waiting = f", {self._board.waiting()} waiting" if self._board.waiting() else ""
            summary = f"{self._board.done()} of {self._total} done{waiting}{hidden}"
        yield table
        yield Text(summary, style="dim")

    def _cells(self, line: Line, now: float) -> tuple[Text, Text, Text]:
        event = line.event
        words = " ".join(part for part in (phase_words(event), spent(line, now)) if part)
        if event.detail:
            words += f" ({event.detail})"
        return Text(clean(event.vm), style="bold"), Text(clean(way(event))), Text(clean(words))
