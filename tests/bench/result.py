"""What the benchmark finds: samples, rows of the table, budgets."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `met` is None where there is no budget, or where it could not be measured."""

    what: str
    vmfab: str
    compared: str = ""
    ratio: str = ""
    budget: str = ""
    met: bool | None = None


class BenchError(Exception):
    """Something that the benchmark needs did not work; the text says what."""


def median(samples: Sequence[float]) -> float:
    """The median. Raises BenchError when nothing was measured."""
    if not samples:
        raise BenchError("nothing was measured")
    return statistics.median(samples)


def seconds(samples: Sequence[float]) -> str:
    """Median of seconds, with the range when there are several samples."""
    if len(samples) == 1:
        return f"{_short(samples[0])} s"
    return f"{_short(median(samples))} s ({_short(min(samples))}-{_short(max(samples))}, n={len(samples)})"


def _short(value: float) -> str:
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def at_most(what: str, samples: Sequence[float], limit: float, compared: str = "") -> Row:
    """A row whose median must not exceed `limit` seconds."""
    return Row(what, seconds(samples), compared, "", f"at most {limit:g} s", median(samples) <= limit)


def times_as_long(
    what: str, samples: Sequence[float], base: Sequence[float], name: str, most: float | None = None
) -> Row:
    """A row that compares with a baseline; vmfab may take at most `most` times as long."""
    ratio = median(samples) / median(base)
    compared = f"{name}: {seconds(base)}"
    if most is None:
        return Row(what, seconds(samples), compared, f"{ratio:.2f} x")
    return Row(what, seconds(samples), compared, f"{ratio:.2f} x", f"at most {most:g} x", ratio <= most)


def times_as_fast(what: str, samples: Sequence[float], base: Sequence[float], name: str, least: float) -> Row:
    """A row that compares with a baseline; vmfab must be at least `least` times as fast."""
    ratio = median(base) / median(samples)
    compared = f"{name}: {seconds(base)}"
    budget = f"at least {least:g} x as fast"
    return Row(what, seconds(samples), compared, f"{ratio:.1f} x as fast", budget, ratio >= least)
