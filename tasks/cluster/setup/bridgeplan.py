"""From what a host has and hosts.ini wants to netplan's files: the bridge, its NIC, the storage NIC. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_interface
from pathlib import PurePosixPath

from tasks.cluster.asking.network import Link, Network
from tasks.cluster.errors import Refused
from tasks.cluster.setup import layer3, links, netplan
from tasks.cluster.setup.links import Chosen, Wishes
from tasks.cluster.setup.netplan import Body, Configuration, Entry, is_mapping, listed, truth
from tasks.cluster.setup.templates import render

FOLDER = "/etc/netplan"
OWN = f"{FOLDER}/60-vmfab.yaml"
#: Settings of the cable's end, which stay with the NIC or the VLAN.
_LAYER2 = (
    "match",
    "set-name",
    "id",
    "link",
    "mtu",
    "macaddress",
    "wakeonlan",
    "emit-lldp",
    "receive-checksum-offload",
    "transmit-checksum-offload",
    "tcp-segmentation-offload",
    "tcp6-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "large-receive-offload",
    "virtual-function-count",
    "embedded-switch-mode",
    "delay-virtual-functions-rebind",
    "infiniband-mode",
    "auth",
    "activation-mode",
    "ignore-carrier",
)
_SECTIONS = (
    "ethernets",
    "vlans",
    "bridges",
    "bonds",
    "tunnels",
    "wifis",
    "modems",
    "vrfs",
    "dummy-devices",
    "virtual-ethernets",
)
_BY_HAND = "Correct that file on the host, then try again."

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be done. `files` maps paths in /etc/netplan to their new text, or None for one that goes.

    `texts` are all of netplan's files as they are to be, by name. `made` are links that are not there yet,
    `returns` what comes back if it is undone (link, addresses). `there` says why nothing is to be done.
    """

    bridge: str
    port: str
    files: Mapping[str, str | None]
    texts: Mapping[str, str]
    made: tuple[str, ...]
    returns: tuple[tuple[str, tuple[str, ...]], ...]
    #: addresses that the bridge shall have, with prefixes; those that come by DHCP are not known
    addresses: tuple[str, ...]
    #: the files are right, but the kernel does not have what they say
    lagging: str = ""
    there: str = ""
    interrupts: str = ""
    #: the storage NIC, when it is off the network for a moment
    storage: str = ""

    @property
    def todo(self) -> bool:
        return bool(self.files) or bool(self.lagging)


def wanted(network: Network, wished: Wishes) -> Wanted:
    """Compare and compose. Raises Refused, with one sentence, for what is not to be touched."""
    configuration = netplan.read(network.host, network.netplan)
    chosen = links.choose(network, wished)
    storage = links.storage(network, wished)
    return _Composer(network, wished, configuration, chosen, storage).wanted()


