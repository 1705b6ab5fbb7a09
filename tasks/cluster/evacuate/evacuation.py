"""Which VMs of a dead host go where, read off the store and the living hosts. Changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from tasks.cluster.asking.session import Session
from tasks.cluster.evacuate import evacuating, stranded
from tasks.cluster.evacuate.fencing import Fence
from tasks.cluster.evacuate.stranded import Stranded
from tasks.cluster.model import Move, Plan, Refusal, Snapshot
from tasks.cluster.planning import placement
from tasks.cluster.planning.census import named
from tasks.cluster.store.journal import Record
from tasks.cluster.store.sharedstore import SharedStore


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator typed."""

    to: tuple[str, ...]
    only: tuple[str, ...]
    exclude: tuple[str, ...]
    overrides: tuple[str, ...]
    parallel: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Evacuation:
    """Which VMs go where, and what that was read from."""

    plan: Plan
    vms: Mapping[str, Stranded]
    notes: tuple[str, ...]
    snapshot: Snapshot
    planned_on: Snapshot
    #: evacuations of the same host before this one
    earlier: tuple[Record, ...]

    @property
    def moves(self) -> tuple[Move, ...]:
        return self.plan.moves


def plan(session: Session, fence: Fence, store: SharedStore, snapshot: Snapshot, wish: Wish) -> Evacuation:
    """Read which VMs ran on the dead host, and plan where they go.

    The snapshot was made for planning, and `fence` holds the host's lock. Raises Failed when the store cannot
    be read, HostSilent or HostError when the fence's keeper cannot be asked.
    """
    host = fence.host
    earlier = evacuating.earlier(store, host)
    kept = stranded.Kept(
        owners=store.read_folder(stranded.OWNERS),
        bases=store.read_folder(stranded.BASES),
        definitions=store.read_folder(stranded.DEFINITIONS),
        meant=evacuating.unfinished(earlier, host),
    )
    found = stranded.find(snapshot, host, kept)
    with session.using(fence.keeper) as ops:
        files = ops.look(stranded.paths_of(found.vms))
    planned_on = stranded.as_if_alive(snapshot, host, found.vms, files, fence.keeper)
    moves = placement.plan_drain(
        planned_on,
        session.inventory,
        [host],
        only=wish.only,
        exclude=wish.exclude,
        to=wish.to,
        overrides=wish.overrides,
    )
    refusals = (*_about(wish, found.refusals), *_not_mistyped(moves.refusals, found.refusals))
    return Evacuation(
        plan=Plan(moves.moves, refusals),
        vms={vm.vm.uuid: vm for vm in found.vms},
        notes=found.notes,
        snapshot=snapshot,
        planned_on=planned_on,
        earlier=earlier,
    )


def _about(wish: Wish, refusals: Iterable[Refusal]) -> Iterator[Refusal]:
    for refusal in refusals:
        if (not wish.only or named(refusal.vm, wish.only)) and not named(refusal.vm, wish.exclude):
            yield refusal


def _not_mistyped(refusals: Iterable[Refusal], known: Collection[Refusal]) -> Iterator[Refusal]:
    """Leave out that a pattern means nothing: it may mean a VM that cannot be planned at all."""
    for refusal in refusals:
        if refusal.host or not any(named(other.vm, (refusal.vm,)) for other in known):
            yield refusal
