"""Show the benchmark's rows: as a table on the terminal, and as Markdown for README."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.result import Row

HEADS = ("measure", "vmfab", "compared with", "ratio", "budget", "met")


def _cells(row: Row) -> tuple[str, ...]:
    met = "" if not row.budget else "not measured" if row.met is None else "yes" if row.met else "NO"
    return row.what, row.vmfab, row.compared, row.ratio, row.budget, met


def show(console: Console, rows: Sequence[Row], notes: Sequence[str]) -> None:
    """Print the table, and the notes below."""
    table = Table(*HEADS, box=box.SIMPLE_HEAD)
    for row in rows:
        style = "red" if row.budget and not row.met else "green" if row.met else ""
        table.add_row(*(Text(cell) for cell in _cells(row)), style=style)
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)


def markdown(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The same as Markdown, with the notes below."""
    lines = [HEADS, ("---",) * len(HEADS), *map(_cells, rows)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "".join(f"\n{note}\n" for note in notes)
