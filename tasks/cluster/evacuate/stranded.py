"""The VMs of a dead host, from what the cluster keeps on the store: owner files, definitions, journals.

Nothing here reaches a host. What cannot be read is told as a reason, never taken for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.cluster import domainxml
from tasks.cluster.model import Domain, FileId, HostFacts, Refusal, Snapshot, Vm

OWNERS = "owners"
BASES = "bases"
DEFINITIONS = "definitions"

#: path, expected text, new text; None for no file
Change = tuple[str, "str | None", "str | None"]


@dataclass(frozen=True, slots=True)
class Stranded:
    """A VM that ran on the dead host and runs nowhere now.

    `owned` are its owner files (text by name), `read` those of its backing files. `since` is when it was
    started there. `xml` is its definition, and `origin` where that was found, in words.
    """

    vm: Vm
    owned: Mapping[str, str] = field(default_factory=dict)
    read: Mapping[str, str] = field(default_factory=dict)
    since: float = 0.0
    #: the host that an earlier evacuation has made its owner, which never got it running
    meant: str = ""
    xml: str = field(default="", repr=False)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """All VMs of the dead host, each in one of the two, and what else an operator should know."""

    vms: tuple[Stranded, ...]
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """The files on the store that matter, text by name.

    `meant` are the VMs that earlier evacuations of the host began and did not get running: name and target by
    UUID.
    """

    owners: Mapping[str, str]
    bases: Mapping[str, str]
    definitions: Mapping[str, str]
    meant: Mapping[str, tuple[str, str]]


def find(snapshot: Snapshot, host: str, kept: Kept) -> Found:
    """The VMs that ran on `host`; the snapshot has to hold everybody else's answer.

    Owner files that name the host tell which they are. Those that an earlier evacuation has given to
    another host, without ever getting them to run there, belong to it, too.
    """
    owned, notes = _owned(host, kept)
    vms: list[Stranded] = []
    refusals: list[Refusal] = []
    for vm in owned:
        running = [d.host for d in snapshot.where_running(vm.vm) if d.host != host]
        if running and vm.meant:
            continue  # an earlier evacuation has got it running after all
        if running:
            where = ", ".join(running)
            reason = f"it runs there, although {host} owns its images (fab -H {where} host.guard)"
            refusals.append(Refusal(vm.vm.name, where, reason))
            continue
        defined = _with_definition(snapshot, host, kept, vm)
        if isinstance(defined, Refusal):
            refusals.append(defined)
        else:
            vms.append(defined)
    notes += _off(snapshot, host, kept, {vm.vm.uuid for vm in owned})
    return Found(tuple(vms), tuple(refusals), tuple(notes))


def _owned(host: str, kept: Kept) -> tuple[list[Stranded], list[str]]:
    """The VMs whose images the host owns, or an earlier evacuation has given away; and what is not clear."""
    vms: dict[str, Stranded] = {}
    notes: list[str] = []
    for name, text in sorted(kept.owners.items()):
        try:
            owner = json.loads(text)
            vm = Vm(str(owner["uuid"]), str(owner["vm"]))
            owner_host, since = str(owner["host"]), float(owner["time"])
        except (ValueError, KeyError, TypeError):
            notes.append(f"{OWNERS}/{name} on the store is not understood: whose it is cannot be told.")
            continue
        _, target = kept.meant.get(vm.uuid, ("", ""))
        if owner_host in (host, target):
            seen = vms.get(vm.uuid, Stranded(vm, since=since, meant=target))
            owned = {**seen.owned, name: text}
            vms[vm.uuid] = replace(seen, owned=owned, since=min(seen.since, since))
    for uuid, (name, target) in kept.meant.items():
        # Nobody owns it: it never wrote an image, or it was started since and has ended.
        if uuid not in vms and not _owned_by_anybody(kept, uuid):
            vms[uuid] = Stranded(Vm(uuid, name), meant=target)
    found = [replace(vm, read=_bases(kept, host, uuid)) for uuid, vm in vms.items()]
    return sorted(found, key=lambda v: (v.vm.name, v.vm.uuid)), notes


def _owned_by_anybody(kept: Kept, uuid: str) -> bool:
    return any(f'"{uuid}"' in text for text in kept.owners.values())


def _bases(kept: Kept, host: str, uuid: str) -> dict[str, str]:
    """The notes on backing files in which the VM stands as a reader on the dead host."""
    found = {}
    for name, text in kept.bases.items():
        try:
            readers = json.loads(text)["readers"]
            if any((r["uuid"], r["host"]) == (uuid, host) for r in readers):
                found[name] = text
        except (ValueError, KeyError, TypeError):
            continue  # the hook refuses a start that needs it, and says so
    return found


# -- definitions ---------------------------------------------------------------------------------------


def _with_definition(snapshot: Snapshot, host: str, kept: Kept, vm: Stranded) -> Stranded | Refusal:
    versions, problem = _versions(kept, vm.vm.uuid)
    mirrored = next((v for v in versions if v["host"] == host), versions[0] if versions else None)
    if mirrored is not None:
        return replace(vm, xml=mirrored["xml"], origin=f"kept on the store, as on {mirrored['host']}")
    for domain in snapshot.domains():
        if domain.vm.uuid == vm.vm.uuid and domain.xml and domain.host != host:
            return replace(vm, xml=domain.xml, origin=f"as defined on {domain.host}")
    known = problem or "no definition of it is kept on the store, and no other host has one"
    return Refusal(vm.vm.name, host, f"{known}: fab -H HOST vm.define FILE, and this again")


def _versions(kept: Kept, uuid: str) -> tuple[list[dict[str, Any]], str]:
    """The mirrored versions, newest first, and why there are none that can be used."""
    text = kept.definitions.get(f"{uuid}.json")
    if text is None:
        return [], ""
    try:
        versions = list(json.loads(text)["versions"])
        for version in versions:
            if domainxml.parse(version["xml"]).uuid != uuid or not isinstance(version["host"], str):
                raise ValueError
    except (ValueError, KeyError, TypeError):
        return [], "its definition on the store is not understood"
    return versions, ""


def _off(snapshot: Snapshot, host: str, kept: Kept, owned: set[str]) -> list[str]:
    """Say which VMs are defined on the dead host alone and did not run there, as far as that is known."""
    known = owned | {d.vm.uuid for d in snapshot.domains()}
    names = []
    for file in kept.definitions:
        uuid = file.removesuffix(".json")
        versions, _ = _versions(kept, uuid)
        if (
            versions
            and versions[0]["host"] == host
            and uuid not in known
            and not _owned_by_anybody(kept, uuid)
        ):
            names.append(domainxml.parse(versions[0]["xml"]).name)
    return [f"Defined on {host} alone, and off: {', '.join(sorted(names))}. They stay off."] if names else []


# -- what the planner gets -----------------------------------------------------------------------------


def paths_of(vms: Iterable[Stranded]) -> frozenset[str]:
    """The files of the host that their definitions name, to be looked at on a living host."""
    paths: set[str] = set()
    for vm in vms:
        try:
            xml = domainxml.parse(vm.xml)
        except ValueError:
            continue  # the planner refuses it with the reason
        sources = (s for d in xml.disks for s in (d.source, *d.also_writes, *d.backing))
        paths |= {source.path for source in sources if source is not None and source.path}
        paths |= {p for p in (xml.kernel, xml.initrd, xml.dtb, xml.loader, *xml.filesystems) if p}
        paths |= {tpm.path for tpm in xml.tpms if tpm.path}
        if xml.nvram is not None and xml.nvram.path:
            paths.add(xml.nvram.path)
    return frozenset(paths)


def as_if_alive(
    snapshot: Snapshot, host: str, vms: Sequence[Stranded], files: Mapping[str, FileId], keeper: str
) -> Snapshot:
    """The snapshot in which the dead host answers with its VMs running, so that they can be planned away.

    `files` is what `keeper`, which has the same store, found behind the paths in their definitions.
    """
    like = snapshot.hosts[keeper]
    assert isinstance(like, HostFacts)
    domains = tuple(_domain(host, vm, files) for vm in vms)
    dead = replace(
        like,
        host=host,
        domains=domains,
        processes=(),
        memory_available_kib=0,
        files=files,
        running_vms=None,
        cordons=(),
    )
    return Snapshot({**snapshot.hosts, host: dead})


def _domain(host: str, vm: Stranded, files: Mapping[str, FileId]) -> Domain:
    try:
        xml = domainxml.parse(vm.xml)
        images, memory, vcpus = domainxml.writable_keys(xml, files), xml.memory_kib, xml.vcpus
    except ValueError:
        images, memory, vcpus = frozenset(), 0, 0
    return Domain(
        vm=vm.vm,
        host=host,
        state="running",
        reason="",
        persistent=True,
        autostart=False,
        managed_save=False,
        memory_kib=memory,
        vcpus=vcpus,
        xml=vm.xml,
        images=images,
    )


def handed_over(vm: Stranded, host: str, target: str, boot_id: str, at: float) -> list[Change]:
    """What makes `target`, in its present boot, the owner of the VM's images."""
    changes: list[Change] = []
    for name, text in vm.owned.items():
        owner = {k: v for k, v in json.loads(text).items() if k != "to"}
        new = {**owner, "host": target, "boot_id": boot_id, "time": round(at, 3)}
        changes.append((f"{OWNERS}/{name}", text, json.dumps(new) + "\n"))
    for name, text in vm.read.items():
        base = json.loads(text)
        left = [r for r in base["readers"] if (r["uuid"], r["host"]) != (vm.vm.uuid, host)]
        kept = json.dumps({**base, "readers": left}) + "\n" if left else None
        changes.append((f"{BASES}/{name}", text, kept))
    return changes
