"""Tables on a terminal. Imports rich, and is therefore imported only when one is drawn."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from tasks.cli.text import Table, clean


def draw(table: Table, console: Console) -> None:
    """Print a table; where it is too wide, long names are folded, columns in `fixed` never."""
    drawn = RichTable(
        title=Text(table.title, style="bold") if table.title else None,
        title_justify="left",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
        header_style="bold underline",
    )
    for name in table.columns:
        drawn.add_column(
            Text(name),
            justify="right" if name in table.right else "left",
            no_wrap=name in table.fixed or name in table.right,
            overflow="fold",
        )
    for row, style in zip_longest(table.rows, table.styles[: len(table.rows)], fillvalue=""):
        # Text, not str: a name such as "[red]" is a name and no markup.
        drawn.add_row(*(Text(clean(cell)) for cell in row), style=str(style) or None)
    console.print(drawn)
