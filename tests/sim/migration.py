"""Live migration between simulated hosts, as libvirt does it for a hand that types `virsh migrate`.

The destination announces and prepares the VM (two calls of its hook) and gets a process that waits. When all
memory has come, the source stops writing and the destination runs in the same moment; a little later
libvirt ends the process on the source. Whatever breaks before that moment leaves the VM to the source, and
what breaks after it leaves the VM to the destination.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim.errors import VirshError

if TYPE_CHECKING:
    from tests.sim.guests import Guest
    from tests.sim.host import SimHost

#: Seconds from the moment the destination runs it to the end of the process on the source.
CONFIRMED = 0.2


def begin(source: SimHost, name: str, to: SimHost, *, seconds: float, undefine: bool) -> None:
    """Migrate a VM; all its memory has come after so many seconds. Raises VirshError when it is refused."""
    leaving = source.guest(source.find(name).uuid)
    if leaving is None:
        raise VirshError("Requested operation is not valid: domain is not running")
    if leaving.state != "running" or leaving.peer is not None or leaving.going_down:
        raise VirshError("Requested operation is not valid: domain cannot be migrated now")
    if not (to.powered and to.reachable and source.reachable) or to.libvirt_frozen:
        raise VirshError(f"unable to connect to server at '{to.name}:16509'")
    source.cluster.note(source, f"{name} is migrated to {to.name}")
    arriving = to.incoming(name, leaving.definition.xml, leaving.boot_id)
    leaving.peer, arriving.peer = arriving, leaving
    source.cluster.after(seconds, lambda: _hand_over(leaving, arriving, undefine=undefine))


def _hand_over(leaving: Guest, arriving: Guest, *, undefine: bool) -> None:
    """The moment in which the destination takes over, unless one side has ended or cannot be reached."""
    if leaving.peer is not arriving or arriving.peer is not leaving:
        return
    source, to = leaving.host, arriving.host
    if not (source.reachable and to.reachable) or leaving.state != "running" or leaving.going_down:
        arriving.host.kill(arriving, "failed")
        return
    cluster = source.cluster
    cluster.law.ended(leaving)
    leaving.writes, leaving.state, leaving.reason = False, "paused", "migration"
    arriving.writes, arriving.state, arriving.reason = True, "running", "migrated"
    arriving.peer = leaving.peer = None
    if arriving.uuid not in to.definitions:
        to.define(arriving.definition.xml)
    arriving.definition = to.definitions[arriving.uuid]
    cluster.note(to, f"{arriving.name} has arrived from {source.name}: qemu {arriving.pid}")
    cluster.law.started(arriving, "migration")
    cluster.changed(to)
    cluster.after(CONFIRMED, lambda: _confirm(leaving, undefine=undefine))


def _confirm(leaving: Guest, *, undefine: bool) -> None:
    if leaving.alive and leaving.host.libvirt_frozen:
        leaving.host.cluster.after(CONFIRMED, lambda: _confirm(leaving, undefine=undefine))
    elif leaving.alive:
        leaving.host.kill(leaving, "migrated")
        if undefine and leaving.uuid in leaving.host.definitions:
            del leaving.host.definitions[leaving.uuid]


def ended(guest: Guest) -> None:
    """One side of a migration has ended: the process that only waited for memory ends, too."""
    peer, guest.peer = guest.peer, None
    if peer is not None:
        peer.peer = None
        if not peer.writes:
            _give_up(peer)


def _give_up(arriving: Guest) -> None:
    if arriving.alive and arriving.host.libvirt_frozen:
        arriving.host.cluster.after(CONFIRMED, lambda: _give_up(arriving))
    elif arriving.alive:
        arriving.host.kill(arriving, "failed")
