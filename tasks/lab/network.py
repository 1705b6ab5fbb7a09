"""The lab's network: one bridge in the anchor's namespace, a cable to each host and to the laptop.

Addresses are 10.77.0.1 (laptop) and 10.77.0.11... (hosts), MAC addresses are fixed, so that a host that
is switched on again needs no new ARP entries. No cable leads to the machine's own network.
"""

from __future__ import annotations

from collections.abc import Sequence

from tasks.lab.namespaces import Leader, prefix, run, until

BRIDGE = "lab0"
LAPTOP = 1
FIRST_HOST = 11


def address(number: int) -> str:
    """Return the address with this last byte."""
    return f"10.77.0.{number}"


def mac(number: int) -> str:
    """Return the fixed MAC address that belongs to an address."""
    return f"02:77:00:00:00:{number:02x}"


def port(number: int) -> str:
    """Name the bridge's end of a cable."""
    return f"port{number}"


def ip(leader: Leader, lines: Sequence[str]) -> None:
    """Run `ip` commands in a leader's network namespace."""
    run([*prefix(leader, "net"), "ip", "-batch", "-"], stdin="\n".join(lines) + "\n")


def has_link(leader: Leader, name: str) -> bool:
    """Tell whether an interface exists in a leader's network namespace."""
    return run([*prefix(leader, "net"), "ip", "link", "show", name], check=False).returncode == 0


def is_up(leader: Leader, name: str) -> bool:
    """Tell whether an interface exists and is switched on, cable or not."""
    words = [*prefix(leader, "net"), "ip", "-o", "link", "show", "up", "dev", name]
    return bool(run(words, check=False).stdout.strip())


def make_bridge(anchor: Leader) -> None:
    """Make the bridge where it is missing."""
    if is_up(anchor, BRIDGE):
        return
    if not has_link(anchor, BRIDGE):
        ip(anchor, [f"link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"])
    ip(anchor, ["link set lo up", f"link set {BRIDGE} up"])


def plug_in(anchor: Leader, node: Leader, number: int, *, guests_bridge: bool) -> None:
    """Lay the cable between the bridge and a host or the laptop, and give it its address.

    What is there already stays; what an interrupted call left half done is made anew.
    """
    last = "br0" if guests_bridge else "eth0"
    if is_up(node, last):
        return
    unplug(anchor, number)
    ip(anchor, [
        f"link add {port(number)} type veth peer name eth0 address {mac(number)} netns {node.pid}",
        f"link set {port(number)} master {BRIDGE} up",
    ])  # fmt: skip
    if guests_bridge and not has_link(node, "br0"):
        ip(node, ["link add br0 type bridge forward_delay 0"])
    ip(node, [
        "link set lo up",
        f"addr add {address(number)}/24 dev eth0",
        "link set eth0 up",
        f"link set {last} up",
    ])  # fmt: skip


def unplug(anchor: Leader, number: int) -> None:
    """Remove a cable; already gone is fine."""
    # The kernel removes a dead host's cable by itself a moment later, perhaps between a look and a removal.
    words = [*prefix(anchor, "net"), "ip", "link", "del", port(number)]
    run(words, check=False)
    until(lambda: not has_link(anchor, port(number)), 10.0, f"the removal of {port(number)}")


def cut(anchor: Leader, number: int) -> None:
    """Let the switch's port go down: nothing passes, nobody is told."""
    ip(anchor, [f"link set {port(number)} down"])


def mend(anchor: Leader, number: int) -> None:
    """Bring the switch's port up again."""
    ip(anchor, [f"link set {port(number)} up"])
