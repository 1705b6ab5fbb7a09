"""Definitions as an operator brings them: read, checked against the cluster, compared with what is there."""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from xml.dom import minidom

from tasks.cluster import domainxml
from tasks.cluster.domainxml import DomainXml, Source
from tasks.cluster.errors import Refused
from tasks.cluster.model import OFF, Domain, FileId, HostFacts, Refusal, Snapshot, Vm
from tasks.cluster.planning.census import Census
from tasks.cluster.planning.overrides import ALLOW_MACVTAP
from tasks.cluster.planning.subject import Subject, store_problem, unanswered
from tasks.cluster.planning.targets import features_of, needs_of

#: Characters that no name of a VM may hold: libvirt and the lists of names cannot carry them.
_BAD_IN_NAMES = "/\n\r\0"


@dataclass(frozen=True, slots=True)
class NewDefinition:
    """XML that was understood. `text` always has a UUID."""

    text: str = field(repr=False)
    xml: DomainXml

    @property
    def vm(self) -> Vm:
        return Vm(self.xml.uuid, self.xml.name)


@dataclass(frozen=True, slots=True)
class DefinePlan:
    """What defining it on one host would do.

    `present` is the definition there, None if it is new. `diff` compares the two without secrets, empty when
    they are the same but for those (`secrets_differ`).
    """

    new: NewDefinition
    host: str
    present: Domain | None
    diff: str
    secrets_differ: bool
    warnings: tuple[str, ...]

    @property
    def same(self) -> bool:
        return self.present is not None and not self.diff and not self.secrets_differ


def read(text: str, where: str, snapshot: Snapshot) -> NewDefinition:
    """Understand the XML of a domain. `where` names it in messages.

    One without a UUID gets that of the VM of its name, if there is one, else a new one. Raises Refused.
    """
    # The text is characters by now: what encoding they had in the file is of no use to libvirt.
    text = re.sub(r"\A\s*<\?xml[^>]*\?>", "", text)
    try:
        xml = domainxml.parse(text)
    except ValueError as error:
        raise Refused(f"{where} is no definition of a VM: {error}.") from None
    if xml.name != xml.name.strip() or any(c in xml.name for c in _BAD_IN_NAMES):
        raise Refused(f"{where} names the VM {xml.name!r}, which cannot be a name.")
    if not xml.uuid:
        known = {d.vm.uuid for d in snapshot.domains() if d.vm.name == xml.name}
        if len(known) > 1:
            several = ", ".join(sorted(known))
            raise Refused(
                f"{where} has no <uuid>, and {xml.name} is the name of several VMs: {several}.",
                "Put the <uuid> of the one that is meant into it.",
            )
        text = _with_uuid(text, next(iter(known), str(uuid.uuid4())))
        xml = domainxml.parse(text)
    return NewDefinition(text, xml)


def _with_uuid(text: str, value: str) -> str:
    document = minidom.parseString(text.encode())
    root = document.documentElement
    if root is None:
        raise ValueError("no XML element")
    for old in [n for n in root.childNodes if isinstance(n, minidom.Element) and n.tagName == "uuid"]:
        root.removeChild(old)
    element = document.createElement("uuid")
    element.appendChild(document.createTextNode(value))
    root.insertBefore(element, root.getElementsByTagName("name")[0])
    return str(root.toxml()) + "\n"


def where_to_define(snapshot: Snapshot, vm: Vm, hosts: Sequence[str]) -> tuple[str, ...]:
    """The hosts of -H, else the only host that defines the VM. Raises Refused."""
    if hosts:
        return tuple(hosts)
    found = [d.host for d in snapshot.domains() if d.vm.uuid == vm.uuid or d.vm.name == vm.name]
    if len(found) == 1:
        return (found[0],)
    if found:
        hint = f"Say where: fab -H {','.join(found)} vm.define FILE"
        raise Refused(f"{vm.name} is defined on {', '.join(found)}.", hint)
    example = next(iter(snapshot.hosts))
    raise Refused(f"{vm.name} is not defined anywhere yet.", f"Say where: fab -H {example} vm.define FILE")


def paths_of(xml: DomainXml) -> tuple[str, ...]:
    """The files and devices of a host that the definition names as disks, or in their place."""
    sources: list[Source] = []
    for disk in xml.disks:
        sources += [s for s in (disk.source, *disk.also_writes, *disk.backing) if s is not None]
    if xml.nvram is not None:
        sources.append(xml.nvram)
    return tuple(dict.fromkeys(s.path for s in sources if s.path.startswith("/")))


def plan_define(
    snapshot: Snapshot, new: NewDefinition, host: str, files: Mapping[str, FileId]
) -> tuple[DefinePlan | None, tuple[Refusal, ...]]:
    """What defining it on a host would do, or every reason why it must not be.

    `files` is what the host says about the paths of `paths_of`; the snapshot must be one for planning.
    """
    census = Census(snapshot)
    found = [Refusal(new.vm.name, s.host, unanswered(s.reason)) for s in census.unsure.values()]
    if host in census.unsure:
        return None, tuple(found)
    facts = census.facts[host]
    found += _clashes(census, new.vm)
    found += _disk_refusals(new, facts, files)
    keys = domainxml.writable_keys(new.xml, files)
    for other in census.sharers(new.vm, keys | {f"path:{p}" for p in _written(new.xml)}):
        reason = f"VM {other.vm.name!r} ({other.state}) writes the same image, and it is not <shareable/>"
        found.append(Refusal(new.vm.name, other.host, reason))
    if found:
        return None, tuple(dict.fromkeys(found))
    present = next((d for d in facts.domains if d.vm.uuid == new.vm.uuid and d.persistent), None)
    diff, secrets = compare(present.xml if present else "", new.text, f"{new.vm.name} on {host}", "new")
    warnings = _warnings(snapshot, new, facts, files)
    return DefinePlan(new, host, present, diff, secrets, tuple(warnings)), ()


