"""The flags that mean the same in every task: their help, and what a value may look like."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from tasks.cluster.errors import Refused

HELP: Mapping[str, str] = {
    "allow_local_iso": "Go on although a CD or floppy stays behind on the source.",
    "allow_macvtap": "Go on although it cannot be seen whether the target has the macvtap device.",
    "allow_shared_image": "Go on although another definition, which is off, names the same image.",
    "all": "Show also what is shut off.",
    "confirm": "The host's name once more, instead of typing it at the question.",
    "dry_run": "Print what would be done; change nothing.",
    "ignore_apart": "Put VMs together that hosts.ini wants apart.",
    "ignore_reserve": "Use the memory that hosts.ini keeps for the host itself.",
    "exclude": "Leave these VMs out: names or patterns, comma-separated; may be repeated.",
    "json": "Print one JSON document on standard output; everything else goes to standard error.",
    "no_destroy": "Never destroy: a VM that does not shut down in time is left running where it is.",
    "only": "Only these VMs: names or patterns, comma-separated; may be repeated.",
    "parallel": "At most so many VMs at once (a number; 4 unless given).",
    "partial": "Go on although some VMs fit nowhere; leave those where they are and say so.",
    "timeout": "Seconds that a VM gets for its shutdown (what hosts.ini says, 180 unless it does).",
    "to": "Where to: a host, or several with commas where that makes sense; otherwise the best is picked.",
    "undefine_source": "Remove the definition from the source after a good move (it is kept otherwise).",
    "vm": "VMs: names, patterns like 'web*' or UUIDs; comma-separated.",
    "yes": "Do not ask.",
}

#: Flags that may be given several times; the body gets a list.
REPEATABLE = frozenset({"only", "exclude"})


def count(text: str) -> int:
    """A whole number from 1 on. Raises ValueError."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def seconds(text: str) -> float:
    """A number of seconds above 0. Raises ValueError."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise ValueError
    return number


#: flag -> (parser, what it wants in words)
PARSERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "hosts": (int, "a number"),
    "limit": (count, "a whole number from 1 on"),
    "parallel": (count, "a whole number from 1 on"),
    "timeout": (seconds, "a number of seconds above 0"),
    "vms": (int, "a number"),
}


def understood(name: str, value: Any, default: Any) -> Any:
    """Turn the text given for a flag into its value.

    By the flag's own parser when it is one of PARSERS, else by the type of the default. Raises Refused.
    """
    if not isinstance(value, str):
        return value
    if name in PARSERS:
        parse, wish = PARSERS[name]
    elif type(default) in (int, float):
        parse, wish = type(default), "a number"
    else:
        return value
    try:
        return parse(value)
    except ValueError:
        flag = name.replace("_", "-")
        raise Refused(f"--{flag} wants {wish}, not {value!r}.") from None


def help_for(parameters: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
    """The help of a task's parameters: its own words first, else those that are the same everywhere."""
    return {name: own.get(name, HELP.get(name, "")) for name in parameters if name in own or name in HELP}
