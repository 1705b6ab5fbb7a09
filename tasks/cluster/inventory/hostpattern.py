"""Host patterns of Ansible's inventories: `vmhost[01:04]-[a:c]:2222` to names and a port."""

from __future__ import annotations

import re
import string
from itertools import product
from math import prod

from tasks.cluster.inventory.mistakes import Unreadable, quoted

#: More hosts than this from one line are taken for a slip of the finger.
MOST_HOSTS = 4096

# Where Ansible looks for a port, and what must be left of it so that it is one.
_BRACKETED_PORT = re.compile(r"\[(.+)\]:([0-9]+)")
_PLAIN_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]+)")
_RANGE = r"\[(?:[a-z]:[a-z]|[0-9]+:[0-9]+)(?::[0-9]+)?\]"
_LABEL = rf"(?:\w|{_RANGE})(?:[\w-]|{_RANGE})*(?<![_-])"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.IGNORECASE)
_IPV6 = re.compile(r"[0-9a-f:]*:[0-9a-f:.]*", re.IGNORECASE)

_SEQUENCE = re.compile(r"([0-9]*|[A-Za-z]):([0-9]+|[A-Za-z])(?::([0-9]+))?")


def expand(pattern: str) -> tuple[list[str], str | None]:
    """Give the names that a pattern stands for, in Ansible's order, and the port if it has one.

    Raises Unreadable also where Ansible would expand something to no host at all.
    """
    name, port = pattern, None
    for form in (_BRACKETED_PORT, _PLAIN_PORT):
        if match := form.fullmatch(name):
            name, port = match.groups()
    if port is not None and not (_NAME.fullmatch(name) or _IPV6.fullmatch(name)):
        name, port = pattern, None
    if name == "---":
        raise Unreadable("'---' begins a YAML file", "Write the inventory in Ansible's INI format")
    if not name or (port is None and name.endswith(":")):
        raise Unreadable(f"{quoted(pattern)} is not a host", "Write a host's name, or name:port")
    if "[" not in name:
        return [name], port
    parts = re.split(r"\[([^\[\]]*)\]", name)
    if any(character in "[]|" for part in parts[::2] for character in part):
        raise Unreadable(f"{quoted(pattern)} is neither a host nor a section", "Write [name] or host[1:4]")
    ranges = [_sequence(text) for text in parts[1::2]]
    if prod(map(len, ranges)) > MOST_HOSTS:
        raise _too_many(pattern)
    pieces = [[part] if i % 2 == 0 else ranges[i // 2] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*pieces)], port


def _sequence(text: str) -> list[str]:
    """Expand what stands between brackets: begin:end or begin:end:step, numbers or single letters."""
    wrong = f"{quoted(f'[{text}]')} is not a range"
    match = _SEQUENCE.fullmatch(text)
    if not match or match[1].isalpha() != match[2].isalpha():
        raise Unreadable(wrong, "Write for example [1:4], [01:10:2] or [a:f]")
    begin, end, step = match[1] or "0", match[2], match[3] or "1"
    if max(len(begin), len(end), len(step)) > 9:
        raise Unreadable(wrong, "Its numbers are too large")
    if int(step) == 0:
        raise Unreadable(wrong, "Its step is 0; write 1 or more")
    if begin.isalpha():
        letters = string.ascii_letters
        found = list(letters[letters.index(begin) : letters.index(end) + 1 : int(step)])
    else:
        padded = begin[0] == "0" and len(begin) > 1
        if padded and len(begin) != len(end):
            raise Unreadable(wrong, "With leading zeros both ends need the same number of digits")
        numbers = range(int(begin), int(end) + 1, int(step))
        if len(numbers) > MOST_HOSTS:
            raise _too_many(text)
        found = [str(number).zfill(len(begin)) if padded else str(number) for number in numbers]
    if not found:
        raise Unreadable(wrong, "It runs backwards; swap its ends")
    return found


def _too_many(text: str) -> Unreadable:
    return Unreadable(f"{quoted(text)} stands for too many hosts", f"Stay below {MOST_HOSTS} a line")
