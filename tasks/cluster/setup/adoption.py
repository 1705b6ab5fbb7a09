"""Owner files for VMs that run already: what is claimed, what is in conflict and stays unclaimed."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostError, HostSilent
from tasks.cluster.model import Domain, HostFacts, Silent, Snapshot, Vm, evidence_of, require
from tasks.cluster.setup import guard


@dataclass(frozen=True, slots=True)
class Need:
    """An image that a running VM has open. `owner` is the text of its owner file, None when there is none."""

    image: str
    path: str
    base: bool
    owner: str | None


@dataclass(frozen=True, slots=True)
class Running:
    """A VM that runs on a host, with what it needs; `problem` when that could not be found out."""

    host: str
    domain: Domain
    needs: tuple[Need, ...] = ()
    problem: str = ""

    @property
    def vm(self) -> Vm:
        return self.domain.vm


@dataclass(frozen=True, slots=True)
class Adoption:
    """What is to be done about a running VM's owner files.

    `result`: owned (already so), adopt, or conflict (`why` says it; nothing is done). `replaces` are the
    texts of owner files that name a host which demonstrably does not run it, by image.
    """

    running: Running
    result: str
    why: str = ""
    replaces: tuple[tuple[str, str], ...] = ()


def look(session: Session, snapshot: Snapshot) -> tuple[Running, ...]:
    """Every running VM of the hosts that answered, with its images and their owners. Changes nothing."""
    found: list[Running] = []
    for facts in snapshot.facts():
        hook = guard.hook_text(session.inventory, facts.host)
        for domain in facts.domains:
            if domain.running:
                found.append(_look(session, hook, domain))
    return tuple(found)


def _look(session: Session, hook: str, domain: Domain) -> Running:
    try:
        with session.using(domain.host) as ops:
            said = guard.call(ops, hook, domain.vm.name, "vmfab-look", xml=domain.live_xml)
        return Running(domain.host, domain, tuple(map(_need, json.loads(said))))
    except HostSilent as error:
        return Running(domain.host, domain, problem=str(error))
    except HostError as error:
        return Running(domain.host, domain, problem=error.detail)


def _need(entry: Mapping[str, object]) -> Need:
    owner = entry.get("owner")
    return Need(
        require(entry, "image", str),
        require(entry, "path", str),
        require(entry, "base", bool),
        None if owner is None else str(owner),
    )


def plan(snapshot: Snapshot, running: Sequence[Running], hosts: Sequence[str]) -> tuple[Adoption, ...]:
    """What to do about each VM that runs on `hosts`; the VMs of the other hosts count for conflicts."""
    writers: dict[str, list[Running]] = defaultdict(list)
    users: dict[str, list[Running]] = defaultdict(list)
    for one in running:
        for need in one.needs:
            users[need.image].append(one)
            if not need.base:
                writers[need.image].append(one)
    return tuple(_judged(snapshot, one, writers, users) for one in running if one.host in hosts)


def _judged(
    snapshot: Snapshot,
    one: Running,
    writers: Mapping[str, Sequence[Running]],
    users: Mapping[str, Sequence[Running]],
) -> Adoption:
    if one.problem:
        return Adoption(one, "conflict", one.problem)
    replaces = []
    unowned = False
    for need in one.needs:
        for other in writers.get(need.image, ()) if need.base else users[need.image]:
            if other is not one:
                return Adoption(
                    one, "conflict", f"{need.path} is used by {other.vm.name} on {other.host}, too"
                )
        if need.owner is None:
            unowned = unowned or not need.base
            continue
        host, uuid, boot_id, to = _owner(need.owner)
        if (host, uuid, to) == (one.host, one.vm.uuid, ""):
            facts = snapshot.hosts[one.host]
            unowned = unowned or not (isinstance(facts, HostFacts) and facts.boot_id == boot_id)
            continue
        if doubt := _doubt(snapshot, one, need, {name for name in (host, to) if name}):
            where = f"{host}, on its way to {to}" if to else host or "nobody knows whom"
            return Adoption(one, "conflict", f"{need.path} is owned by {where}: {doubt}")
        replaces.append((need.image, need.owner))
    if not unowned and not replaces:
        return Adoption(one, "owned")
    why = "its owner files name hosts that do not run it" if replaces else ""
    return Adoption(one, "adopt", why, tuple(replaces))


def _doubt(snapshot: Snapshot, one: Running, need: Need, named: set[str]) -> str:
    """Why the hosts that an owner file names may be right; "" when none of them runs it, as was seen."""
    if not named:
        return "its owner file is not understood"
    images = frozenset([need.image])
    for name in sorted(named - {one.host}):
        facts = snapshot.hosts.get(name)
        if facts is None:
            return f"{name} is not in the inventory"
        # A host that did not answer may be running it.
        if isinstance(facts, Silent):
            return f"{name} does not answer"
        if facts.libvirt_problem:
            return f"{name}: {facts.libvirt_problem}"
        if evidence := evidence_of(one.vm, images, facts):
            return f"{name}: {evidence[0].what}"
    return ""


def _owner(text: str) -> tuple[str, str, str, str]:
    """Host, UUID, boot and destination in an owner file; empty where it is not understood."""
    try:
        record = json.loads(text)
        to = str((record.get("to") or {}).get("host", ""))
        return str(record["host"]), str(record["uuid"]), str(record["boot_id"]), to
    except (ValueError, KeyError, TypeError, AttributeError):
        return "", "", "", ""


def carry_out(session: Session, adoption: Adoption) -> None:
    """Claim a running VM's images for its host. Raises HostError when somebody was faster, and HostSilent."""
    one = adoption.running
    with session.using(one.host) as ops:
        hook = guard.hook_text(session.inventory, one.host)
        replaces = json.dumps(dict(adoption.replaces))
        guard.call(ops, hook, one.vm.name, "vmfab-claim", replaces, xml=one.domain.live_xml)
