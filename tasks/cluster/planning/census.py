"""A snapshot, indexed: who is defined and running where, by UUID, name and image, and who must stay apart.

The same answers could be read off the snapshot by looking at every VM for every VM; with thousands of them
that takes minutes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase, translate

from tasks.cluster.model import (
    Domain,
    Evidence,
    HostFacts,
    QemuProcess,
    Silent,
    Snapshot,
    Vm,
    evidence_of,
)


def named(name: str, patterns: Iterable[str]) -> bool:
    """Whether one of exact names or glob patterns means this VM."""
    return any(name == p or fnmatchcase(name, p) for p in patterns)


class ApartRules:
    """Which apart rules a VM name falls under."""

    def __init__(self, rules: Mapping[str, tuple[str, ...]]) -> None:
        self._exact: dict[str, set[str]] = defaultdict(set)
        self._globs: list[tuple[str, re.Pattern[str]]] = []
        for rule, patterns in rules.items():
            for pattern in patterns:
                self._exact[pattern].add(rule)
                if any(c in pattern for c in "*?["):
                    self._globs.append((rule, re.compile(translate(pattern))))

    def of(self, name: str) -> frozenset[str]:
        by_glob = {rule for rule, pattern in self._globs if pattern.match(name)}
        return frozenset(self._exact.get(name, set()) | by_glob)


class Census:
    """Everything that is looked up about VMs in one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.unsure: Mapping[str, Silent] = {s.host: s for s in snapshot.unsure()}
        self.facts: Mapping[str, HostFacts] = {f.host: f for f in snapshot.facts()}
        self._same: dict[str, list[Domain]] = defaultdict(list)
        self._by_image: dict[str, list[Domain]] = defaultdict(list)
        #: hosts with a qemu process of this UUID, name or image
        self._processes: dict[str, set[str]] = defaultdict(set)
        mounts = tuple({f.store.mount.rstrip("/") + "/" for f in self.facts.values() if f.store.mount})
        for facts in self.facts.values():
            for domain in facts.domains:
                for mark in _marks(domain.vm):
                    self._same[mark].append(domain)
                for key in domain.images:
                    self._by_image[key].append(domain)
                    # Where the store is not mounted, only the spelling tells that the image lies on it.
                    path = key.partition(":")[2]
                    if path.startswith(mounts):
                        self._by_image[f"path:{path}"].append(domain)
            for process in facts.processes:
                for mark in (*_marks(Vm(process.uuid, process.name)), *process.images):
                    self._processes[mark].add(facts.host)

    def definitions(self, vm: Vm) -> tuple[Domain, ...]:
        """What any host has under the VM's UUID or its name, running or not, by host."""
        found = {(d.host, d.vm): d for mark in _marks(vm) for d in self._same.get(mark, ())}
        return tuple(found[key] for key in sorted(found, key=lambda k: (k[0], k[1].uuid)))

    def sharers(self, vm: Vm, images: Collection[str]) -> tuple[Domain, ...]:
        """Definitions of other VMs that may write one of the images; `images` may hold keys and path:PATH."""
        found = {(d.host, d.vm): d for key in images for d in self._by_image.get(key, ())}
        return tuple(
            found[key]
            for key in sorted(found, key=lambda k: (k[0], k[1].name, k[1].uuid))
            if key[1].uuid != vm.uuid and key[1].name != vm.name
        )

    def other_evidence(self, domain: Domain, images: Collection[str]) -> tuple[Evidence, ...]:
        """Everything, on any host, that says the VM runs elsewhere or twice, or another writes its images.

        Leaves out `domain` itself and its process, and says nothing about hosts that are unsure.
        """
        vm = domain.vm
        hosts = {d.host for d in (*self.definitions(vm), *self.sharers(vm, images)) if d.running}
        for mark in (*_marks(vm), *images):
            hosts |= self._processes.get(mark, set())
        found: list[Evidence] = []
        for host in sorted(hosts):
            facts = self.facts[host]
            if host == domain.host:
                facts = _without(facts, domain)
            seen = evidence_of(vm, frozenset(images), facts)
            found += seen
            if not seen:
                # Found by the spelling of a path only.
                found += (
                    Evidence(host, f"VM {d.vm.name!r} ({d.state}) names its image")
                    for d in self.sharers(vm, images)
                    if d.host == host and d.running
                )
        return tuple(found)

    def stray_processes(self, host: str) -> tuple[QemuProcess, ...]:
        """qemu processes on a host that belong to none of the VMs that libvirt lists as active there."""
        facts = self.facts[host]
        active = [d for d in facts.domains if d.running]
        return tuple(p for p in facts.processes if not any(_own(p, d) for d in active))


def _marks(vm: Vm) -> tuple[str, ...]:
    """Keys under which a VM is indexed; a process may show no UUID or no name, which marks nothing."""
    return tuple(m for m, known in ((f"uuid {vm.uuid}", vm.uuid), (f"name {vm.name}", vm.name)) if known)


def _own(process: QemuProcess, domain: Domain) -> bool:
    return process.pid == domain.pid if domain.pid is not None else process.uuid == domain.vm.uuid


def _without(facts: HostFacts, domain: Domain) -> HostFacts:
    return replace(
        facts,
        domains=tuple(d for d in facts.domains if d.vm != domain.vm),
        processes=tuple(p for p in facts.processes if not _own(p, domain)),
    )
