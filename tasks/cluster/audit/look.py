"""Ask everything that an audit needs: one connection per host, all hosts at the same time."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tasks.cluster.asking.beside import beside
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.asking.storeimages import Survey
from tasks.cluster.audit import operations
from tasks.cluster.audit.seen import GuardState, Offset, Seen, Unread
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, Refused
from tasks.cluster.evacuate import comeback
from tasks.cluster.model import EVACUATED, HostFacts, Inventory, Silent, Snapshot
from tasks.cluster.setup import guard
from tasks.cluster.store import journal
from tasks.cluster.store.sharedstore import SharedStore

#: Seconds that the search for images may take on the host.
SEARCH = 8.0
#: Seconds for one host's answers; they are a handful, on one connection.
PATIENCE = 15.0
#: Seconds of a round trip that make a clock worth asking again, and how often it is asked at most.
SLOW_TRIP = 0.5
TRIES = 3

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer:
    facts: HostFacts
    offset: Offset
    guard: GuardState


@dataclass(slots=True)
class _Reading:
    """What was read from the store, and what could not be."""

    unread: list[Unread] = field(default_factory=list)

    def get(self, what: str, read: Callable[[], T]) -> T | None:
        """The answer; None when there is none, which is noted."""
        try:
            return read()
        except Failed as error:
            self.unread.append(Unread(what, error.message))
            return None


def look(session: Session, clock: Clock, *, survey: Survey | None = None, vms: Collection[str] = ()) -> Seen:
    """Look at the whole cluster. A `survey` from before is not made again.

    `vms` are UUIDs of VMs for which it is asked, too, whether somebody is working on them.
    """
    inventory = session.inventory
    answers = session.each(inventory.hosts, lambda ops: _host(ops, inventory, clock), seconds=PATIENCE)
    snapshot = Snapshot({n: a if isinstance(a, Silent) else a.facts for n, a in answers.items()})
    heard = {name: answer for name, answer in answers.items() if not isinstance(answer, Silent)}
    reading = _Reading()
    store = SharedStore(session, _through(snapshot))
    if survey is None:
        searched = beside(lambda: reading.get("images that no definition uses", lambda: store.images(SEARCH)))
    else:
        searched = lambda: survey  # noqa: E731
    owners = beside(lambda: reading.get("the owner files", lambda: store.read_folder("owners")))
    beacons = beside(lambda: reading.get("the hosts' signs of life", lambda: store.read_folder("hosts")))
    evacuated = [cordon.host for cordon in snapshot.cordons().values() if cordon.why == EVACUATED]
    taken = beside(lambda: reading.get("what evacuations took from hosts", lambda: _taken(store, evacuated)))
    journals = reading.get("journals", lambda: _journals(store))
    signs = beacons()
    held = reading.get("locks on the store", lambda: store.held(_locks(journals or {}, signs or {}, vms)))
    seen = Seen(
        at=clock.now(),
        inventory=inventory,
        snapshot=snapshot,
        clocks={name: answer.offset for name, answer in heard.items()},
        guards={name: answer.guard for name, answer in heard.items()},
        owners=owners(),
        journals=journals,
        beacons=signs,
        held=held,
        taken=taken(),
        survey=searched(),
        unread=(),
    )
    return _with_unread(seen, reading.unread)


def _host(ops: HostOps, inventory: Inventory, clock: Clock) -> _Answer:
    offset = _offset(ops, clock)
    facts = ops.observe(plan=True)
    return _Answer(facts, offset, _guard(ops, inventory, facts))


def _offset(ops: HostOps, clock: Clock) -> Offset:
    """How far the host's clock is ahead; half of the quickest round trip is the doubt."""
    best = Offset(0.0, float("inf"))
    for _ in range(TRIES):
        sent, here = clock.monotonic(), clock.now()
        there = ops.clock()
        half = (clock.monotonic() - sent) / 2
        if half < best.doubt:
            best = Offset(there - here - half, half)
        if 2 * half < SLOW_TRIP:
            break
    return best


def _guard(ops: HostOps, inventory: Inventory, facts: HostFacts) -> GuardState:
    """The guard as `host.guard` would find it: whatever it would change is outdated."""
    if facts.guarded is None:
        return GuardState("unread", ("the host did not say",))
    try:
        if not facts.guarded and ops.file_read(guard.HOOK).text is None:
            return GuardState("missing")
        plan = guard.plan(ops, inventory)
    except Refused as error:
        return GuardState("foreign", (error.message, error.hint))
    except HostError as error:
        return GuardState("unread", (error.detail,))
    if not plan.changes:
        return GuardState("good")
    return GuardState("outdated", tuple(f"{change.what} to be {change.why}" for change in plan.changes))


def _through(snapshot: Snapshot) -> list[str]:
    """Hosts through which the store is read: those that have the one that most have, in good order first."""
    mounted = [f for f in snapshot.facts() if f.store.mounted]
    ids = [f.store.store_id for f in mounted if f.store.store_id]
    usual = max(ids, key=ids.count) if ids else ""
    mounted.sort(key=lambda f: bool(f.store.problem))
    return [f.host for f in mounted if f.store.store_id in ("", usual)]


def _journals(store: SharedStore) -> dict[str, str]:
    texts = store.read_folder(journal.FOLDER)
    return {name.removesuffix(".json"): text for name, text in texts.items() if name.endswith(".json")}


def _taken(store: SharedStore, hosts: Collection[str]) -> dict[str, str]:
    return store.read_folder(comeback.TAKEN) if hosts else {}


def _locks(journals: dict[str, str], beacons: dict[str, str], vms: Collection[str]) -> list[str]:
    """The lock files that tell whether an operation is at work, and whether a host is up."""
    records = [operations.unfinished(name, text) for name, text in journals.items()]
    paths = [path for record in records if record for path in operations.locks_of(record)]
    return sorted({*paths, *map(operations.lock_of_vm, vms), *(f"hosts/{host}" for host in beacons)})


def _with_unread(seen: Seen, unread: list[Unread]) -> Seen:
    more = list(unread)
    if seen.survey is not None and seen.survey.why:
        more.append(Unread("whether all images were found that no definition uses", seen.survey.why))
    for host, state in seen.guards.items():
        facts = seen.snapshot.hosts[host]
        if state.state == "unread" and isinstance(facts, HostFacts) and facts.guarded is not None:
            more.append(Unread(f"the guard on {host}", "; ".join(state.why), (host,)))
    if seen.survey is not None and (unsure := seen.unsure()):
        why = f"{', '.join(sorted(unsure))} did not say which it uses"
        more.append(Unread("images that no definition uses", why, tuple(sorted(unsure))))
    return replace(seen, unread=tuple(dict.fromkeys(more)))
