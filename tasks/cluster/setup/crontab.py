"""root's crontab, edited as text: one @reboot entry is there exactly once, all else stays byte for byte."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tasks.cluster.errors import Refused

#: An active entry that cron runs once after a boot. cron skips blanks before it.
_AT_REBOOT = re.compile(r"[ \t]*@reboot[ \t]+(?P<command>.*)")
#: What may stand around a program without changing that it is run once: a pause or a shell before it;
#: redirections and & behind it.
_BEFORE = r"(?:sleep[ \t]+\d+[smh]?[ \t]*(?:;|&&)[ \t]*)?(?:(?:/usr)?(?:/bin/)?(?:sh|bash|dash)[ \t]+)?"
_BEHIND = r"(?:[ \t]*(?:\d*>>?|&>>?)[ \t]*(?:&\d|[^\s;&|<>()`$%]+))*[ \t]*&?[ \t]*"


@dataclass(frozen=True, slots=True)
class Edited:
    """A crontab with the entry in it. `entry` is the line, as it was found or as it was added."""

    text: str
    entry: str


def with_reboot_entry(text: str, program: str) -> Edited:
    """Have `program` (an absolute path) run once after each boot.

    An entry that does so already is kept as it is, however it is spelled: with other blanks, redirections, a
    shell or a sleep before it. If there are several of them, the first stays. Without any, a line is added at
    the end. Raises Refused when an @reboot entry names the program (or one of that name elsewhere) within
    something that is not understood: it may do other things as well.
    """
    runs = re.compile(_BEFORE + re.escape(program) + _BEHIND)
    name = program.rpartition("/")[2]
    kept: list[str] = []
    entry = ""
    for line in _lines(text):
        active = _AT_REBOOT.fullmatch(line.rstrip("\r\n"))
        if active and runs.fullmatch(active["command"]):
            if entry:
                continue
            entry = line.rstrip("\r\n")
        elif active and name in active["command"]:
            raise Refused(
                f"root's crontab has an entry that is not understood: {line.strip()}",
                f"Make it '@reboot {program}' with crontab -e on the host, then try again.",
            )
        kept.append(line)
    if not entry:
        entry = f"@reboot {program}"
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept.append(f"{entry}\n")
    return Edited("".join(kept), entry)


def _lines(text: str) -> list[str]:
    """The lines with their ends; only a line feed ends one, as for cron."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)
