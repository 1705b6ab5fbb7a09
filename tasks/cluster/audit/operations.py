"""What operations left: cordons that were forgotten, and journals without an end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

from tasks.cluster.audit.finding import Finding, fab, listed, moment
from tasks.cluster.audit.seen import Seen
from tasks.cluster.model import EVACUATED, Cordon, HostFacts, Vm, require
from tasks.cluster.setup.guard import RUNNING_VMS
from tasks.cluster.store import journal

#: Seconds after which a cordon may have been forgotten.
DAY = 86400.0


def findings(seen: Seen) -> Iterator[Finding]:
    for host, cordon in sorted(seen.snapshot.cordons().items()):
        yield from _cordon(seen, host, cordon)
    for name, text in sorted((seen.journals or {}).items()):
        yield from _journal(seen, name, text)


def notes(seen: Seen) -> Iterator[str]:
    """Operations that are under way: what they are changing is not judged as if it stayed so."""
    for name, text in sorted((seen.journals or {}).items()):
        record = unfinished(name, text)
        if record is not None and under_way(seen, record):
            yield f"'{record.command}' of {record.by} is under way, begun {moment(record.at)}."


# -- cordons -------------------------------------------------------------------------------------------


def _cordon(seen: Seen, host: str, cordon: Cordon) -> Iterator[Finding]:
    why = f"{cordon.why or 'no reason given'}, by {cordon.by} since {moment(cordon.at)}"
    if host not in seen.inventory.hosts:
        yield Finding(
            "drift",
            "cordon-unknown",
            f"{host} is cordoned, and not in the inventory.",
            (host,),
            evidence=(why,),
            advice=(
                f"Add it to {seen.inventory.path}, or on any host: "
                f"rm {seen.inventory.mount}/.vmfab/cordons/{host}.json",
            ),
        )
    elif cordon.why == EVACUATED:
        facts = seen.snapshot.hosts[host]
        if isinstance(facts, HostFacts):
            taken = seen.taken_from(host)
            yield Finding(
                "drift",
                "evacuated",
                f"{host} was evacuated and is back: its VMs were started elsewhere"
                + (", it starts none of them." if facts.guarded else "."),
                (host,),
                tuple(vm.name for vm in taken),
                (why, *_back_on(seen, facts, taken)),
                (
                    "Look at it. Then bring its VMs back:",
                    fab("undrain", hosts=[host]),
                    "or leave them where they are, and only let it take VMs again:",
                    fab("undrain", hosts=[host], more="--stay"),
                ),
            )
    elif seen.at - cordon.at > DAY:
        yield Finding(
            "drift",
            "cordon-old",
            f"{host} is cordoned for {(seen.at - cordon.at) / DAY:.0f} days.",
            (host,),
            evidence=(why,),
            advice=(f"When it is ready again: {fab('undrain', hosts=[host])}",),
        )


def _back_on(seen: Seen, facts: HostFacts, taken: Collection[Vm]) -> Iterator[str]:
    """Where the VMs are that were taken from the host or that it still defines, and what its list says."""
    host = facts.host
    gone = {vm.uuid for vm in taken}
    for vm in (*taken, *(d.vm for d in facts.domains if d.vm.uuid not in gone)):
        where = [d.host for d in seen.snapshot.where_running(vm)]
        nowhere = "runs nowhere that was seen" if seen.unsure() else "is off"
        state = f"runs on {listed(where)}" if where else nowhere
        yield f"{vm.name} {'was taken from it' if vm.uuid in gone else 'is defined there'} and {state}"
        if vm.uuid in gone and host in where:
            yield f"a reboot of {host} would leave {vm.name} off: it still counts as taken, until undrain"
    noted = [vm.name for vm in taken if vm.name in (facts.running_vms or ())]
    if noted and facts.guarded:
        yield f"{RUNNING_VMS} there names {listed(noted)}: left off at a boot, and taken out by undrain"


# -- journals ------------------------------------------------------------------------------------------


def _read(name: str, text: str) -> journal.Record:
    """Raises ValueError for whatever is no journal."""
    try:
        record = journal.read(name, text)
        for move in record.moves:
            for key in ("uuid", "vm", "source", "target"):
                require(move, key, str)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return record


def unfinished(name: str, text: str) -> journal.Record | None:
    """A journal without an end; None when it has one or is not understood."""
    try:
        record = _read(name, text)
    except ValueError:
        return None
    return None if record.ended else record


def lock_of_vm(uuid: str) -> str:
    """The lock that every command holds while it works on a VM."""
    return f"locks/vm-{uuid}"


def locks_of(record: journal.Record) -> tuple[str, ...]:
    """The locks that an operation may hold as long as it is at work."""
    hosts = dict.fromkeys(move[side] for move in record.moves for side in ("source", "target"))
    return (
        f"locks/op-{record.id}",
        *(lock_of_vm(move["uuid"]) for move in _left(record)),
        *(f"locks/host-{host}" for host in hosts),
    )


def _left(record: journal.Record) -> list[Mapping[str, str]]:
    """The moves of which no end is known."""
    return [move for move in record.moves if record.open(move["uuid"])]


def under_way(seen: Seen, record: journal.Record) -> bool:
    """Whether the operation of a journal still holds a lock. Somebody else may hold those of its VMs."""
    held = seen.held or {}
    if f"locks/op-{record.id}" in held:
        return True
    return any(path in held and _operation(held[path]) == record.id for path in locks_of(record))


def _operation(holder: str) -> str:
    try:
        return str(json.loads(holder)["operation"])
    except (ValueError, KeyError, TypeError):
        return ""


def _journal(seen: Seen, name: str, text: str) -> Iterator[Finding]:
    try:
        record = _read(name, text)
    except ValueError as error:
        yield Finding(
            "drift",
            "journal-unclear",
            f"The journal {name} is not understood.",
            evidence=(str(error),),
            advice=(f"On any host: less {seen.inventory.mount}/.vmfab/{journal.FOLDER}/{name}.json",),
        )
        return
    # Without the locks nobody can tell it from one that is at work; that they are unread is told.
    if record.ended or seen.held is None or under_way(seen, record):
        return
    left = _left(record)
    told = [f"begun by {record.by} at {moment(record.at)}; none of its locks is held any more"]
    for move in left:
        where = [d.host for d in seen.snapshot.where_running(Vm(move["uuid"], move["vm"]))]
        state = "runs on " + listed(where) if where else "runs nowhere that was seen"
        told.append(f"{move['vm']} ({move['source']} to {move['target']}): {state}")
    if not left:
        told.append("every VM of it has an outcome; only its end is missing")
    yield Finding(
        "drift",
        "interrupted",
        f"'{record.command}' was interrupted"
        + (f" with {listed(m['vm'] for m in left)} left." if left else " at its end."),
        tuple(dict.fromkeys(move["source"] for move in left)),
        tuple(move["vm"] for move in left),
        tuple(told),
        ("fab resume",),
    )
