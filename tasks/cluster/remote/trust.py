"""Seeing the ssh keys of the machines on the way to a host, and accepting them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.cluster.errors import Refused
from tasks.cluster.model import Host, Inventory
from tasks.cluster.remote import hostkeys
from tasks.cluster.remote.config import SshConfig, Way
from tasks.cluster.remote.dial import Closers, Deadline, Dialler
from tasks.cluster.remote.hostkeys import HostKey
from tasks.cluster.remote.keys import Keyring


@dataclass(frozen=True, slots=True)
class Shown:
    """The key that a machine on the way to a host has shown."""

    host: str
    way: Way
    key: HostKey
    #: in known_hosts already; otherwise nothing is known of the machine
    trusted: bool

    @property
    def machine(self) -> str:
        """What the operator calls it: the host itself, or a jump host before it."""
        return self.way.name

    @property
    def file(self) -> str:
        """Where `accept` writes it; empty when the ssh configuration names no file."""
        return self.way.trust_file


def keys_on_the_way(inventory: Inventory, host: Host, seconds: float) -> Iterator[Shown]:
    """The keys of the jump hosts, the first one first, and of the host itself; asked one by one.

    A jump host is logged in to when the machine behind it is asked, so an unknown key of one has to be
    accepted before the next step. Each step takes at most `seconds`. Raises HostSilent with the reason,
    HostKeyChanged for a key that is not to be accepted, Refused when the ssh configuration cannot be read.
    """
    way = SshConfig(inventory.ssh_config).way(host)
    for machine in (*way.jumps, way):
        # A new one for each step: it reads known_hosts again.
        dialler = Dialler(Keyring())
        closers = Closers()
        try:
            key = dialler.look(host.name, machine, Deadline(seconds), closers)
        finally:
            closers.close()
        try:
            dialler.known_hosts(machine).check(host.name, machine.name, machine.known_as, key)
            trusted = True
        except hostkeys.HostKeyUnknown:
            trusted = False
        yield Shown(host.name, machine, key, trusted)


def accept(shown: Shown) -> None:
    """Add a key to the operator's known_hosts. Raises Refused when that cannot be written."""
    if not shown.file:
        raise Refused("The ssh configuration names no UserKnownHostsFile to write the key to.")
    name = shown.way.known_as
    hostkeys.append(shown.file, hostkeys.hashed(name) if shown.way.hash_names else name, shown.key)
