"""The law itself: a VM on two hosts, an image with two writers, and definitions that would lead there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from tasks.cluster.audit.definitions import removals
from tasks.cluster.audit.finding import Finding, fab, listed
from tasks.cluster.audit.owners import arriving
from tasks.cluster.audit.seen import Seen, written_now
from tasks.cluster.model import Domain, Vm, evidence_of
from tasks.cluster.overview import stray_processes, vm_lines

#: A VM as somebody who may write an image: UUID, name, host.
_Who = tuple[str, str, str]


def findings(seen: Seen) -> Iterator[Finding]:
    yield from _running_twice(seen)
    written = _writers(seen)
    yield from _written_twice(seen, written)
    yield from _shared(seen, {frozenset(_vms(who)) for who in written.values()})
    yield from _written_bases(seen)
    yield from _strays(seen)


def _running_twice(seen: Seen) -> Iterator[Finding]:
    under_way = arriving(seen)
    for line in vm_lines(seen.snapshot):
        if len(line.running_on) < 2 or (line.vm.uuid, frozenset(line.running_on)) in under_way:
            continue
        yield Finding(
            "breach",
            "runs-twice",
            f"{line.vm.name} RUNS ON {len(line.running_on)} HOSTS: {', '.join(line.running_on)}. "
            "Both write its image.",
            line.running_on,
            (line.vm.name,),
            tuple(_traces(seen, line.vm, line.running_on)),
            (
                "Decide at once which of them is the good one, and stop the others:",
                *(fab("vm.destroy", line.vm.name, hosts=[host]) for host in line.running_on),
            ),
        )


def _traces(seen: Seen, vm: Vm, hosts: Iterable[str]) -> Iterator[str]:
    for facts in seen.snapshot.facts():
        if facts.host in hosts:
            yield from (f"{found.host}: {found.what}" for found in evidence_of(vm, frozenset(), facts))


def _writers(seen: Seen) -> dict[str, set[_Who]]:
    """Who has each image open for writing now."""
    found: dict[str, set[_Who]] = defaultdict(set)
    for facts in seen.snapshot.facts():
        for d in facts.domains:
            for key in written_now(d, facts) if d.running else ():
                found[key].add((d.vm.uuid, d.vm.name, facts.host))
        for p in stray_processes(facts):
            for key in p.images:
                found[key].add((p.uuid, p.name or f"qemu process {p.pid}", facts.host))
    return found


def _vms(who: Iterable[_Who]) -> set[str]:
    return {uuid or name for uuid, name, _ in who}


def _written_twice(seen: Seen, written: dict[str, set[_Who]]) -> Iterator[Finding]:
    together: dict[tuple[_Who, ...], list[str]] = defaultdict(list)
    for key, who in written.items():
        # One VM that runs twice is another finding.
        if len({name for _, name, _ in who}) > 1 and len(_vms(who)) > 1:
            together[tuple(sorted(who, key=lambda w: (w[1], w[2])))].append(key)
    for group, keys in together.items():
        yield Finding(
            "breach",
            "image-twice",
            f"ONE IMAGE IS WRITTEN BY TWO VMS: {listed(f'{name} on {host}' for _, name, host in group)}.",
            tuple(dict.fromkeys(host for _, _, host in group)),
            tuple(dict.fromkeys(name for _, name, _ in group)),
            tuple(sorted(seen.path_of(key) for key in keys)),
            (
                "Decide at once which of them is the good one, and stop the others:",
                *(fab("vm.destroy", name, hosts=[host]) for _, name, host in group),
            ),
        )


def _shared(seen: Seen, told: set[frozenset[str]]) -> Iterator[Finding]:
    """Definitions of different VMs that may write one image, unless they do so right now (`told`)."""
    users = _users(seen)
    together: dict[frozenset[str], list[str]] = defaultdict(list)
    for key, domains in users.items():
        uuids = frozenset(d.vm.uuid for d in domains)
        if len(uuids) > 1 and not any(len(t) > 1 and t <= uuids for t in told):
            together[uuids].append(key)
    for keys in together.values():
        named = sorted({d for key in keys for d in users[key]}, key=lambda d: (d.vm.name, d.host))
        names = tuple(dict.fromkeys(d.vm.name for d in named))
        which = f"{listed(names)} name" if len(names) > 1 else f"{names[0]} has two UUIDs, which name"
        yield Finding(
            "danger",
            "shared-image",
            f"{which} the same image for writing: if two of them ever run at once, it is destroyed.",
            tuple(dict.fromkeys(d.host for d in named)),
            names,
            (
                *(f"image {seen.path_of(key)}" for key in sorted(keys)),
                *(f"{d.vm.name} (UUID {d.vm.uuid}) on {d.host}: {d.state}" for d in named),
            ),
            (
                "Remove the definition that is not meant, or mark the disk <shareable/> in both:",
                *removals(seen, named),
            ),
        )


def _users(seen: Seen) -> dict[str, list[Domain]]:
    """Which definitions may write each image."""
    users: dict[str, list[Domain]] = defaultdict(list)
    for d in seen.snapshot.domains():
        for key in d.images:
            users[key].append(d)
    return users


def _written_bases(seen: Seen) -> Iterator[Finding]:
    """Images that one VM may write while another one's overlay lies on top of them."""
    if seen.survey is None:
        return
    writers = _users(seen)
    for d in seen.snapshot.domains():
        for key in sorted(seen.survey.closure(d.images) - d.images):
            for other in writers.get(key, ()):
                if other.vm.uuid == d.vm.uuid:
                    continue
                yield Finding(
                    "danger",
                    "base-written",
                    f"{other.vm.name} may write an image that {d.vm.name} needs unchanged below its own.",
                    (other.host, d.host),
                    (other.vm.name, d.vm.name),
                    (f"{seen.path_of(key)} is a backing file of {d.vm.name} on {d.host} ({d.state})",),
                    (
                        f"Start only one of them; make it <readonly/> in {other.vm.name}, "
                        f"or give {d.vm.name} a copy of its own:",
                        fab("vm.dumpxml", other.vm.name, more="--inactive"),
                    ),
                )


def _strays(seen: Seen) -> Iterator[Finding]:
    for facts in seen.snapshot.facts():
        for p in stray_processes(facts) if not facts.libvirt_problem else ():
            name = p.name or p.uuid or "no name"
            yield Finding(
                "danger",
                "stray-process",
                f"qemu process {p.pid} ({name}) on {facts.host} is not known to libvirtd there.",
                (facts.host,),
                (p.name,) if p.name else (),
                ("It counts as running: nothing starts that needs its images.",),
                (f"On {facts.host}: ps -fp {p.pid}; kill {p.pid} when it is nobody's.",),
            )
