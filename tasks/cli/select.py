"""The VMs that an operator names: exact names, patterns, UUIDs, several with commas."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from tasks.cluster.errors import Refused
from tasks.cluster.inventory.mistakes import named, near, nearest
from tasks.cluster.model import Snapshot, Vm

_PATTERN = re.compile(r"[*?\[]")


def natural(name: str) -> list[tuple[int, int, str]]:
    """A key that sorts web-2 before web-10."""
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name) if p]


def select(
    snapshot: Snapshot, typed: str | Iterable[str], *, hosts: Sequence[str] = (), running: bool = False
) -> tuple[Vm, ...]:
    """Turn what was typed into VMs of the snapshot, each once, in the order typed; patterns sort by name.

    An exact name always wins over its reading as a pattern (a VM may be called `web[1]`) or as a list (or
    `a,b`). With `hosts` only VMs of these hosts count, with `running` only those that run.
    Raises Refused for every name or pattern that fits nothing, with the nearest names, and for a name that
    stands for definitions of different UUIDs.
    """
    everywhere = [d for d in snapshot.domains() if not hosts or d.host in hosts]
    candidates = dict.fromkeys(d.vm for d in everywhere if d.running or not running)
    chosen: dict[Vm, None] = {}
    wrong: list[str] = []
    for text in [typed] if isinstance(typed, str) else typed:
        for part in _parts(text, {vm.name for vm in candidates}):
            found = _meant(part, candidates)
            if not found:
                wrong.append(part)
            chosen.update(dict.fromkeys(found))
    if wrong:
        raise _none(wrong, snapshot, candidates, hosts, running=running)
    if not chosen:
        raise Refused("No VM is named.", "Name one, several with commas, or a pattern like 'web*'.")
    _refuse_ambiguous(tuple(chosen), snapshot)
    return tuple(chosen)


def _parts(text: str, names: set[str]) -> list[str]:
    """Split at commas, except where several pieces together are the exact name of a VM (the longest wins)."""
    if text in names:
        return [text]
    pieces = text.split(",")
    most = 1 + max((name.count(",") for name in names), default=0)
    parts: list[str] = []
    start = 0
    while start < len(pieces):
        for end in range(min(len(pieces), start + most), start, -1):
            joined = ",".join(pieces[start:end])
            fits = next((form for form in (joined, joined.strip()) if form in names), None)
            if fits is None and end == start + 1:
                fits = joined.strip()
            if fits is not None:
                break
        if fits:
            parts.append(fits)
        start = end
    return parts


def _meant(part: str, candidates: Iterable[Vm]) -> list[Vm]:
    """The VMs that one piece stands for: an exact name, else a UUID, else a pattern."""
    found = [vm for vm in candidates if vm.name == part] or [
        vm for vm in candidates if vm.uuid.lower() == part.lower()
    ]
    if not found and _PATTERN.search(part):
        found = sorted(
            (vm for vm in candidates if fnmatchcase(vm.name, part)), key=lambda vm: natural(vm.name)
        )
    return found


def _none(
    wrong: Sequence[str], snapshot: Snapshot, candidates: Iterable[Vm], hosts: Sequence[str], *, running: bool
) -> Refused:
    patterns = [part for part in wrong if _PATTERN.search(part)]
    exact = [part for part in wrong if part not in patterns]
    where = f" on {', '.join(hosts)}" if hosts else ""
    what = []
    if exact:
        kind = "is running" if running else "is there"
        what.append(f"No VM called {' or '.join(named(part) for part in exact)} {kind}{where}.")
    if patterns:
        kind = "running VM" if running else "VM"
        what.append(f"No {kind}{where} fits {' or '.join(repr(part) for part in patterns)}.")
    return Refused(" ".join(what), _advice(exact, snapshot, candidates, hosts, running=running))


def _advice(
    exact: Sequence[str], snapshot: Snapshot, candidates: Iterable[Vm], hosts: Sequence[str], *, running: bool
) -> str:
    """What else may explain that nothing was found; the likeliest first."""
    names = [vm.name for vm in candidates]
    close = [nearest(part, names) for part in exact] if len(exact) > 1 else near("".join(exact), names, 3)
    meant = " or ".join(named(name) for name in dict.fromkeys(close) if name)
    rather = f"Did you mean {meant}?" if meant else ""
    unsure = [s.host for s in snapshot.unsure() if not hosts or s.host in hosts]
    if unsure:
        may = f"It may be on {', '.join(unsure)}, whose VMs are not known now: see fab status."
        return f"{rather} {may}".strip()
    elsewhere = [d for d in snapshot.domains() if d.vm.name in exact]
    on = sorted({d.host for d in elsewhere if d.running})
    if hosts and on:
        return f"It runs on {', '.join(on)}."
    if running and elsewhere:
        return f"It is off, defined on {', '.join(sorted({d.host for d in elsewhere}))}."
    return rather or "fab status shows the VMs."


def _refuse_ambiguous(chosen: Sequence[Vm], snapshot: Snapshot) -> None:
    names = [vm.name for vm in chosen]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            each = [
                f"{vm.uuid} on {', '.join(d.host for d in snapshot.domains() if d.vm == vm)}"
                for vm in chosen
                if vm.name == name
            ]
            raise Refused(
                f"{named(name)} is the name of different definitions: {'; '.join(each)}.",
                "Give the UUID of the one that is meant.",
            )
