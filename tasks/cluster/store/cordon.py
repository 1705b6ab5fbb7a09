"""Cordons: which hosts take no new VMs. They lie on the shared store, so that every laptop sees them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

from tasks.cluster.model import Cordon
from tasks.cluster.store.operation import Operation
from tasks.cluster.store.sharedstore import SharedStore


def path_of(host: str) -> str:
    return f"cordons/{host}.json"


def place(
    store: SharedStore, host: str, operation: Operation, *, why: str, present: Cordon | None, drain: bool
) -> Cordon:
    """Cordon a host, or add this drain to the cordon that is there. Raises Failed when it cannot be kept."""
    cordon = present or Cordon(host=host, by=operation.by, at=operation.at, why=why)
    if drain:
        cordon = replace(cordon, drains=(*cordon.drains, operation.id))
    store.write(path_of(host), json.dumps(asdict(cordon), ensure_ascii=False) + "\n")
    return cordon


def lift(store: SharedStore, host: str) -> None:
    """Let the host take VMs again. Raises Failed."""
    store.remove(path_of(host))
