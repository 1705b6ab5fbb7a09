"""Remove old journals from the store, but none that is still needed."""

from __future__ import annotations

import calendar
import re
import time

from tasks.cluster.asking import wire
from tasks.cluster.store import journal
from tasks.cluster.store.journal import FOLDER, path_of
from tasks.cluster.store.sharedstore import SharedStore

DAY = 86400.0

_STAMP = re.compile(r"([0-9]{8}T[0-9]{6}Z)-[0-9a-f]+\.json")


def prune(store: SharedStore, *, days: int, now: float) -> tuple[str, ...]:
    """Remove the journals of operations that ended more than `days` ago; their IDs.

    Kept are those that have not ended, those that cannot be read, and those that a cordon names: undrain
    works from them. Raises Failed when the store cannot be used.
    """
    limit = now - days * DAY
    old = [name.removesuffix(".json") for name in store.names(FOLDER) if _began(name) < limit]
    if not old:
        return ()
    try:
        cordons = [wire.cordon(text) for text in store.read_folder("cordons").values()]
    except (ValueError, TypeError):
        return ()  # what it needs is not known
    needed = {drain for cordon in cordons for drain in cordon.drains}
    removed = []
    for name in old:
        if name not in needed and _ended_before(store, name, limit):
            store.remove(path_of(name))
            removed.append(name)
    return tuple(removed)


def _began(name: str) -> float:
    """When an operation began, by the name of its journal; never, for what is not named so."""
    match = _STAMP.fullmatch(name)
    if not match:
        return float("inf")
    try:
        return float(calendar.timegm(time.strptime(match[1], "%Y%m%dT%H%M%SZ")))
    except ValueError:
        return float("inf")


def _ended_before(store: SharedStore, name: str, limit: float) -> bool:
    try:
        found = journal.read(name, store.read(path_of(name)) or "")
    except ValueError:
        return False
    return found.ended_at is not None and found.ended_at < limit
