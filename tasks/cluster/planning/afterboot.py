"""VMs that a host which has just booted may be about to start by itself."""

from __future__ import annotations

from tasks.cluster.model import HostFacts, Snapshot

#: Seconds after its boot within which a host's restart script has begun, and those that each VM takes it.
BEGUN, EACH = 120.0, 10.0


def about_to_start(snapshot: Snapshot, host: str) -> tuple[str, ...]:
    """The names in the host's running_vms that are defined there and run nowhere, soon after its boot.

    Nothing after that time: what the script could not start then, it does not start any more.
    """
    facts = snapshot.hosts[host]
    if not isinstance(facts, HostFacts) or not facts.running_vms:
        return ()
    if facts.uptime > BEGUN + EACH * len(facts.running_vms):
        return ()
    return tuple(
        d.vm.name
        for d in facts.domains
        if d.vm.name in facts.running_vms and not snapshot.where_running(d.vm)
    )
