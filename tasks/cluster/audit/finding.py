"""A finding: how grave it is, what was seen, and what to type next."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from shlex import quote

#: breach: a VM runs twice or an image has two writers; danger: one more start, or a reboot, gets there;
#: unknown: could not be looked at; drift: not as it should be, and harmless until somebody relies on it.
SEVERITIES = ("breach", "danger", "unknown", "drift")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be. `kind` is a word for programs; each line of `advice` a step."""

    severity: str
    kind: str
    text: str
    hosts: tuple[str, ...] = ()
    vms: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def subject(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What it is about: the same in two looks when it has not gone away by itself."""
        return self.kind, self.hosts, self.vms


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Gravest first; otherwise in the order in which they were found."""
    return tuple(sorted(findings, key=lambda f: SEVERITIES.index(f.severity)))


def fab(task: str, *vms: str, hosts: Sequence[str] = (), more: str = "") -> str:
    """A command line of vmfab; a VM's name that begins with a dash is given by its flag."""
    words = ["fab", *(["-H", quote(",".join(hosts))] if hosts else []), task]
    words += [f"--vm={quote(name)}" if name.startswith("-") else quote(name) for name in vms]
    return " ".join([*words, more] if more else words)


def moment(epoch: float) -> str:
    """A moment in the laptop's time zone: "2026-11-20 14:05"; whatever a file says it is."""
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(epoch))
    except (OverflowError, ValueError, OSError):
        return f"{epoch:g} (no time at all)"


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: "a", "a and b", "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
