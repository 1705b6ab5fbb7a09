"""The machines' networks: a LAN and a storage network, one cable of each to every machine.

The LAN is that of the cells, with the laptop at 10.77.0.1; the storage network has only machines in it. Each
cable is a tap on a bridge in the anchor's namespace, with the machine's QEMU at the other end.
"""

from __future__ import annotations

from tasks.lab import network
from tasks.lab.namespaces import Leader

SAN = "san0"
#: A frame's longest content in the storage network, bytes; hosts may use less.
SAN_MTU = 9000
#: The package archive's last byte on the LAN, and the storage machine's on both networks.
ARCHIVE, STORAGE, FIRST_HOST = 2, 10, 11


def lan(number: int) -> str:
    """Return the address on the LAN with this last byte."""
    return network.address(number)


def san(number: int) -> str:
    """Return the address in the storage network with this last byte."""
    return f"10.77.1.{number}"


def cables(number: int) -> tuple[tuple[str, str, str], ...]:
    """Name a machine's cables, LAN first: tap, bridge, and the MAC address at the machine's end."""
    return (
        (f"lan{number}", network.BRIDGE, f"02:77:00:00:00:{number:02x}"),
        (f"san{number}", SAN, f"02:77:00:00:01:{number:02x}"),
    )


def make_bridges(anchor: Leader) -> None:
    """Make both bridges where they are missing; the LAN's has the archive's address."""
    if not network.is_up(anchor, SAN):
        network.make_bridge(anchor)
        network.ip(anchor, [
            f"addr replace {lan(ARCHIVE)}/24 dev {network.BRIDGE}",
            f"link add {SAN} mtu {SAN_MTU} type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
            f"link set {SAN} up",
        ])  # fmt: skip


def plug_in(anchor: Leader, number: int) -> None:
    """Lay a machine's cables, where they are missing."""
    for tap, bridge, _ in cables(number):
        if not network.has_link(anchor, tap):
            network.ip(anchor, [f"tuntap add dev {tap} mode tap"])
        if bridge == SAN:
            network.ip(anchor, [f"link set {tap} mtu {SAN_MTU}"])
        network.ip(anchor, [f"link set {tap} master {bridge} up"])


def switch(anchor: Leader, number: int, state: str, *, lan: bool, san: bool) -> None:
    """Let nothing pass through a machine's cables ("down"), or all again ("up"); nobody is told."""
    for (tap, _, _), chosen in zip(cables(number), (lan, san), strict=True):
        if chosen:
            network.ip(anchor, [f"link set {tap} {state}"])
