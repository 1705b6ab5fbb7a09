"""What a link has above its cable: addresses, routes, name servers; taken over, and overridden."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.cluster.asking.network import Link, Network, Route
from tasks.cluster.errors import Refused
from tasks.cluster.setup.netplan import Body, Value, is_mapping, listed, truth

#: Keys of a netplan entry that go where the addresses go, in the order in which they are written.
KEYS = (
    "dhcp4",
    "dhcp6",
    "dhcp-identifier",
    "dhcp4-overrides",
    "dhcp6-overrides",
    "accept-ra",
    "ipv6-privacy",
    "ipv6-address-generation",
    "ipv6-address-token",
    "ipv6-mtu",
    "link-local",
    "optional",
    "optional-addresses",
    "critical",
    "addresses",
    "gateway4",
    "gateway6",
    "routes",
    "routing-policy",
    "nameservers",
)
#: The kernel's own metric for IPv6 routes.
_USUAL_METRIC = {"inet": 0, "inet6": 1024}


@dataclass(frozen=True, slots=True)
class Overrides:
    """What hosts.ini says instead of what the host has; None leaves that as it is."""

    addresses: tuple[str, ...] | None = None
    gateways: tuple[str, ...] | None = None
    dns: tuple[str, ...] | None = None
    search: tuple[str, ...] | None = None


def of(body: Body) -> Body:
    """The part of a netplan entry that goes with the addresses."""
    return {key: body[key] for key in KEYS if key in body}


def taken_over(network: Network, holder: Link, body: Body) -> Body:
    """All that a link is and does now, for another link that takes its place.

    `body` is what netplan says about it; what the kernel has besides, by hand or by another program, comes
    on top.
    Raises Refused for a route over several links, which cannot be written.
    """
    found = of(body)
    for key in ("dhcp4", "dhcp6"):
        if key in found and not truth(found[key]):
            del found[key]
    _take_addresses(network, holder, found, known=bool(body))
    found["routes"] = _routes(network, holder, found)
    for key in ("gateway4", "gateway6"):
        found.pop(key, None)
    if not found.get("nameservers"):
        _take_nameservers(network, holder, found)
    if truth(found.get("dhcp4", "")):
        # A server that knows its clients by their MAC, or forgets what it knew, still knows this one.
        found.setdefault("dhcp-identifier", "mac")
    return ordered(found)


def _take_addresses(network: Network, holder: Link, found: dict[str, Value], *, known: bool) -> None:
    written = listed(found.get("addresses"))
    have = {interface(one) for one in written}
    for address in holder.addresses:
        if not address.dynamic and interface(address.cidr) not in have:
            written.append(address.cidr)
    found["addresses"] = written
    dynamic = [address for address in holder.addresses if address.dynamic]
    if not known:
        if any(address.family == "inet" for address in dynamic):
            found["dhcp4"] = "true"
        if any(address.family == "inet6" and address.cidr.endswith("/128") for address in dynamic):
            found["dhcp6"] = "true"
    advertised = any(address.family == "inet6" and not address.cidr.endswith("/128") for address in dynamic)
    if advertised or any(r.dev == holder.name and r.protocol == "ra" for r in network.routes):
        # Said aloud, because the kernel stops listening to routers when libvirt makes it one.
        found.setdefault("accept-ra", "true")


def _take_nameservers(network: Network, holder: Link, found: Body) -> None:
    """Name servers that are in use and not written down, but for those that come by themselves."""
    advertised = truth(found.get("dhcp6", "")) or truth(found.get("accept-ra", ""))
    automatic = {4: truth(found.get("dhcp4", "")), 6: advertised}
    servers = [
        server
        for server in network.dns.get(holder.name, ())
        if not automatic[ipaddress.ip_address(server).version]
    ]
    if servers:
        search = () if any(automatic.values()) else network.domains.get(holder.name, ())
        found["nameservers"] = nameservers(search, tuple(servers))


def _routes(network: Network, holder: Link, found: Mapping[str, Value]) -> list[Value]:
    routes: list[Value] = []
    for key in ("gateway4", "gateway6"):
        if key in found:
            routes.append({"to": "default", "via": found[key]})
    routes += [_spelled(route) for route in listed(found.get("routes"))]
    have = {_key(route, holder) for route in routes if is_mapping(route)}
    for live in network.routes:
        if live.dev != holder.name or not live.static:
            continue
        if live.multipath:
            raise Refused(
                f"{network.host}: the route to {live.to} has several ways, which vmfab does not carry over.",
                "Write it into netplan's files first, or remove it.",
            )
        route = _written(live)
        if _key(route, holder) not in have:
            routes.append(route)
            have.add(_key(route, holder))
    return routes


def _spelled(route: Value) -> Value:
    """A route of a netplan file, with `default` spelled so."""
    if is_mapping(route) and route.get("to") in ("0.0.0.0/0", "::/0", "0/0"):
        return {**route, "to": "default"}
    return route


def _written(live: Route) -> Body:
    route: Body = {"to": live.to}
    if live.via:
        route["via"] = live.via
    elif live.scope == "link" or live.family == "inet6":
        route["scope"] = "link"
    if live.source:
        route["from"] = live.source
    if live.metric is not None and live.metric != _USUAL_METRIC[live.family]:
        route["metric"] = str(live.metric)
    if live.onlink:
        route["on-link"] = "true"
    return route


def _key(route: Body, holder: Link) -> tuple[str, str, str]:
    """What makes two routes the same one."""
    to, via = str(route.get("to", "")), str(route.get("via", ""))
    if to == "default":
        to = f"default {'inet6' if ':' in via else 'inet'}"
    elif "/" not in to:
        to += "/128" if ":" in to else "/32"
    return to.lower(), via.lower(), str(route.get("table", "main")).replace("254", "main")


def interface(written: Value) -> str:
    """An address of a netplan file in one spelling; it may be a mapping with options."""
    text = str(next(iter(written))) if is_mapping(written) and written else str(written)
    try:
        return str(ipaddress.ip_interface(text))
    except ValueError:
        return text


def nameservers(search: tuple[str, ...], addresses: tuple[str, ...]) -> Body:
    """What stands below `nameservers`."""
    found: Body = {}
    if search:
        found["search"] = list(search)
    if addresses:
        found["addresses"] = list(addresses)
    return found


def overridden(body: Body, overrides: Overrides) -> Body:
    """An entry with what hosts.ini says in its place; the same entry when it says nothing or the same."""
    found = dict(body)
    if overrides.addresses is not None:
        if [interface(one) for one in listed(body.get("addresses"))] != list(overrides.addresses):
            found["addresses"] = list(overrides.addresses)
        versions = {ipaddress.ip_interface(one).version for one in overrides.addresses}
        for version in versions:
            found.pop(f"dhcp{version}", None)
    if overrides.gateways is not None:
        routes = [one for one in listed(body.get("routes")) if not _replaced(one, overrides.gateways)]
        gateways: list[Value] = [{"to": "default", "via": via} for via in overrides.gateways]
        present = {_via(one) for one in listed(body.get("routes"))}
        if not set(overrides.gateways) <= present or len(routes) + len(gateways) != len(
            listed(body.get("routes"))
        ):
            found["routes"] = [*gateways, *routes]
        for via in overrides.gateways:
            found.pop("gateway6" if ":" in via else "gateway4", None)
    before = body.get("nameservers")
    servers = dict(before) if is_mapping(before) else {}
    if overrides.search is not None:
        servers["search"] = list(overrides.search)
    if overrides.dns is not None:
        servers["addresses"] = list(overrides.dns)
    if servers:
        found["nameservers"] = {key: servers[key] for key in ("search", "addresses") if servers.get(key)}
    return found if found != body else body


def _via(route: Value) -> str:
    """The gateway of a default route, "" for any other route."""
    return str(route.get("via", "")) if is_mapping(route) and route.get("to") == "default" else ""


def _replaced(route: Value, gateways: tuple[str, ...]) -> bool:
    """Whether this default route goes, because another one of its family comes."""
    via = _via(route)
    if not via or (is_mapping(route) and "table" in route):
        return False
    return any((":" in via) == (":" in gateway) for gateway in gateways)


def ordered(body: Body) -> Body:
    """In the order of KEYS, without empty lists (but link-local, where an empty one means none)."""
    return {
        key: body[key]
        for key in KEYS
        if key in body and (key == "link-local" or body[key] not in ([], {}, None, ""))
    }
