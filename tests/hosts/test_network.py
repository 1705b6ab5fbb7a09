"""The bridge that VMs are on, and the NIC of the storage network."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

from tests.hosts.demand import demand, said
from tests.hosts.wanted import Wanted


def link(host: Host, wanted: Wanted, name: str) -> dict[str, Any]:
    """What `ip` tells about a network device."""
    found = said(host, "ip -json -details address show dev %s", name)
    demand(wanted, found, f"there is no network device {name}")
    return next(one for one in json.loads(found) if one)


def ports(host: Host, bridge: str) -> list[str]:
    return said(host, "ls %s", f"/sys/class/net/{bridge}/brif").split()


def below(host: Host, device: str) -> str:
    """The device that a VLAN's device lies on; any other is its own."""
    lower = said(host, "sh -c %s", f"cd /sys/class/net/{device} && ls -d lower_*")
    return lower.partition("_")[2] if "\n" not in lower and lower else device


def nics_on(host: Host, bridge: str) -> list[str]:
    return [nic for nic in (below(host, port) for port in ports(host, bridge)) if has_device(host, nic)]


def has_device(host: Host, name: str) -> bool:
    return host.run("test -e %s", f"/sys/class/net/{name}/device").rc == 0


def addresses(found: dict[str, Any]) -> list[str]:
    """The addresses that are not only the link's own, with their prefix."""
    return [f"{one['local']}/{one['prefixlen']}" for one in found["addr_info"] if one["scope"] == "global"]


def test_bridge_is_up(host: Host, wanted: Wanted) -> None:
    bridge = link(host, wanted, wanted.bridge)
    kind = bridge.get("linkinfo", {}).get("info_kind", "plain device")
    demand(wanted, kind == "bridge", f"{wanted.bridge} is a {kind}, not a bridge")
    demand(wanted, bridge["operstate"] == "UP", f"the bridge {wanted.bridge} is {bridge['operstate']}")


def test_bridge_has_the_hosts_address(host: Host, wanted: Wanted) -> None:
    has = addresses(link(host, wanted, wanted.bridge))
    plain = [address.partition("/")[0] for address in has]
    given = wanted.address if wanted.address.replace(".", "").isdigit() or ":" in wanted.address else ""
    reached = said(host, "sh -c %s", 'set -- $SSH_CONNECTION; echo "$3"')
    for address in wanted.addresses or tuple(filter(None, [given or reached])):
        if address not in ("dhcp", "dhcp4", "dhcp6"):
            there = address in has if "/" in address else address in plain
            demand(wanted, there, f"{wanted.bridge} has {', '.join(has) or 'no address'}, not {address}")
    demand(wanted, has, f"{wanted.bridge} has no address")


def test_default_route_leaves_by_the_bridge(host: Host, wanted: Wanted) -> None:
    routes = [line.split() for line in said(host, "ip route show default").splitlines()]
    devices = {words[words.index("dev") + 1] for words in routes}
    demand(
        wanted,
        devices <= {wanted.bridge, f"{wanted.bridge}.{wanted.vlan}"},
        f"the default route leaves by {', '.join(sorted(devices))}, not by {wanted.bridge}",
    )


def test_nic_is_the_bridges_port(host: Host, wanted: Wanted) -> None:
    found = nics_on(host, wanted.bridge)
    demand(wanted, found, f"no NIC is a port of {wanted.bridge}")
    demand(
        wanted,
        wanted.nic in ("", *found),
        f"{wanted.nic} is not a port of {wanted.bridge}, but {', '.join(found)}",
    )
    for nic in found:
        own = [
            a for a in addresses(link(host, wanted, nic)) if not a.startswith(wanted.storage_address or "-")
        ]
        demand(wanted, not own, f"{nic} is a port of {wanted.bridge} and still has {', '.join(own)}")


def test_bridge_keeps_the_nics_mac(host: Host, wanted: Wanted) -> None:
    mac = link(host, wanted, wanted.bridge)["address"]
    of_nics = [link(host, wanted, nic)["address"] for nic in nics_on(host, wanted.bridge)]
    demand(
        wanted, mac in of_nics, f"{wanted.bridge} has the MAC {mac}, its NIC {', '.join(of_nics) or 'none'}"
    )


def test_bridge_forwards_at_once(host: Host, wanted: Wanted) -> None:
    folder = f"/sys/class/net/{wanted.bridge}/bridge"
    stp, delay = (said(host, "cat %s", f"{folder}/{name}") for name in ("stp_state", "forward_delay"))
    demand(wanted, stp == "0", f"{wanted.bridge} takes part in STP, which keeps a VM off the net for 30 s")
    demand(wanted, delay == "0", f"{wanted.bridge} has a forward delay of {delay or '?'}/100 s, not of 0")


def test_netplan_makes_the_bridge_and_nobody_else_may_read_it(host: Host, wanted: Wanted) -> None:
    files = said(host, "sh -c %s", f"grep -lw {wanted.bridge} /etc/netplan/*.yaml").split()
    demand(
        wanted, files, f"no file in /etc/netplan names {wanted.bridge}: it would not be there after a reboot"
    )
    for path in files:
        mode = said(host, "stat -c '%%a %%U' %s", path)
        demand(wanted, mode == "600 root", f"{path} has mode and owner {mode}, not 600 root")


def test_storage_nic_has_its_address_and_mtu(host: Host, wanted: Wanted) -> None:
    demand(wanted, wanted.storage_address, "the inventory has no vmfab_storage_address for it")
    links = json.loads(said(host, "ip -json address show") or "[]")
    mine = [
        one
        for one in links
        for address in one.get("addr_info", ())
        if address["local"] == wanted.storage_address
    ]
    demand(wanted, mine, f"no network device has the storage address {wanted.storage_address}")
    nic = mine[0]
    name, mtu = nic["ifname"], str(nic["mtu"])
    demand(
        wanted,
        wanted.storage_nic in ("", name),
        f"{wanted.storage_address} is on {name}, not on {wanted.storage_nic}",
    )
    demand(wanted, nic["operstate"] == "UP", f"the storage NIC {name} is {nic['operstate']}")
    demand(
        wanted,
        wanted.storage_mtu in ("", mtu),
        f"the storage NIC {name} has an MTU of {mtu}, not of {wanted.storage_mtu}",
    )


def test_packets_of_full_size_reach_each_store(host: Host, wanted: Wanted) -> None:
    demand(wanted, wanted.storage_address, "the inventory has no vmfab_storage_address for it")
    links = json.loads(said(host, "ip -json address show") or "[]")
    mtu = next(
        (one["mtu"] for one in links for a in one["addr_info"] if a["local"] == wanted.storage_address), 0
    )
    demand(wanted, mtu, f"no network device has the storage address {wanted.storage_address}")
    for store in wanted.stores:
        done = host.run("ping -c 2 -W 5 -M do -s %s %s", str(mtu - 28), store.address)
        demand(wanted, done.rc == 0, f"{store.name} ({store.address}) does not answer packets of {mtu} bytes")
