"""Text for people: names that cannot harm a terminal, and tables as plain lines."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

#: Unicode categories that can steer a terminal or hide what a name is: control, format, surrogate, line ends.
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

#: The last line of a dry run.
DRY = "Dry run: nothing was changed."


def clean(text: str) -> str:
    """Make every character visible: a VM's name must not be able to steer the terminal."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii") if unicodedata.category(c) in _STEERING else c
        for c in text
    )


def block(text: str) -> str:
    """As `clean`, for a text of several lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


@dataclass(frozen=True, slots=True)
class Table:
    """Columns and rows of text. `right` names the columns of numbers, `fixed` those never shortened."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    right: frozenset[str] = frozenset()
    fixed: frozenset[str] = frozenset()
    #: a style per row, from rich's words ("red", "bold yellow", "dim"); shown only where there is colour
    styles: Sequence[str] = field(default=())


def width(text: str) -> int:
    """Columns of a terminal that a text takes: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 for c in text)


def plain(table: Table) -> str:
    """A table as aligned lines without any control character; cells are kept whole."""
    lines = [[clean(c).upper() for c in table.columns], *([clean(c) for c in row] for row in table.rows)]
    widths = [max(width(line[i]) for line in lines) for i in range(len(table.columns))]
    texts = [table.title] if table.title else []
    for line in lines:
        cells = []
        for name, cell, wide in zip(table.columns, line, widths, strict=True):
            gap = " " * (wide - width(cell))
            cells.append(gap + cell if name in table.right else cell + gap)
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def size(number: float) -> str:
    """Bytes for people, in binary units and at most five characters: "512M", "1.5G", "118G"."""
    for unit in "BKMGTP":
        if number < 1000 or unit == "P":
            break
        number /= 1024
    return f"{number:.1f}{unit}" if number < 9.95 and unit != "B" and number % 1 else f"{number:.0f}{unit}"


def duration(seconds: float) -> str:
    """A length of time for people, in its largest unit: "12 d", "3 h", "5 min", "8 s"."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def moment(epoch: float) -> str:
    """A moment in the laptop's time zone: "2026-11-20 14:05"."""
    return f"{datetime.fromtimestamp(epoch).astimezone():%Y-%m-%d %H:%M}"
