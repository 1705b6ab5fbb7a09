"""Owner files against reality: who is noted as the one that may write an image, and who does."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.cluster.audit.finding import Finding, fab, listed, moment
from tasks.cluster.audit.seen import Seen, written_now
from tasks.cluster.model import HostFacts
from tasks.cluster.overview import stray_processes

#: Seconds that a live migration may take before its hand-over counts as stuck.
HAND_OVER = 600.0
#: Seconds between a claim and the process that it is made for.
STARTING = 60.0


@dataclass(frozen=True, slots=True)
class Owner:
    """An owner file. `to` is the destination of a live migration, empty without one."""

    file: str
    image: str
    path: str
    host: str
    vm: str
    uuid: str
    boot_id: str
    time: float
    to: str = ""
    to_time: float = 0.0

    @property
    def hosts(self) -> tuple[str, ...]:
        return (self.host, self.to) if self.to else (self.host,)


@dataclass(frozen=True, slots=True)
class _Writer:
    host: str
    uuid: str
    name: str


def understood(file: str, text: str) -> Owner:
    """Read an owner file. Raises ValueError."""
    try:
        record = json.loads(text)
        to = record.get("to") or {}
        return Owner(
            file=file,
            image=str(record["image"]),
            path=str(record["path"]),
            host=str(record["host"]),
            vm=str(record["vm"]),
            uuid=str(record["uuid"]),
            boot_id=str(record["boot_id"]),
            time=float(record["time"]),
            to=str(to["host"]) if to else "",
            to_time=float(to["time"]) if to else 0.0,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def arriving(seen: Seen) -> frozenset[tuple[str, frozenset[str]]]:
    """VMs in a live migration, by UUID, with their two hosts: both list them meanwhile."""
    found = set()
    for owner in _owners(seen)[0]:
        if owner.to and seen.at - owner.to_time < HAND_OVER:
            here = [d for d in seen.snapshot.running() if d.vm.uuid == owner.uuid]
            if any(d.state == "paused" for d in here):
                found.add((owner.uuid, frozenset(owner.hosts)))
    return frozenset(found)


def findings(seen: Seen) -> Iterator[Finding]:
    owners, problems = _owners(seen)
    yield from problems
    writers = _writers(seen)
    for group in _together(owners):
        yield from _judged(seen, group, writers)
    if seen.owners is not None:
        yield from _unclaimed(seen, {owner.image for owner in owners})


def notes(seen: Seen) -> Iterator[str]:
    """Owner files that are as they should be, although the VM runs nowhere."""
    writers = _writers(seen)
    for group in _together(_owners(seen)[0]):
        owner = group[0]
        if not owner.to and not any(writers.get(o.image) for o in group) and _before_boot(seen, owner):
            yield (
                f"{owner.vm} is off and stays owned by {owner.host}, which has booted since: so a crash "
                f"leaves it. {fab('vm.start', owner.vm, hosts=[owner.host])} starts it again."
            )


def _owners(seen: Seen) -> tuple[list[Owner], list[Finding]]:
    owners, problems = [], []
    for file, text in sorted((seen.owners or {}).items()):
        try:
            owners.append(understood(file, text))
        except ValueError as error:
            problems.append(
                Finding(
                    "danger",
                    "owner-unclear",
                    f"The owner file {file} is not understood, so its image can be started nowhere.",
                    evidence=(str(error), f"it says {text[:200]!r}"),
                    advice=(
                        f"On any host: cat {seen.inventory.mount}/.vmfab/owners/{file}",
                        "When its VM runs somewhere: fab -H HOST host.guard, with that host.",
                    ),
                )
            )
    return owners, problems


def _together(owners: list[Owner]) -> list[list[Owner]]:
    """The files of one VM that say the same: a VM with five disks is one finding."""
    groups: dict[tuple[str, ...], list[Owner]] = defaultdict(list)
    for owner in owners:
        groups[owner.uuid, owner.vm, owner.host, owner.boot_id, owner.to].append(owner)
    return list(groups.values())


def _writers(seen: Seen) -> Mapping[str, set[_Writer]]:
    found: dict[str, set[_Writer]] = defaultdict(set)
    for facts in seen.snapshot.facts():
        for d in facts.domains:
            for key in written_now(d, facts) if d.running else ():
                found[key].add(_Writer(facts.host, d.vm.uuid, d.vm.name))
        for p in stray_processes(facts):
            for key in p.images:
                found[key].add(_Writer(facts.host, p.uuid, p.name or f"qemu process {p.pid}"))
    return found


def _judged(seen: Seen, group: list[Owner], writers: Mapping[str, set[_Writer]]) -> Iterator[Finding]:
    owner = group[0]
    here = sorted({w for o in group for w in writers.get(o.image, ())}, key=lambda w: (w.host, w.name))
    unknown = [host for host in owner.hosts if host not in seen.inventory.hosts]
    if unknown:
        yield _of_unknown_host(seen, group, unknown, here)
    elif owner.to:
        if seen.at - owner.to_time >= HAND_OVER:
            yield _half_done(seen, group, here)
    elif any((w.host, w.uuid) != (owner.host, owner.uuid) for w in here):
        yield _wrong(seen, group, here)
    elif here:
        if _before_boot(seen, owner):
            yield _of_an_earlier_boot(seen, group)
    elif _stale(seen, owner):
        yield _left_over(seen, group)


def _facts(seen: Seen, host: str) -> HostFacts | None:
    facts = seen.snapshot.hosts.get(host)
    return facts if isinstance(facts, HostFacts) and not facts.libvirt_problem else None


def _before_boot(seen: Seen, owner: Owner) -> bool:
    """Whether it was claimed before its host's last boot."""
    facts = _facts(seen, owner.host)
    return facts is not None and facts.boot_id != owner.boot_id


