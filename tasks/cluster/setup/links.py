"""Which NIC the bridge lies over, who has its addresses now, and what stands against bridging it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tasks.cluster.asking.network import Link, Network
from tasks.cluster.errors import Refused
from tasks.cluster.inventory import settings
from tasks.cluster.model import Host
from tasks.cluster.setup.layer3 import Overrides

#: Kinds of links that a VM or container may hang on, beneath which a link cannot become part of a bridge.
_ON_TOP = ("macvtap", "macvlan", "ipvlan", "ipvtap")
#: Kinds of bridge ports that belong to the host and not to a VM.
_HOSTS_OWN = ("", "vlan", "bond")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What hosts.ini says about a host's network."""

    #: where ssh reaches it
    address: str
    bridge: str = "br0"
    nic: str = ""
    vlan: int | None = None
    overrides: Overrides = field(default_factory=Overrides)
    storage_address: str = ""
    storage_prefix: int = 24
    storage_nic: str = ""
    storage_mtu: int | None = None


def wishes(host: Host) -> Wishes:
    """Read a host's variables, each of which was validated. Raises Refused where they disagree."""
    given = host.variables

    def number(name: str) -> int | None:
        return int(given[name]) if name in given else None

    found = Wishes(
        address=host.address,
        bridge=given.get("vmfab_bridge", "br0"),
        nic=given.get("vmfab_nic", ""),
        vlan=number("vmfab_vlan"),
        overrides=Overrides(
            addresses=settings.interfaces(given["vmfab_addresses"]) if "vmfab_addresses" in given else None,
            gateways=settings.gateways(given["vmfab_gateway"]) if "vmfab_gateway" in given else None,
            dns=settings.ip_addresses(given["vmfab_dns"]) if "vmfab_dns" in given else None,
            search=settings.domains(given["vmfab_search"]) if "vmfab_search" in given else None,
        ),
        storage_address=settings.ip_address(given["vmfab_storage_address"])
        if "vmfab_storage_address" in given
        else "",
        storage_prefix=number("vmfab_storage_prefix") or 24,
        storage_nic=given.get("vmfab_storage_nic", ""),
        storage_mtu=number("vmfab_storage_mtu"),
    )
    if found.nic == found.bridge:
        raise Refused(
            f"{host.name}: vmfab_nic and vmfab_bridge are both {found.bridge}.",
            "Give the bridge another name.",
        )
    if (found.storage_mtu or found.storage_nic) and not found.storage_address:
        raise Refused(
            f"{host.name}: there are settings for its storage NIC, but no vmfab_storage_address.",
            "Write vmfab_storage_address=ADDRESS at the host in hosts.ini.",
        )
    return found


@dataclass(frozen=True, slots=True)
class Chosen:
    """The links that a bridge concerns."""

    nic: Link
    #: what becomes part of the bridge: the NIC or a VLAN on it, which need not be there yet
    port: Link
    #: what has the host's addresses now
    holder: Link
    #: the bridge as it is; None when there is none
    bridge: Link | None


def choose(network: Network, wished: Wishes) -> Chosen:
    """Find them. Raises Refused when it cannot be told, or when what is found cannot be bridged."""
    links = network.links
    bridge = links.get(wished.bridge)
    if bridge is not None and bridge.kind != "bridge":
        raise Refused(
            f"{network.host}: {bridge.name} is there and is {bridge.kind or 'a NIC'}, not a bridge.",
            "Name the bridge otherwise with vmfab_bridge in hosts.ini.",
        )
    start = _start(network, wished)
    port = _port(network, wished, start, bridge)
    nic = links.get(port.parent, port) if port.kind == "vlan" else port
    if wished.vlan is not None and port.vlan != wished.vlan:
        port = _vlan(network, nic, wished.vlan)
    above = start is not None and nic.name in (start.name, start.parent) and not _ports(network, bridge)
    holder = start if start is not None and (above or start in (port, bridge)) else links.get(port.name, nic)
    _objections(network, nic, port, bridge)
    return Chosen(nic, port, holder, bridge)


def _start(network: Network, wished: Wishes) -> Link | None:
    """The link with the address that ssh uses, else the one with the default route."""
    for link in network.links.values():
        if wished.address in (address.ip for address in link.addresses):
            return link
    defaults = [r for r in network.routes if r.to == "default" and r.dev in network.links]
    defaults.sort(key=lambda route: (route.family, route.metric or 0))
    return network.links[defaults[0].dev] if defaults else None


