"""A host's network as it answers: links, addresses, routes, name servers, the files that configure them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.cluster.model import require


@dataclass(frozen=True, slots=True)
class Address:
    """An address that a link has now. `dynamic`: it came by DHCP or a router's advertisement."""

    family: str
    cidr: str
    dynamic: bool = False

    @property
    def ip(self) -> str:
        return self.cidr.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. `kind` is empty for a NIC (else bridge, bond, vlan, tun, macvtap, ...)."""

    name: str
    kind: str = ""
    mac: str = ""
    #: the one burnt in, where it differs
    permanent_mac: str = ""
    mtu: int = 1500
    #: the bridge or bond that it is part of
    master: str = ""
    #: what a vlan, macvtap, ... lies on
    parent: str = ""
    vlan: int | None = None
    driver: str = ""
    wireless: bool = False
    loopback: bool = False
    #: those of global scope, in the kernel's order
    addresses: tuple[Address, ...] = ()

    @property
    def nic(self) -> bool:
        return not self.kind and not self.loopback


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table; `to` is default or a network, `protocol` who made it (boot: by hand)."""

    family: str
    to: str
    dev: str
    via: str = ""
    protocol: str = "boot"
    scope: str = ""
    metric: int | None = None
    source: str = ""
    onlink: bool = False
    #: several ways to one network
    multipath: bool = False

    @property
    def static(self) -> bool:
        return self.protocol not in ("kernel", "dhcp", "ra", "redirect")


@dataclass(frozen=True, slots=True)
class Network:
    """Everything in one answer."""

    host: str
    links: Mapping[str, Link]
    routes: tuple[Route, ...] = ()
    #: link -> name servers, and search domains
    dns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    domains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: path -> text of the files that netplan reads
    netplan: Mapping[str, str] = field(default_factory=dict)
    #: the same of ifupdown and systemd-networkd
    others: Mapping[str, str] = field(default_factory=dict)
    programs: frozenset[str] = frozenset()
    systemd: bool = True
    cloud_init: bool = False
    #: a change is being tried at this moment
    trying: bool = False


def network(host: str, reply: Mapping[str, Any]) -> Network:
    """The answer to `network`. Raises ValueError, KeyError or TypeError when it is not understood."""
    devices = require(reply, "devices", dict)
    links = [_link(entry, devices) for entry in require(reply, "links", list)]
    return Network(
        host=host,
        links={link.name: link for link in links},
        routes=tuple(_routes(require(reply, "routes", list))),
        dns={link: _servers(words) for link, words in _by_link(require(reply, "dns", str))},
        domains={
            link: tuple(word for word in words if not word.startswith("~"))
            for link, words in _by_link(require(reply, "domains", str))
        },
        netplan=_files(require(reply, "netplan", list)),
        others=_files(require(reply, "others", list)),
        programs=frozenset(map(str, require(reply, "programs", list))),
        systemd=require(reply, "systemd", bool),
        cloud_init=require(reply, "cloud_init", bool),
        trying=require(reply, "trying", bool),
    )


def _link(entry: Mapping[str, Any], devices: Mapping[str, Any]) -> Link:
    name = require(entry, "ifname", str)
    info = entry.get("linkinfo") or {}
    device = devices.get(name) or {}
    vlan = (info.get("info_data") or {}).get("id") if info.get("info_kind") == "vlan" else None
    return Link(
        name=name,
        kind=str(info.get("info_kind", "")),
        mac=str(entry.get("address", "")),
        permanent_mac=str(entry.get("permaddr", "")),
        mtu=require(entry, "mtu", int),
        master=str(entry.get("master", "")),
        parent=str(entry.get("link") or ""),
        vlan=None if vlan is None else int(vlan),
        driver=str(device.get("driver", "")),
        wireless=bool(device.get("wireless", False)),
        loopback=entry.get("link_type") == "loopback",
        addresses=tuple(_addresses(entry.get("addr_info", []))),
    )


def _addresses(entries: Sequence[Mapping[str, Any]]) -> Iterator[Address]:
    for entry in entries:
        if entry.get("scope") != "global":
            continue
        cidr = f"{ipaddress.ip_address(entry['local'])}/{int(entry['prefixlen'])}"
        dynamic = (
            bool(entry.get("dynamic") or entry.get("temporary") or entry.get("mngtmpaddr"))
            or entry.get("protocol") == "kernel_ra"
        )
        yield Address(require(entry, "family", str), cidr, dynamic)


def _routes(entries: Sequence[Mapping[str, Any]]) -> Iterator[Route]:
    for entry in entries:
        if entry.get("type", "unicast") != "unicast":
            continue  # blackhole and the like belong to no link
        multipath = "nexthops" in entry
        for hop in entry.get("nexthops") or [entry]:
            metric = entry.get("metric")
            via = hop.get("gateway") or (hop.get("via") or {}).get("host", "")
            yield Route(
                family=require(entry, "family", str),
                to=require(entry, "dst", str),
                dev=str(hop.get("dev", "")),
                via=str(via),
                protocol=str(entry.get("protocol", "boot")),
                scope=str(entry.get("scope", "")),
                metric=None if metric is None else int(metric),
                source=str(entry.get("prefsrc", "")),
                onlink="onlink" in hop.get("flags", []),
                multipath=multipath,
            )


def _by_link(text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What resolvectl prints: `Link 2 (eno1): WORD WORD`."""
    for line in text.splitlines():
        head, colon, words = line.partition(":")
        if colon and head.startswith("Link ") and head.endswith(")"):
            yield head.partition("(")[2][:-1], tuple(words.split())


def _servers(words: Sequence[str]) -> tuple[str, ...]:
    """Addresses of name servers; resolvectl may add a port, an interface and a name."""
    found = []
    for word in words:
        bare = word.partition("#")[0].partition("%")[0]
        if bare.startswith("["):
            bare = bare[1:].partition("]")[0]
        elif bare.count(":") == 1:
            bare = bare.partition(":")[0]
        found.append(str(ipaddress.ip_address(bare)))
    return tuple(found)


def _files(entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {require(entry, "path", str): require(entry, "text", str) for entry in entries}
