"""What a host's guard has left on the store about the host's life: the text of its lock."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is free, in words; `doubt` says why that proves nothing, and `how` what to do then."""

    words: str = ""
    doubt: str = ""
    how: str = ""


def read(host: str, text: str) -> Lock:
    """Understand the text of a host's free lock: {host, boot_id, since, released}.

    `released` is null for a service that never ended in order, else {at, running, shutting_down}, `running`
    being the number of QEMU processes that went on. Such a host was not thrown out of the cluster, so it may
    still write; only one that went down without any VM is sure not to.
    """
    boots = f"Boot {host}, and it starts its VMs."
    try:
        said: dict[str, Any] = json.loads(text)
        if said["host"] != host:
            raise ValueError
        boot, since, released = str(said["boot_id"]), float(said["since"]), said.get("released")
        at = float(released["at"]) if released else 0.0
        running = int(released["running"]) if released else 0
        going_down = bool(released["shutting_down"]) if released else False
    except (ValueError, KeyError, TypeError, AttributeError):
        doubt = "it is free, but nobody can tell whether it was ever held: its text is not understood"
        return Lock(doubt=doubt, how=boots)
    if not released:
        return Lock(f"free; held by boot {boot[:8]} since {moment(since)}")
    vms = f"{running} VM{'' if running == 1 else 's'}"
    if not going_down:
        return Lock(
            doubt=f"somebody stopped the guard's service at {moment(at)} ({vms} ran), which proves nothing",
            how=f"On {host}: systemctl start vmfab-liveness. If it is dead: {boots[0].lower()}{boots[1:]}",
        )
    if running:
        return Lock(doubt=f"{host} was shutting down at {moment(at)}, and {vms} still ran", how=boots)
    return Lock(f"free; given back at {moment(at)}, when {host} shut down with no VM running")


def moment(at: float) -> str:
    """A moment, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