def _port(network: Network, wished: Wishes, start: Link | None, bridge: Link | None) -> Link:
    links = network.links
    ports = _ports(network, bridge)
    if wished.nic:
        nic = links.get(wished.nic)
        if nic is None:
            raise Refused(f"{network.host} has no {wished.nic}.", f"Its NICs: {listed(network)}.")
        if ports:
            under = [port for port in ports if nic.name in (port.name, port.parent)]
            if not under:
                raise Refused(
                    f"{network.host}: {wished.bridge} has {_names(ports)} in it, not {nic.name}.",
                    "Correct vmfab_nic or vmfab_bridge in hosts.ini.",
                )
            return under[0]
        return start if start is not None and start.kind == "vlan" and start.parent == nic.name else nic
    if start is None:
        raise Refused(
            f"{network.host}: none of its NICs has {wished.address} or a default route.",
            f"Write vmfab_nic=NAME at the host in hosts.ini. Its NICs: {listed(network)}.",
        )
    if start.kind == "bridge":
        if start.name != wished.bridge:
            raise Refused(
                f"{network.host}: its address lies on another bridge, {start.name}.",
                f"Write vmfab_bridge={start.name} in hosts.ini to keep that one, or take it away by hand.",
            )
        if len(ports) != 1:
            what = _names(ports) or "no NIC"
            raise Refused(
                f"{network.host}: {start.name} has {what} in it.", "Write vmfab_nic=NAME in hosts.ini."
            )
        return ports[0]
    if not ports or start in ports:
        return start
    below = start.parent if wished.vlan is not None and start.kind == "vlan" else start.name
    under = [port for port in ports if below in (port.name, port.parent)]
    if not under:
        has_address = wished.address in (address.ip for address in start.addresses)
        lower = ports[0].parent or ports[0].name
        raise Refused(
            f"{network.host}: {wished.bridge} has {_names(ports)} in it, but the host's "
            f"{'address' if has_address else 'default route'} is on {start.name}.",
            f"Write vmfab_nic={lower} at {network.host} in hosts.ini to keep it so.",
        )
    return under[0]


def _names(found: Iterable[Link]) -> str:
    return ", ".join(link.name for link in found)


def _ports(network: Network, bridge: Link | None) -> list[Link]:
    """What a bridge has in it of the host's own, without the VMs' links."""
    if bridge is None:
        return []
    return [link for link in network.links.values() if link.master == bridge.name and link.kind in _HOSTS_OWN]


def _vlan(network: Network, nic: Link, number: int) -> Link:
    for link in network.links.values():
        if link.kind == "vlan" and link.parent == nic.name and link.vlan == number:
            return link
    name = f"{nic.name}.{number}"
    if len(name) > 15:  # no longer name fits into the kernel
        name = f"vlan{number}"
    return Link(name, "vlan", nic.mac, parent=nic.name, vlan=number, mtu=nic.mtu)


def _objections(network: Network, nic: Link, port: Link, bridge: Link | None) -> None:
    by_hand = "Write the bridge into netplan's files by hand; host.bridge is content with one that is there."
    if nic.wireless:
        raise Refused(f"{network.host}: {nic.name} is wireless and cannot be part of a bridge.", by_hand)
    for link in dict.fromkeys((nic, port)):
        if link.master and (bridge is None or link.master != bridge.name):
            master = network.links.get(link.master)
            kind = master.kind if master else "link"
            raise Refused(
                f"{network.host}: {link.name} is part of the {kind} {link.master}.",
                f"Write vmfab_bridge={link.master} to keep that bridge." if kind == "bridge" else by_hand,
            )
        for other in network.links.values():
            if other.kind in _ON_TOP and other.parent == link.name:
                raise Refused(
                    f"{network.host}: {other.kind} {other.name} lies on {link.name}, most likely a VM's.",
                    "Move that VM away first, and let its definition name the bridge.",
                )
    if port.kind not in ("", "vlan") and (bridge is None or port.master != bridge.name):
        raise Refused(
            f"{network.host}: its address lies on {port.name}, a {port.kind}, which vmfab does not bridge.",
            by_hand,
        )
    if port.kind == "vlan" and not nic.nic and (bridge is None or port.master != bridge.name):
        raise Refused(f"{network.host}: {port.name} lies on {nic.name}, a {nic.kind}, not on a NIC.", by_hand)


def guests(network: Network, bridge: Link | None) -> list[str]:
    """The links of VMs in a bridge."""
    if bridge is None:
        return []
    return [x.name for x in network.links.values() if x.master == bridge.name and x.kind not in _HOSTS_OWN]


def storage(network: Network, wished: Wishes) -> Link | None:
    """The storage NIC; None when hosts.ini says nothing about it. Raises Refused when it cannot be found."""
    if not wished.storage_address:
        return None
    if wished.storage_nic:
        link = network.links.get(wished.storage_nic)
        if link is None:
            raise Refused(f"{network.host} has no {wished.storage_nic}.", f"Its NICs: {listed(network)}.")
        return link
    for link in network.links.values():
        if wished.storage_address in (address.ip for address in link.addresses):
            return link
    raise Refused(
        f"{network.host}: no NIC has its storage address, {wished.storage_address}.",
        f"Write vmfab_storage_nic=NAME at the host in hosts.ini. Its NICs: {listed(network)}.",
    )


def listed(network: Network) -> str:
    """The NICs with what tells them apart."""
    nics = [link for link in network.links.values() if link.nic]
    return ", ".join(
        f"{nic.name} ({', '.join([nic.mac, *(address.ip for address in nic.addresses)])})" for nic in nics
    )


def configured_by(network: Network, link: Link) -> str:
    """The file of ifupdown or systemd-networkd that configures a link, "" when none does."""
    for path, text in network.others.items():
        if path.endswith(".network"):
            matched = _matched_names(text)
            if any(fnmatchcase(link.name, pattern) for pattern in matched):
                return path
        elif re.search(rf"^\s*iface\s+{re.escape(link.name)}\s", text, re.MULTILINE):
            return path
    return ""


def _matched_names(text: str) -> Iterable[str]:
    section = ""
    for line in text.splitlines():
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Match]" and (found := re.match(r"Name\s*=\s*(.*)", line)):
            yield from found[1].split()
