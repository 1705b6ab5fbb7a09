"""Flags that mean the same everywhere."""

from __future__ import annotations

import pytest

from tasks.cli import flags
from tasks.cluster.errors import Refused


@pytest.mark.parametrize(
    ("name", "given", "default", "value"),
    [
        ("parallel", "4", 1, 4),
        ("parallel", 4, 4, 4),
        ("timeout", "2.5", None, 2.5),
        ("timeout", None, None, None),
        ("size", "12", 3, 12),
        ("to", "12", "", "12"),
        ("yes", True, False, True),
    ],
)
def test_values_are_understood(name: str, given: object, default: object, value: object) -> None:
    understood = flags.understood(name, given, default)
    assert understood == value
    assert type(understood) is type(value)


@pytest.mark.parametrize(
    ("name", "given", "default"),
    [("parallel", v, 4) for v in ("0", "-1", "x", "1.5", "")]
    + [("timeout", v, None) for v in ("0", "-3", "inf", "nan", "3m", "")]
    + [("size", "big", 3)],
)
def test_nonsense_is_refused_with_the_name_of_the_flag(name: str, given: str, default: object) -> None:
    with pytest.raises(Refused, match=f"^--{name} wants .*number"):
        flags.understood(name, given, default)


def test_own_help_wins() -> None:
    found = flags.help_for({"yes": 1, "quick": 1, "other": 1}, {"quick": "Be quick.", "yes": "Dare."})
    assert found == {"yes": "Dare.", "quick": "Be quick."}
