"""Definitions of one VM that differ between hosts: the next start elsewhere would be of another machine."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from shlex import quote

from tasks.cluster import domainxml
from tasks.cluster.audit.finding import Finding, fab, listed
from tasks.cluster.audit.seen import Seen
from tasks.cluster.model import Domain

#: Lines of a difference that are shown; the whole of it is one command away.
LINES = 6


def findings(seen: Seen) -> Iterator[Finding]:
    by_uuid: dict[str, list[Domain]] = defaultdict(list)
    by_name: dict[str, list[Domain]] = defaultdict(list)
    for d in seen.snapshot.domains():
        by_name[d.vm.name].append(d)
        if d.persistent and d.xml:
            by_uuid[d.vm.uuid].append(d)
    for same in by_uuid.values():
        if len(same) > 1:
            yield from _differing(same)
    for name, same in by_name.items():
        if len({d.vm.uuid for d in same}) > 1 and not _share_images(same):
            yield _two_of_one_name(seen, name, same)


def _share_images(same: Sequence[Domain]) -> bool:
    """Then it is more than a name that they share, and told as that."""
    return any(a.images & b.images for a in same for b in same if a.vm.uuid != b.vm.uuid)


def removals(seen: Seen, domains: Iterable[Domain]) -> Iterator[str]:
    """How those of these definitions are removed whose VM does not run."""
    for d in domains:
        running = seen.snapshot.where_running(d.vm)
        if not running:
            yield fab("vm.undefine", d.vm.uuid, hosts=[d.host])
        elif all(other.vm.uuid != d.vm.uuid for other in running):
            # To vmfab one name is one VM, which runs.
            yield f"On {d.host}: virsh undefine --keep-nvram {d.vm.uuid}"


def best_of(same: Sequence[Domain]) -> Domain:
    """The definition that counts: where it runs, else where it ran last."""
    return max(same, key=lambda d: (d.running, d.last_ran or 0.0))


def _differing(same: Sequence[Domain]) -> Iterator[Finding]:
    best = best_of(same)
    told: list[str] = []
    others = []
    for other in same:
        if other is best or not (lines := difference(other.xml, best.xml)):
            continue
        others.append(other.host)
        told.append(f"{other.host} (-) against {best.host} (+):")
        told += [f"  {line}" for line in lines[:LINES]]
        if len(lines) > LINES:
            told.append(f"  and {len(lines) - LINES} lines more")
    if not others:
        return
    name = best.vm.name
    file = quote(f"./{name}.xml" if name.startswith("-") else f"{name}.xml")
    why = "where it runs" if best.running else "where it ran last" if best.last_ran else "by chance the first"
    yield Finding(
        "drift",
        "definition",
        f"{name} is defined otherwise on {listed(others)} than on {best.host}, {why}.",
        (best.host, *others),
        (name,),
        tuple(told),
        (
            f"When that of {best.host} is right:",
            fab("vm.dumpxml", name, hosts=[best.host], more=f"--inactive --security-info > {file}"),
            *(fab("vm.define", hosts=[host], more=file) for host in others),
        ),
    )


def difference(old: str, new: str) -> list[str]:
    """The lines in which two definitions differ, "-" the old one's; passwords are told, not shown."""
    try:
        if domainxml.canonical(old) == domainxml.canonical(new):
            return []
        before, after = (domainxml.canonical(text, hide_secrets=True).splitlines() for text in (old, new))
    except ValueError as error:
        return [f"cannot be compared: {error}"]
    lines = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
    shown = [line[0] + line[1:].strip() for line in lines if not line.startswith("@@")]
    return shown or ["only their passwords differ"]


def _two_of_one_name(seen: Seen, name: str, same: Sequence[Domain]) -> Finding:
    return Finding(
        "drift",
        "two-uuids",
        f"{name} is the name of {len({d.vm.uuid for d in same})} VMs: to the law they are one, and "
        "only one of them starts.",
        tuple(dict.fromkeys(d.host for d in same)),
        (name,),
        tuple(f"UUID {d.vm.uuid} on {d.host}: {d.state}" for d in same),
        (
            "Remove the one that is not meant:",
            *removals(seen, same),
        ),
    )
