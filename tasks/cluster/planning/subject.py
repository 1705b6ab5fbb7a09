"""A VM that is to move, as the filters see it, and the flags by which the operator overrides a reason."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property

from tasks.cluster import domainxml
from tasks.cluster.domainxml import DomainXml
from tasks.cluster.model import Domain, HostFacts, Refusal, Store
from tasks.cluster.planning.census import Census


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one command: closed hosts, hosts that are being emptied, and what was overridden."""

    cordoned: frozenset[str] = frozenset()
    sources: frozenset[str] = frozenset()
    overrides: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Subject:
    """A VM that is to move, as its source has it. `xml` is None when it cannot be read (`why`)."""

    domain: Domain
    facts: HostFacts
    xml: DomainXml | None
    why: str = ""

    @property
    def memory_kib(self) -> int:
        """What the VM may take on the target: the definition's memory, or what it was given when running."""
        return max(self.domain.memory_kib, self.xml.memory_kib if self.xml else 0)

    @cached_property
    def images(self) -> frozenset[str]:
        """Keys of the images it may write, and their paths as they are spelled."""
        written = (s for d in (self.xml.disks if self.xml else ()) for s in d.written())
        return self.domain.images | {f"path:{s.path}" for s in written if s.path}

    def refusal(self, reason: str, flag: str = "", host: str = "") -> Refusal:
        return Refusal(self.domain.vm.name, host or self.domain.host, reason, flag)

    def on_store(self, path: str) -> bool:
        """Whether a path on the source lies on the shared store.

        The host's own answer counts; a path that it was not asked about is judged by its spelling.
        """
        if path in self.facts.files:
            return self.facts.files[path].on_store
        return _below(self.facts.store.mount, path)


def subject(census: Census, domain: Domain) -> Subject:
    """Read a domain's definition. It must be of a host in the census."""
    facts = census.facts[domain.host]
    if not domain.xml:
        return Subject(domain, facts, None, "it was not read")
    try:
        return Subject(domain, facts, domainxml.parse(domain.xml))
    except ValueError as error:
        return Subject(domain, facts, None, str(error))


def store_problem(store: Store) -> str:
    """Why a host cannot use its store; empty when it can."""
    if not store.mounted:
        return f"{store.mount} is not mounted"
    if store.problem:
        return store.problem
    if not store.store_id:
        return f"{store.mount} has no store id, so it cannot be told whether it is the same store"
    if store.total_bytes and store.free_bytes <= 0:
        return f"{store.mount} is full"
    return ""


def unanswered(reason: str) -> str:
    return f"cannot be asked what runs there ({reason})"


def kept(refusals: Iterable[Refusal], overrides: Collection[str]) -> tuple[Refusal, ...]:
    """In order, each once, without those that the operator overrode."""
    return tuple(dict.fromkeys(r for r in refusals if not r.flag or r.flag not in overrides))


def _below(mount: str, path: str) -> bool:
    return bool(mount) and posixpath.normpath(path).startswith(mount.rstrip("/") + "/")