def compare(old: str, new: str, old_name: str, new_name: str) -> tuple[str, bool]:
    """A unified diff of two definitions in canonical form without secrets, and whether only these differ.

    `old` may be empty: then there is nothing to compare with.
    """
    if not old:
        return "", False
    before, after = (domainxml.canonical(text, hide_secrets=True).splitlines() for text in (old, new))
    diff = "\n".join(difflib.unified_diff(before, after, old_name, new_name, lineterm=""))
    return diff, domainxml.canonical(old) != domainxml.canonical(new) and not diff


def drops_secrets(old: str, new: str) -> bool:
    """Whether the old definition has passwords and the new one has none: it was dumped without them."""
    return "passwd=" in domainxml.canonical(old) and "passwd=" not in domainxml.canonical(new)


def misunderstood(new: NewDefinition, dumped: str) -> str:
    """What libvirt has stored otherwise than it was told; empty when all that counts is as it was given."""
    stored = domainxml.parse(dumped)
    wrong = []
    for what, wished, there in (
        ("the name", new.xml.name, stored.name),
        ("the UUID", new.xml.uuid, stored.uuid),
        ("the memory", new.xml.memory_kib, stored.memory_kib),
        ("the disks", _disks(new.xml), _disks(stored)),
        ("the bridges", new.xml.bridges, stored.bridges),
        ("the networks", new.xml.networks, stored.networks),
    ):
        if wished != there:
            wrong.append(f"{what} ({wished} became {there})")
    return ", ".join(wrong)


def _disks(xml: DomainXml) -> list[tuple[str, str, bool, bool]]:
    return sorted((d.target, str(d.source), d.readonly, d.shareable) for d in xml.disks)


def _written(xml: DomainXml) -> list[str]:
    return [s.path for d in xml.disks for s in d.written() if s.path]


def _clashes(census: Census, vm: Vm) -> list[Refusal]:
    found = []
    for other in census.definitions(vm):
        if other.vm == vm:
            continue
        if other.vm.name == vm.name:
            reason = f"has another VM of this name, with UUID {other.vm.uuid}"
        else:
            reason = f"has the VM {other.vm.name!r} with the same UUID {vm.uuid}"
        found.append(Refusal(vm.name, other.host, reason))
    return found


def _disk_refusals(new: NewDefinition, facts: HostFacts, files: Mapping[str, FileId]) -> list[Refusal]:
    """Disks that other hosts could not reach. Media of CD and floppy drives may lie anywhere."""
    if problem := store_problem(facts.store):
        return [Refusal(new.vm.name, facts.host, problem)]
    found = []
    for disk in new.xml.disks:
        if disk.source is None or (disk.removable and disk.readonly):
            continue
        for source in (disk.source, *disk.also_writes, *disk.backing):
            if source.kind == "volume":
                reason = "cannot be told to lie on the shared store: name it by its path"
            elif source.path and not (source.path in files and files[source.path].on_store):
                reason = f"is not on {facts.store.mount}"
            else:
                continue
            through = "" if source == disk.source else f" needs {source}, which"
            found.append(Refusal(new.vm.name, facts.host, f"{disk}{through} {reason}"))
    return found


def _warnings(
    snapshot: Snapshot, new: NewDefinition, facts: HostFacts, files: Mapping[str, FileId]
) -> list[str]:
    found = []
    for disk in new.xml.disks:
        if disk.source is None or not disk.source.path:
            continue
        file = files.get(disk.source.path)
        if file is not None and not file.exists:
            found.append(f"{disk} does not exist yet")
        elif file is not None and not file.on_store and disk.removable:
            found.append(f"{disk} is not on {facts.store.mount}: on another host the drive is empty")
    this = Subject(_as_domain(new, facts), replace(facts, files=dict(files)), new.xml)
    for feature in sorted(needs_of(this, (ALLOW_MACVTAP,)) - features_of(facts)):
        found.append(f"{facts.host} has no {feature}: it cannot start there")
    for d in snapshot.where_running(new.vm):
        found.append(f"it runs on {d.host}; that goes on as it is until it is shut down and started again")
    present = next((d for d in facts.domains if d.vm.uuid == new.vm.uuid), None)
    if present is not None and present.xml and drops_secrets(present.xml, new.text):
        found.append("its passwords go away: the new XML has none (vm.dumpxml --security-info shows them)")
    return found


def _as_domain(new: NewDefinition, facts: HostFacts) -> Domain:
    return Domain(
        new.vm,
        facts.host,
        OFF,
        "",
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=new.xml.memory_kib,
        vcpus=new.xml.vcpus,
        xml=new.text,
    )
