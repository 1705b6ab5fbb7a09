"""Everything that an audit judges, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.cluster import domainxml
from tasks.cluster.asking.storeimages import Survey
from tasks.cluster.evacuate import comeback
from tasks.cluster.model import Domain, HostFacts, Inventory, Snapshot, Vm


@dataclass(frozen=True, slots=True)
class Offset:
    """Seconds that a host's clock is ahead of the laptop's, and by how much that may be wrong."""

    ahead: float
    doubt: float


@dataclass(frozen=True, slots=True)
class GuardState:
    """The guard on a host: good, missing, outdated, foreign (somebody else's hook), unread; and why."""

    state: str
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unread:
    """Something that could not be looked at, so that nothing is said about it."""

    what: str
    why: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """The snapshot (observed for planning), and what lies on the store.

    Texts of files are by name without their ending; None where the store could not be read. `beacons` are the
    files that the hosts' liveness services lock, `held` the locked ones of those asked about, by path, with
    their text; `taken` the lists of what evacuations took, unless no host is cordoned for one. `at` is the
    laptop's time.
    """

    at: float
    inventory: Inventory
    snapshot: Snapshot
    clocks: Mapping[str, Offset] = field(default_factory=dict)
    guards: Mapping[str, GuardState] = field(default_factory=dict)
    owners: Mapping[str, str] | None = None
    journals: Mapping[str, str] | None = None
    beacons: Mapping[str, str] | None = None
    held: Mapping[str, str] | None = None
    taken: Mapping[str, str] | None = None
    survey: Survey | None = None
    unread: tuple[Unread, ...] = ()

    def unsure(self) -> frozenset[str]:
        """Hosts whose VMs are not known."""
        return frozenset(host.host for host in self.snapshot.unsure())

    def taken_from(self, host: str) -> tuple[Vm, ...]:
        """The VMs that were started elsewhere while the host was dead: its restart script leaves them off."""
        return comeback.read((self.taken or {}).get(host, ""))

    def path_of(self, key: str) -> str:
        """How an image is spelled in some definition; the key itself when in none."""
        for facts in self.snapshot.facts():
            for path, file in facts.files.items():
                if file.key == key:
                    return path
        return key


def written_now(domain: Domain, facts: HostFacts) -> frozenset[str]:
    """The images that a running VM really writes: its definition may have been changed since its start.

    Images that were never looked at (volumes of pools, files that are gone) are left out.
    """
    if not domain.live_xml:
        return frozenset()
    keys = domainxml.writable_keys(domainxml.parse(domain.live_xml), facts.files)
    gone = {file.key for file in facts.files.values() if not file.exists}
    return frozenset(key for key in keys - gone if not key.startswith(("volume:", "path:")))