class _Composer:
    def __init__(
        self,
        network: Network,
        wished: Wishes,
        configuration: Configuration,
        chosen: Chosen,
        storage: Link | None,
    ) -> None:
        self.network = network
        self.wished = wished
        self.configuration = configuration
        self.chosen = chosen
        own = (chosen.nic, chosen.port, chosen.holder, chosen.bridge)
        #: None also when storage lies on the same NIC as everything else
        self.storage = None if storage in own or (storage and storage.parent == chosen.nic.name) else storage
        if storage is not None and self.storage is None:
            self._shared_storage(storage)
        below = [link for link in own if storage and link and storage.parent == link.name]
        #: what has the storage address and goes where the LAN goes
        self.shared = storage if below or self.storage is None else None
        self.bridge_entry = configuration.named("bridges", wished.bridge)

    # -- the whole -----------------------------------------------------------------------------------

    def wanted(self) -> Wanted:
        lan, storage = self._lan(), self._storage()
        changed = {**lan, **storage}
        self._own_up(changed)
        files = self._files(changed) if changed else {}
        body = lan.get(("bridges", self.wished.bridge)) or (
            self.bridge_entry.body if self.bridge_entry else {}
        )
        lan_lags, storage_lags = self._lan_lags(body), self._storage_lags()
        if lan or lan_lags:
            self._refuse_guests()
        pausing = self.storage if storage or storage_lags else None
        if pausing is None and (lan or lan_lags):
            pausing = self.shared
        texts = {PurePosixPath(path).name: text for path, text in self.configuration.texts.items()}
        for path, text in files.items():
            texts.pop(PurePosixPath(path).name, None)
            if text is not None:
                texts[PurePosixPath(path).name] = text
        chosen, links_now = self.chosen, self.network.links
        made = [name for name in (self.wished.bridge, chosen.port.name) if name not in links_now]
        return Wanted(
            bridge=self.wished.bridge,
            port=chosen.port.name,
            files=files,
            texts=texts,
            made=tuple(made),
            returns=((chosen.holder.name, tuple(a.cidr for a in chosen.holder.addresses if not a.dynamic)),),
            addresses=tuple(layer3.interface(one) for one in listed(body.get("addresses"))),
            lagging=lan_lags or storage_lags,
            there=self._there(body),
            interrupts=self._interrupts(bool(lan or lan_lags), pausing is not None),
            storage=pausing.name if pausing else "",
        )

    def _there(self, body: Body) -> str:
        parameters = body.get("parameters")
        stp = truth(parameters.get("stp", "true")) if is_mapping(parameters) else True
        by_hand = self.bridge_entry is not None and OWN not in self.bridge_entry.paths
        note = "; its STP is on, so a VM's first packets wait for half a minute" if stp and by_hand else ""
        return f"lies over {self.chosen.port.name}" + note

    def _interrupts(self, lan: bool, storage: bool) -> str:
        parts = []
        if lan:
            parts.append(f"{self.network.host} is off the network for some seconds")
        if storage:
            parts.append(
                "so is its storage network" if lan else "its storage network pauses for some seconds"
            )
        return ", ".join(parts)

    # -- the bridge and what is below it -------------------------------------------------------------

    def _lan(self) -> dict[Key, Body]:
        """Changed entries of the bridge, the NIC and a VLAN; nothing when all is so already."""
        if self.bridge_entry is not None and OWN not in self.bridge_entry.paths:
            now = self.bridge_entry.body
            if self._has_port(now) and layer3.overridden(now, self.wished.overrides) == now:
                return {}  # written by hand, and good enough
        if self._others_bridge():
            return {}
        nic, port, holder = self.chosen.nic, self.chosen.port, self.chosen.holder
        wish: dict[Key, Body] = {}
        nic_key, nic_body = self._entry_of(nic, ("ethernets", nic.name))
        emptied = {port.name, *([holder.name] if holder.kind != "bridge" else [])}
        if nic.name in emptied:
            nic_body = {**_layer2(self.network.host, nic_key, nic_body), "dhcp4": "false", "dhcp6": "false"}
        wish[nic_key] = nic_body
        port_key = nic_key
        if port.kind == "vlan":
            self._pattern_of_vlan(nic_key, nic_body)
            port_key, body = self._entry_of(port, ("vlans", port.name))
            body = {"id": str(port.vlan), "link": nic_key[1], **body}
            wish[port_key] = _layer2(self.network.host, port_key, body)
        if holder.kind == "vlan" and holder.name != port.name:
            key, body = self._entry_of(holder, ("vlans", holder.name))
            wish[key] = _layer2(self.network.host, key, body)
        wish["bridges", self.wished.bridge] = self._bridge(port_key[1], nic_key[1])
        return {key: body for key, body in wish.items() if not self._is_so(key, body)}

    def _bridge(self, port: str, nic: str) -> Body:
        others = self._other_ports(port, nic)
        if self.bridge_entry is not None:
            now = self.bridge_entry.body
            above = layer3.of(now)
        else:
            now = {}
            holder = self.chosen.holder
            entry = self.configuration.entry(holder)
            if holder.kind == "bridge":  # it is there, but only a NIC's entry will be after a reboot
                entry = self.configuration.entry(self.chosen.port)
            above = layer3.taken_over(self.network, holder, entry.body if entry else {})
        above = layer3.ordered(layer3.overridden(above, self.wished.overrides))
        self._reachable(above)
        parameters = now.get("parameters")
        own = {"interfaces", "macaddress", "parameters", *layer3.KEYS}
        return {
            "interfaces": [port, *others],
            "macaddress": now.get("macaddress") or self.chosen.holder.mac or self.chosen.port.mac,
            **{key: value for key, value in now.items() if key not in own},
            **above,
            "parameters": {
                **(parameters if is_mapping(parameters) else {}),
                "stp": "false",
                "forward-delay": "0",
            },
        }

    def _other_ports(self, port: str, nic: str) -> list[str]:
        """What else the files have in the bridge. Refuse when that is all: a NIC beside it may be a loop."""
        now = self.bridge_entry.body if self.bridge_entry else {}
        there = [str(name) for name in listed(now.get("interfaces"))]
        below = {
            e.name for e in self.configuration.entries if e.section == "vlans" and e.body.get("link") == nic
        }
        others = [name for name in there if name not in (port, nic) and name not in below]
        if others and others == there:
            raise Refused(
                f"{self.network.host}: {self.wished.bridge} has {', '.join(others)} in it in netplan's "
                f"files, not {port}.",
                "Correct vmfab_nic or vmfab_bridge in hosts.ini.",
            )
        return others

    def _others_bridge(self) -> bool:
        """Whether ifupdown or systemd-networkd has made the bridge, as hosts.ini wants it."""
        bridge, wished = self.chosen.bridge, self.wished
        return (
            self.bridge_entry is None
            and bridge is not None
            and self.chosen.port.master == bridge.name
            and bool(links.configured_by(self.network, bridge))
            and wished.overrides == layer3.Overrides()
        )

    def _pattern_of_vlan(self, key: Key, body: Body) -> None:
        """Refuse a NIC's pattern that would also match the VLAN on it."""
        match, port = body.get("match"), self.chosen.port
        if is_mapping(match) and "macaddress" not in match:
            names = [str(one) for one in (match.get("name"),) if one]
            if any(fnmatchcase(port.name, name) for name in names):
                raise Refused(
                    f"{self.network.host}: netplan's entry {key[1]} matches {port.name}, too.",
                    f"Write the NIC's name there instead of {', '.join(names)}, then try again.",
                )

    def _has_port(self, body: Body) -> bool:
        entry = self.configuration.entry(self.chosen.port)
        name = entry.name if entry else self.chosen.port.name
        vlan = self.wished.vlan is None or self.chosen.port.vlan == self.wished.vlan
        return name in listed(body.get("interfaces")) and vlan

    def _reachable(self, above: Body) -> None:
        """Refuse to take away the address by which the host is reached."""
        holder, address = self.chosen.holder, self.wished.address
        now = [a for a in holder.addresses if a.ip == address and not a.dynamic]
        kept = {str(ip_interface(layer3.interface(one)).ip) for one in listed(above.get("addresses"))}
        if now and address not in kept:
            raise Refused(
                f"{self.network.host}: vmfab_addresses lacks {address}, by which it is reached.",
                "Give the host its new address beside the old one first, and change ansible_host then.",
            )

    # -- the storage NIC -----------------------------------------------------------------------------

    def _storage_name(self) -> str:
        return self._entry_of(self.storage, ("ethernets", self.storage.name))[0][1] if self.storage else ""

    def _storage(self) -> dict[Key, Body]:
        link, wished = self.storage, self.wished
        if link is None:
            return {}
        key, now = self._entry_of(link, ("ethernets", link.name))
        present = {str(ip_interface(layer3.interface(one)).ip) for one in listed(now.get("addresses"))}
        mtu_so = wished.storage_mtu is None or now.get("mtu") == str(wished.storage_mtu)
        if wished.storage_address in present and mtu_so:
            return {}
        live = [a for a in link.addresses if a.ip == wished.storage_address]
        by_dhcp = truth(now.get("dhcp4", "")) and live and live[0].dynamic
        foreign = links.configured_by(self.network, link)
        if (foreign or not link.nic) and live and link.mtu == (wished.storage_mtu or link.mtu):
            return {}  # somebody else's, and right
        if by_dhcp and mtu_so:
            return {}
        if not link.nic:
            raise Refused(
                f"{self.network.host}: its storage address is to be on {link.name}, a {link.kind}, which "
                "vmfab does not set up.",
                "Give it its address and MTU by hand; host.bridge is content then.",
            )
        body = dict(now)
        if wished.storage_address not in present and not by_dhcp:
            addresses = [a.cidr for a in link.addresses if not a.dynamic]
            if not live:
                addresses.append(f"{wished.storage_address}/{wished.storage_prefix}")
            taken = layer3.taken_over(self.network, link, now)
            body.update(taken)
            body["addresses"] = list(
                dict.fromkeys([*map(layer3.interface, listed(taken.get("addresses"))), *addresses])
            )
        if wished.storage_mtu is not None:
            body["mtu"] = str(wished.storage_mtu)
        return {key: body}

    def _shared_storage(self, storage: Link) -> None:
        mtu = self.wished.storage_mtu
        if mtu is not None and mtu != self.chosen.nic.mtu:
            raise Refused(
                f"{self.network.host}: {storage.name} is both its LAN and its storage NIC, and "
                f"vmfab_storage_mtu would change the MTU of both from {self.chosen.nic.mtu} to {mtu}.",
                "Take vmfab_storage_mtu out for this host, or set the MTU by hand.",
            )
        held = {address.ip for address in self.chosen.holder.addresses}
        if self.wished.storage_address not in held:
            raise Refused(
                f"{self.network.host}: {storage.name} is its LAN NIC and lacks the storage address "
                f"{self.wished.storage_address}.",
                "Name another NIC with vmfab_storage_nic, or add the address with vmfab_addresses.",
            )

    # -- the files -----------------------------------------------------------------------------------

    def _entry_of(self, link: Link, default: Key) -> tuple[Key, Body]:
        entry = self.configuration.entry(link)
        if entry is None:
            return default, {}
        return (entry.section, entry.name), self._single(entry, link)

    def _single(self, entry: Entry, link: Link) -> Body:
        """An entry's body for one link: it must be about no other link, and may lose its pattern."""
        match = entry.body.get("match")
        others = [x.name for x in self.network.links.values() if x.name != link.name and entry.means(x)]
        if others and entry.section == "ethernets" and is_mapping(match):
            where = " and ".join(entry.paths)
            raise Refused(
                f"{self.network.host}: the entry {entry.name} in {where} is about {link.name} and "
                f"{', '.join(others)} at once.",
                "Write an entry for each of them, then try again.",
            )
        return entry.body

    def _is_so(self, key: Key, body: Body) -> bool:
        entry = self.configuration.named(*key)
        return entry is not None and entry.body == body

    def _own_up(self, changed: Mapping[Key, Body]) -> None:
        """Refuse when another program, or another kind of file, configures a link that is changed."""
        for link in dict.fromkeys((self.chosen.nic, self.chosen.port, self.chosen.holder, self.storage)):
            if link is None or not changed:
                continue
            if link is self.storage and ("ethernets", self._storage_name()) not in changed:
                continue
            if path := links.configured_by(self.network, link):
                program = "systemd-networkd" if path.endswith(".network") else "ifupdown"
                raise Refused(
                    f"{self.network.host}: {path} configures {link.name}, and {program} would fight netplan "
                    "over it.",
                    f"At the host's console: write {link.name} into {FOLDER}/50-lan.yaml as it is now, take "
                    "it out of the other file, and reboot; then try again.",
                )
            entry = self.configuration.entry(link)
            renderer = str(entry.body.get("renderer", "")) if entry else ""
            if "NetworkManager" in (renderer or self.configuration.renderer):
                raise Refused(
                    f"{self.network.host}: NetworkManager serves {link.name}.",
                    f"Write renderer: networkd into {FOLDER} at the host's console, then try again.",
                )

    def _files(self, changed: Mapping[Key, Body]) -> dict[str, str | None]:
        consumed = self._consumed(changed)
        for path in consumed:
            if str(PurePosixPath(path).parent) != FOLDER:
                raise Refused(
                    f"{self.network.host}: {path} says something about {self.chosen.nic.name}, and vmfab "
                    "changes only files in /etc/netplan.",
                    _BY_HAND,
                )
            for section in self.configuration.files[path]:
                if section not in (*_SECTIONS, "version", "renderer"):
                    raise Refused(
                        f"{self.network.host}: {path} has {section}, which vmfab does not carry over.",
                        _BY_HAND,
                    )
        sections: dict[str, dict[str, Body]] = {name: {} for name in _SECTIONS}
        for key, body in changed.items():
            sections[key[0]][key[1]] = body
        for entry in self.configuration.entries:
            if consumed & set(entry.paths):
                sections[entry.section].setdefault(entry.name, entry.body)
        text = render(
            "netplan-bridge.yaml.j2",
            host=self.network.host,
            bridge=self.wished.bridge,
            port=self.chosen.port.name,
            replaced=sorted(consumed - {OWN}),
            sections={name: found for name, found in sections.items() if found},
        )
        return {OWN: text, **dict.fromkeys(sorted(consumed - {OWN}))}

    def _consumed(self, changed: Mapping[Key, Body]) -> set[str]:
        """The files that are replaced: all that say something about what changes or stands beside it."""
        consumed = {OWN} & self.configuration.texts.keys()
        for entry in self.configuration.entries:
            if (entry.section, entry.name) in changed:
                consumed |= set(entry.paths)
        while True:
            more = {p for e in self.configuration.entries if consumed & set(e.paths) for p in e.paths}
            if more <= consumed:
                return consumed
            consumed |= more

    # -- what the kernel has -------------------------------------------------------------------------

    def _lan_lags(self, body: Body) -> str:
        """What the kernel lacks of the bridge as the files say it."""
        bridge, port = self.chosen.bridge, self.chosen.port
        if bridge is None:
            return f"{self.wished.bridge} is not there"
        if port.master != bridge.name:
            return f"{port.name} is not in {bridge.name}"
        have = {layer3.interface(address.cidr) for address in bridge.addresses}
        for one in listed(body.get("addresses")):
            if layer3.interface(one) not in have:
                return f"{bridge.name} lacks {layer3.interface(one)}"
        return ""

    def _storage_lags(self) -> str:
        """What the kernel lacks of the storage NIC as it is to be."""
        if self.storage is None:
            return ""
        if self.wished.storage_address not in {a.ip for a in self.storage.addresses}:
            return f"{self.storage.name} lacks {self.wished.storage_address}"
        if self.wished.storage_mtu not in (None, self.storage.mtu):
            return f"{self.storage.name} has MTU {self.storage.mtu}"
        return ""

    def _refuse_guests(self) -> None:
        bridge = self.wished.bridge
        if guests := links.guests(self.network, self.chosen.bridge):
            raise Refused(
                f"{self.network.host}: VMs use {bridge} ({', '.join(guests)}), which is to change.",
                f"Empty the host first: fab -H {self.network.host} drain",
            )


def _layer2(host: str, key: Key, body: Body) -> Body:
    """What stays with a NIC or VLAN whose addresses go to the bridge."""
    for name in body:
        if name not in (*_LAYER2, *layer3.KEYS, "renderer"):
            raise Refused(
                f"{host}: netplan's entry {key[1]} says {name}, which vmfab does not carry over.", _BY_HAND
            )
    return {name: body[name] for name in _LAYER2 if name in body}
