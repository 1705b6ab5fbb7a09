"""How mistakes in a configuration file are told: where, what, and what to do about it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tasks.cluster.errors import Refused

#: More are counted, not shown.
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong on a line (0: with the file as a whole) and the remedy, without the last full stop."""

    line: int
    what: str
    remedy: str


class Unreadable(ValueError):
    """Some text makes no sense: what is wrong, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def refusal(file: str, mistakes: Sequence[Mistake]) -> Refused:
    """Tell all mistakes of a file at once: one as a sentence, several as a list that says how many."""
    if len(mistakes) == 1:
        (one,) = mistakes
        place = f"{file}:{one.line}" if one.line else file
        return Refused(f"{place}: {one.what}.", _ended(one.remedy))
    lines = [f"{file} has {len(mistakes)} mistakes:"]
    for mistake in sorted(mistakes, key=lambda m: m.line)[:MOST_SHOWN]:
        place = f"line {mistake.line}: " if mistake.line else ""
        lines.append(f"  {place}{mistake.what}. {_ended(mistake.remedy)}")
    if len(mistakes) > MOST_SHOWN:
        lines.append(f"  ... and {len(mistakes) - MOST_SHOWN} more.")
    return Refused("\n".join(lines))


def _ended(sentence: str) -> str:
    return sentence if sentence.endswith("?") else f"{sentence}."


def quoted(text: str) -> str:
    """Show text from a file: in quotes, control characters escaped, shortened."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def named(name: str) -> str:
    """Show a name from a file: without quotes if it is an ordinary one."""
    return name if re.fullmatch(r"[\w.-]{1,60}", name) else quoted(name)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was probably meant to be, or nothing."""
    return next(iter(near(name, known, 1)), "")


def near(name: str, known: Iterable[str], most: int) -> list[str]:
    """The known names most like `name`, the likeliest first; capital letters or not makes no difference."""
    spelled: dict[str, list[str]] = {}
    for one in known:
        spelled.setdefault(one.lower(), []).append(one)
    close = difflib.get_close_matches(name[:100].lower(), list(spelled), n=most)
    return [one for lowered in close for one in spelled[lowered]][:most]
