"""What a host's drains moved away and nobody has moved since: the VMs that undrain brings back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.cluster.errors import Refused
from tasks.cluster.model import Cordon, Snapshot, Vm
from tasks.cluster.store import journal
from tasks.cluster.store.sharedstore import SharedStore

_BY_HAND = "Use 'fab migrate VM --to HOST' for its VMs; 'undrain --stay' lets the host take VMs again."


@dataclass(frozen=True, slots=True)
class Stays:
    """A VM that a drain moved away and that is not brought back, and why."""

    vm: Vm
    why: str


@dataclass(frozen=True, slots=True)
class WayBack:
    """What undrain would do; every VM that the drains moved is in exactly one of the two."""

    vms: tuple[Vm, ...]
    stays: tuple[Stays, ...]


def records_of(store: SharedStore, cordon: Cordon) -> tuple[journal.Record, ...]:
    """The journals of the drains under this cordon, oldest first.

    Raises Refused when a journal is gone or damaged (what it moved would be forgotten), Failed when the
    store cannot be read.
    """
    records = []
    for drain in cordon.drains:
        text = store.read(journal.path_of(drain))
        if text is None:
            raise Refused(f"The journal of drain {drain} is gone from the store.", _BY_HAND)
        try:
            records.append(journal.read(drain, text))
        except ValueError as error:
            raise Refused(f"{str(error).capitalize()}.", _BY_HAND) from error
    return tuple(records)


def way_back(snapshot: Snapshot, host: str, records: Sequence[journal.Record]) -> WayBack:
    """What the drains of `host` moved away and is still where they put it, as the cluster is now.

    A VM counts as moved by a drain when its start on the target was announced; where it really is, is
    observed: only one that runs where the drain put it is brought back.
    """
    put: dict[str, tuple[Vm, str]] = {}
    for one in records:
        for move in one.moves:
            if move["source"] == host and move["uuid"] in one.started:
                put[move["uuid"]] = (Vm(move["uuid"], move["vm"]), move["target"])
    vms: list[Vm] = []
    stays: list[Stays] = []
    for vm, target in put.values():
        where = ", ".join(d.host for d in snapshot.where_running(vm))
        if where == target:
            vms.append(vm)
        elif where == host:
            stays.append(Stays(vm, f"runs on {host} again"))
        elif where:
            stays.append(Stays(vm, f"was moved to {where} since"))
        else:
            stays.append(Stays(vm, "is off now"))
    return WayBack(tuple(vms), tuple(stays))