def _stale(seen: Seen, owner: Owner) -> bool:
    """Whether this boot of the host claimed it, does not run it, and is not about to."""
    facts = _facts(seen, owner.host)
    return facts is not None and facts.boot_id == owner.boot_id and facts.at - owner.time > STARTING


def _where(here: list[_Writer]) -> str:
    return "runs on " + listed(dict.fromkeys(w.host for w in here)) if here else "runs nowhere that was seen"


def _evidence(group: list[Owner]) -> tuple[str, ...]:
    return tuple(
        f"{o.path}: owned by {o.host}"
        + (f" on its way to {o.to}" if o.to else "")
        + f" since {moment(o.time)}"
        for o in group
    )


def _by_hand(seen: Seen, group: list[Owner]) -> str:
    """How files that no command of vmfab can put right are taken away."""
    files = " ".join(f"{seen.inventory.mount}/.vmfab/owners/{o.file}" for o in group)
    return f"When you have made sure that it runs nowhere, on any host: rm {files}"


def _of_unknown_host(seen: Seen, group: list[Owner], unknown: list[str], here: list[_Writer]) -> Finding:
    owner = group[0]
    verb = "is" if len(unknown) == 1 else "are"
    return Finding(
        "danger",
        "owner-unknown",
        f"{owner.vm} is owned by {listed(owner.hosts)}; {listed(unknown)} {verb} not in the inventory.",
        owner.hosts,
        (owner.vm,),
        (*_evidence(group), f"It {_where(here)}."),
        (f"Add {listed(unknown)} to {seen.inventory.path} if it still exists.", _by_hand(seen, group)),
    )


def _half_done(seen: Seen, group: list[Owner], here: list[_Writer]) -> Finding:
    owner = group[0]
    minutes = (seen.at - owner.to_time) / 60
    if here:
        advice = tuple(fab("host.guard", hosts=[host]) for host in dict.fromkeys(w.host for w in here))
    else:
        advice = (_by_hand(seen, group), fab("vm.start", owner.vm, hosts=[owner.host]))
    return Finding(
        "danger",
        "hand-over",
        f"{owner.vm} is noted as on its way from {owner.host} to {owner.to} for {minutes:.0f} minutes.",
        owner.hosts,
        (owner.vm,),
        (*_evidence(group), f"It {_where(here)}; no host may start it."),
        advice,
    )


def _wrong(seen: Seen, group: list[Owner], here: list[_Writer]) -> Finding:
    owner = group[0]
    hosts = tuple(dict.fromkeys(w.host for w in here))
    who = listed(dict.fromkeys(f"{w.name} on {w.host}" for w in here))
    doubts = (
        [f"{owner.host} cannot be asked: it may be running it, too."] if owner.host in seen.unsure() else []
    )
    return Finding(
        "danger",
        "owner-wrong",
        f"{owner.vm} is owned by {owner.host}, but its image is written by {who}.",
        tuple(dict.fromkeys((owner.host, *hosts))),
        tuple(dict.fromkeys((owner.vm, *(w.name for w in here)))),
        (*_evidence(group), *doubts, f"{owner.host} may start it at any moment: the guard would let it."),
        tuple(fab("host.guard", hosts=[host]) for host in hosts),
    )


def _of_an_earlier_boot(seen: Seen, group: list[Owner]) -> Finding:
    owner = group[0]
    return Finding(
        "drift",
        "owner-old",
        f"{owner.vm} runs on {owner.host} with a claim of an earlier boot; its end would not give it back.",
        (owner.host,),
        (owner.vm,),
        _evidence(group),
        (fab("host.guard", hosts=[owner.host]),),
    )


def _left_over(seen: Seen, group: list[Owner]) -> Finding:
    owner = group[0]
    facts = seen.snapshot.hosts[owner.host]
    defined = isinstance(facts, HostFacts) and any(d.vm.uuid == owner.uuid for d in facts.domains)
    if defined:
        advice = (
            f"Start it there, its end gives the image back: {fab('vm.start', owner.vm, hosts=[owner.host])}",
            _by_hand(seen, group),
        )
    else:
        advice = (f"{owner.host} does not define it any more.", _by_hand(seen, group))
    return Finding(
        "drift",
        "owner-left",
        f"{owner.vm} is off, but still owned by {owner.host}: no other host may start it.",
        (owner.host,),
        (owner.vm,),
        (*_evidence(group), f"{owner.host} has not booted since, so its end did not give it back."),
        advice,
    )


def _unclaimed(seen: Seen, owned: set[str]) -> Iterator[Finding]:
    """VMs that run on a host with the guard and have no owner file: started while it was not in force."""
    for facts in seen.snapshot.facts():
        if not facts.guarded or facts.store.problem:
            continue
        for d in facts.domains:
            missing = sorted(written_now(d, facts) - owned) if d.running else []
            if missing:
                yield Finding(
                    "danger",
                    "unclaimed",
                    f"{d.vm.name} runs on {facts.host} and nobody is noted as its owner: the guard would let "
                    "another host start it, too.",
                    (facts.host,),
                    (d.vm.name,),
                    tuple(f"no owner file for {seen.path_of(key)}" for key in missing),
                    (fab("host.guard", hosts=[facts.host]),),
                )
