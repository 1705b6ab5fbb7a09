"""From a host's network to netplan's files: recorded hosts, what an admin would write, what is refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import check
from tasks.cluster.asking.network import Address, Link, Network, Route, network
from tasks.cluster.errors import Refused
from tasks.cluster.inventory.inventory import load
from tasks.cluster.model import Host
from tasks.cluster.setup import layer3, links, netplan
from tasks.cluster.setup.bridgeplan import OWN, Wanted, wanted

DATA = check.ROOT / "tests/data/netplan"
NETPLAN = Path("/usr/sbin/netplan")
STORAGE = {"vmfab_storage_address": "192.168.0.21"}
#: recorded network -> the host's address, and its variables in hosts.ini
CASES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "one-nic": ("10.0.0.11", STORAGE),
    "vlan": ("10.0.0.11", STORAGE),
    "vlan-new": ("10.0.0.11", {"vmfab_vlan": "100"}),
    "ipv6": ("10.0.0.11", {}),
    "ipv6-advertised": ("10.0.0.11", {}),
    "dhcp": ("vmhost1.example.org", {**STORAGE, "vmfab_storage_nic": "enp2s0", "vmfab_storage_mtu": "9000"}),
    "no-dns": ("10.0.0.11", {}),
    "not-netplans": ("10.0.0.11", {}),
    "overridden": (
        "10.0.0.11",
        {
            "vmfab_bridge": "lan",
            "vmfab_addresses": "10.0.0.11/23, 2001:db8::11/64",
            "vmfab_gateway": "10.0.1.1, 2001:db8::1",
            "vmfab_dns": "10.0.0.5, 2001:db8::5",
            "vmfab_search": "example.org, example.com",
        },
    ),
}
#: Those of the institute's own hosts.ini.
OURS = {"vmhost1": "ubuntu-22.04", "vmhost2": "ubuntu-24.04"}
RECORDED = {"overridden": "no-dns"}


def recorded(case: str, host: str = "vmhost1") -> Network:
    text = (DATA / f"{RECORDED.get(case, case)}.json").read_text(encoding="utf-8")
    return network(host, json.loads(text))


def wish(address: str, **variables: str) -> links.Wishes:
    return links.wishes(Host("vmhost1", address, variables=variables))


def planned(case: str) -> tuple[Network, links.Wishes, Wanted]:
    address, variables = CASES[case]
    found, wished = recorded(case), wish(address, **variables)
    return found, wished, wanted(found, wished)


def ours(host: str) -> tuple[Network, links.Wishes, Wanted]:
    """A host of the hosts.ini that is beside vmfab, as its release's installer leaves it."""
    inventory = load(check.ROOT / "hosts.ini")
    found, wished = recorded(OURS[host], host), links.wishes(inventory.hosts[host])
    return found, wished, wanted(found, wished)


def all_cases() -> dict[str, tuple[Network, links.Wishes, Wanted]]:
    return {**{case: planned(case) for case in CASES}, **{OURS[host]: ours(host) for host in OURS}}


def carried_out(before: Network, made: Wanted) -> Network:
    """The network as netplan would make it: only what the plan looks at."""
    texts = {path: text for path, text in {**before.netplan, **made.files}.items() if text is not None}
    entries = {e.name: e for e in netplan.read(before.host, texts).entries}
    now = dict(before.links)
    for name, entry in entries.items():
        kind = {"bridges": "bridge", "vlans": "vlan"}.get(entry.section, "")
        link = now.get(name) or Link(name, kind)
        if kind == "vlan":
            link = replace(link, parent=str(entry.body["link"]), vlan=int(str(entry.body["id"])))
        addresses = [str(one) for one in netplan.listed(entry.body.get("addresses"))]
        dynamic = tuple(a for a in link.addresses if a.dynamic)
        given = tuple(Address("inet6" if ":" in a else "inet", a) for a in addresses)
        now[name] = replace(
            link,
            addresses=(*given, *dynamic),
            mac=str(entry.body.get("macaddress", link.mac)),
            mtu=int(str(entry.body.get("mtu", link.mtu))),
        )
    for name, entry in entries.items():
        for port in netplan.listed(entry.body.get("interfaces")):
            now[str(port)] = replace(now[str(port)], master=name)
            dynamic = tuple(a for a in now[str(port)].addresses if a.dynamic)
            now[name] = replace(now[name], addresses=(*now[name].addresses, *dynamic))
            now[str(port)] = replace(now[str(port)], addresses=())
    routes = tuple(
        Route("inet6" if ":" in str(r.get("via")) else "inet", str(r["to"]), name, str(r.get("via", "")))
        for name, entry in entries.items()
        for r in netplan.listed(entry.body.get("routes"))
        if netplan.is_mapping(r)
    )
    kept = tuple(replace(r, dev=made.bridge) for r in before.routes if r.protocol in ("dhcp", "ra"))
    return replace(before, links=now, routes=routes + kept, netplan=texts)


@pytest.mark.parametrize("case", [*CASES, *OURS.values()])
def test_the_file_is_what_an_admin_would_have_written(case: str) -> None:
    _, _, made = all_cases()[case]
    assert made.files[OWN] == (DATA / f"{case}.yaml").read_text(encoding="utf-8")
    assert all(text is None for path, text in made.files.items() if path != OWN)


@pytest.mark.parametrize("case", [*CASES, *OURS.values()])
def test_netplan_accepts_it(case: str, tmp_path: Path) -> None:
    """netplan's own generator reads it, says nothing, and makes a bridge of it."""
    if not NETPLAN.exists():
        pytest.skip("netplan.io is not installed")
    _, _, made = all_cases()[case]
    folder = tmp_path / "etc/netplan"
    folder.mkdir(parents=True)
    for name, text in made.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o600)
    done = subprocess.run(
        [str(NETPLAN), "generate", "--root-dir", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, "")
    units = tmp_path / "run/systemd/network"
    netdev = (units / f"10-netplan-{made.bridge}.netdev").read_text(encoding="utf-8")
    assert "STP=false" in netdev
    assert "ForwardDelaySec=0" in netdev
    assert "MACAddress=" in netdev
    assert f"Bridge={made.bridge}" in (units / f"10-netplan-{made.port}.network").read_text(encoding="utf-8")


@pytest.mark.parametrize("case", [*CASES, *OURS.values()])
def test_the_same_again_is_content(case: str) -> None:
    before, wished, made = all_cases()[case]
    after = carried_out(before, made)
    again = wanted(after, wished)
    assert again.files == {}
    assert again.lagging == ""


@pytest.mark.parametrize("case", [*CASES, *OURS.values()])
def test_what_can_be_made_can_be_taken_back(case: str) -> None:
    before, _, made = all_cases()[case]
    assert made.bridge in made.made
    assert not set(made.made) & set(before.links)
    (link, addresses), *_ = made.returns
    assert {a.cidr for a in before.links[link].addresses if not a.dynamic} == set(addresses)


V4 = st.integers(2, 250).map(lambda n: f"10.0.{n}.11/24")
V6 = st.integers(2, 250).map(lambda n: f"2001:db8:{n:x}::11/64")
ADDRESSES = st.lists(V4 | V6, max_size=5, unique=True)
ROUTES = st.lists(
    st.tuples(st.integers(1, 250), st.integers(1, 250)).map(
        lambda n: (f"172.16.{n[0]}.0/24", f"10.0.0.{n[1]}")
    ),
    max_size=4,
    unique=True,
)


@settings(deadline=None)
@given(
    written=ADDRESSES, live=ADDRESSES, in_file=ROUTES, in_kernel=ROUTES, dhcp=st.booleans(), other=ADDRESSES
)
def test_no_address_and_no_route_is_lost(
    written: list[str],
    live: list[str],
    in_file: list[tuple[str, str]],
    in_kernel: list[tuple[str, str]],
    dhcp: bool,
    other: list[str],
) -> None:
    body: dict[str, object] = {"addresses": written, "dhcp4": str(dhcp).lower()}
    body["routes"] = [{"to": to, "via": via} for to, via in in_file]
    text = netplan.block({"network": {"ethernets": {"eno1": body, "eno2": {"addresses": other}}}})
    has = tuple(Address("inet6" if ":" in a else "inet", a) for a in ("10.0.0.11/24", *live))
    before = host_with(
        Link("eno1", mac="3c:ec:ef:aa:bb:10", addresses=has),
        text=text,
        routes=tuple(Route("inet", to, "eno1", via, "static") for to, via in in_kernel),
    )
    made = wanted(before, wish("10.0.0.11"))
    new = made.files[OWN]
    assert new is not None
    entries = {e.name: e.body for e in netplan.read("vmhost1", {OWN: new}).entries}
    bridge = entries["br0"]
    got = {layer3.interface(one) for one in netplan.listed(bridge.get("addresses"))}
    assert got == {"10.0.0.11/24", *written, *live}
    ways = {(r["to"], r["via"]) for r in netplan.listed(bridge.get("routes")) if netplan.is_mapping(r)}
    assert ways == {*in_file, *in_kernel}
    assert (bridge.get("dhcp4") == "true") is dhcp
    assert netplan.listed(entries["eno2"].get("addresses")) == other
    assert not netplan.listed(entries["eno1"].get("addresses"))
    assert not wanted(carried_out(before, made), wish("10.0.0.11")).todo


VALUES = st.recursive(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=4))
def test_what_is_written_is_what_is_read(value: dict[str, object]) -> None:
    text = netplan.block(value) if value else "{}"
    assert yaml.load(text, Loader=yaml.BaseLoader) == value


def test_nothing_is_written_in_the_institutes_own_inventory_that_is_not_there() -> None:
    inventory = load(check.ROOT / "hosts.ini")
    for host in inventory.hosts.values():
        assert links.wishes(host).bridge == "br0"


# -- what is left alone, and what is refused


def host_with(*more: Link, text: str = "", **changes: Any) -> Network:
    """A plain host, with other links (of the same name: instead) and a netplan file."""
    plain = (
        Link("lo", loopback=True),
        Link("eno1", mac="3c:ec:ef:aa:bb:10", driver="igb", addresses=(Address("inet", "10.0.0.11/24"),)),
        Link("eno2", mac="3c:ec:ef:aa:bb:11", driver="igb"),
    )
    found = {link.name: link for link in (*plain, *more)}
    given: dict[str, Any] = {
        "routes": (Route("inet", "default", "eno1", "10.0.0.1", "static"),),
        "netplan": {"/etc/netplan/01-netcfg.yaml": text} if text else {},
        "programs": frozenset(["netplan"]),
        **changes,
    }
    return Network("vmhost1", found, **given)


BRIDGED = (
    Link("eno1", mac="3c:ec:ef:aa:bb:10", driver="igb", master="br0"),
    Link("br0", "bridge", "3c:ec:ef:aa:bb:10", addresses=(Address("inet", "10.0.0.11/24"),)),
)
BY_HAND = """\
network:
  ethernets: {eno1: {}}
  bridges:
    br0: {interfaces: [eno1], addresses: [10.0.0.11/24], routes: [{to: default, via: 10.0.0.1}]}
"""


def test_a_bridge_by_hand_is_good_enough() -> None:
    made = wanted(host_with(*BRIDGED, text=BY_HAND), wish("10.0.0.11"))
    assert not made.todo
    assert "its STP is on" in made.there


def test_a_bridge_of_ifupdown_is_good_enough() -> None:
    others = {"/etc/network/interfaces": "auto br0\niface br0 inet static\n  bridge_ports eno1\n"}
    assert not wanted(host_with(*BRIDGED, others=others), wish("10.0.0.11")).todo


def test_a_bridge_by_hand_changes_where_hosts_ini_says_so() -> None:
    made = wanted(host_with(*BRIDGED, text=BY_HAND), wish("10.0.0.11", vmfab_dns="10.0.0.2"))
    text = made.files[OWN]
    assert text is not None
    assert "stp: false" in text
    assert "addresses: [10.0.0.2]" in text
    assert made.made == ()


def test_files_that_are_right_are_applied_where_the_kernel_lags() -> None:
    eno1, br0 = BRIDGED
    made = wanted(host_with(replace(eno1, master=""), br0, text=BY_HAND), wish("10.0.0.11", vmfab_nic="eno1"))
    assert made.files == {}
    assert made.lagging == "eno1 is not in br0"


def vlan(name: str, number: int, *, master: str = "", address: str = "") -> Link:
    has = (Address("inet", address),) if address else ()
    return Link(name, "vlan", "3c:ec:ef:aa:bb:10", parent="eno1", vlan=number, master=master, addresses=has)


#: The host's address is on one NIC or VLAN, and a bridge without any, written by hand, lies over another.
APART: Mapping[str, Network] = {
    "another NIC": host_with(
        Link("eno2", mac="3c:ec:ef:aa:bb:11", master="br0"),
        Link("br0", "bridge"),
        Link("vnet0", "tun", master="br0"),
        text="network: {ethernets: {eno1: {addresses: [10.0.0.11/24]}, eno2: {}},"
        " bridges: {br0: {interfaces: [eno2]}}}\n",
    ),
    "another NIC, DHCP": host_with(
        Link("eno1", mac="3c:ec:ef:aa:bb:10", addresses=(Address("inet", "10.0.0.11/24", dynamic=True),)),
        Link("eno2", mac="3c:ec:ef:aa:bb:11", master="br0"),
        Link("br0", "bridge"),
        text="network: {ethernets: {eno1: {dhcp4: true}, eno2: {}}, bridges: {br0: {interfaces: [eno2]}}}\n",
    ),
    "another VLAN": host_with(
        Link("eno1", mac="3c:ec:ef:aa:bb:10"),
        vlan("eno1.10", 10, address="10.0.0.11/24"),
        vlan("eno1.100", 100, master="br0"),
        Link("br0", "bridge"),
        text="network: {ethernets: {eno1: {}}, vlans: {eno1.10: {id: 10, link: eno1,"
        " addresses: [10.0.0.11/24]}, eno1.100: {id: 100, link: eno1}},"
        " bridges: {br0: {interfaces: [eno1.100]}}}\n",
    ),
    "no VLAN": host_with(
        Link("eno1", mac="3c:ec:ef:aa:bb:10", master="br0"),
        vlan("eno1.10", 10, address="10.0.0.11/24"),
        Link("br0", "bridge"),
        text="network: {ethernets: {eno1: {}}, vlans: {eno1.10: {id: 10, link: eno1,"
        " addresses: [10.0.0.11/24]}}, bridges: {br0: {interfaces: [eno1]}}}\n",
    ),
}
#: port of that bridge, link with the host's address, the NIC to write
SEPARATE: Mapping[str, tuple[str, str, str]] = {
    "another NIC": ("eno2", "eno1", "eno2"),
    "another NIC, DHCP": ("eno2", "eno1", "eno2"),
    "another VLAN": ("eno1.100", "eno1.10", "eno1"),
    "no VLAN": ("eno1", "eno1.10", "eno1"),
}


@pytest.mark.parametrize("case", SEPARATE)
def test_the_hosts_nic_does_not_get_into_a_bridge_over_another_one(case: str) -> None:
    port, start, nic = SEPARATE[case]
    with pytest.raises(Refused) as refused:
        wanted(APART[case], wish("10.0.0.11"))
    assert str(refused.value) == (
        f"vmhost1: br0 has {port} in it, but the host's address is on {start}. "
        f"Write vmfab_nic={nic} at vmhost1 in hosts.ini to keep it so."
    )


@pytest.mark.parametrize("case", SEPARATE)
def test_a_bridge_over_another_nic_is_good_enough_where_hosts_ini_names_the_nic(case: str) -> None:
    port, _, nic = SEPARATE[case]
    made = wanted(APART[case], wish("10.0.0.11", vmfab_nic=nic))
    assert not made.todo
    assert made.port == port


def test_a_bridge_of_vmfabs_over_another_nic_is_good_enough_where_hosts_ini_names_the_nic() -> None:
    by_hand = APART["another NIC"]
    own = replace(by_hand, netplan={OWN: by_hand.netplan["/etc/netplan/01-netcfg.yaml"]})
    without_vms = replace(own, links={n: link for n, link in own.links.items() if n != "vnet0"})
    made = wanted(without_vms, wish("10.0.0.11", vmfab_nic="eno2"))
    text = made.files[OWN]
    assert text is not None
    bodies = {e.name: e.body for e in netplan.read("vmhost1", {OWN: text}).entries}
    assert bodies["br0"]["interfaces"] == ["eno2"]
    assert bodies["eno1"] == {"addresses": ["10.0.0.11/24"]}
    assert not wanted(carried_out(without_vms, made), wish("10.0.0.11", vmfab_nic="eno2")).todo


def test_the_bridge_over_a_vlan_is_found_by_the_vlans_number() -> None:
    made = wanted(APART["another VLAN"], wish("10.0.0.11", vmfab_vlan="100"))
    assert not made.todo
    assert made.port == "eno1.100"


def test_a_bridge_over_a_vlan_of_the_nic_with_the_hosts_address_is_good_enough() -> None:
    found = host_with(
        vlan("eno1.100", 100, master="br0"),
        Link("br0", "bridge"),
        text="network: {ethernets: {eno1: {addresses: [10.0.0.11/24]}},"
        " vlans: {eno1.100: {id: 100, link: eno1}}, bridges: {br0: {interfaces: [eno1.100]}}}\n",
    )
    made = wanted(found, wish("10.0.0.11"))
    assert not made.todo
    assert made.port == "eno1.100"


def test_the_links_of_vms_are_no_ports_of_the_host() -> None:
    found = host_with(Link("br0", "bridge"), Link("vnet0", "tun", master="br0"))
    with pytest.raises(Refused, match="VMs use br0"):
        wanted(found, wish("10.0.0.11"))
    empty = host_with(Link("br0", "bridge"))
    assert wanted(empty, wish("10.0.0.11")).port == "eno1"


STORED = "network: {ethernets: {eno1: {}, eno2: {addresses: [192.168.0.21/24], mtu: 9000}}, "
STORED += "bridges: {br0: {interfaces: [eno1], addresses: [10.0.0.11/24]}}}\n"
ENO2 = Link("eno2", mac="3c:ec:ef:aa:bb:11", mtu=9000, addresses=(Address("inet", "192.168.0.21/24"),))


@pytest.mark.parametrize(
    ("found", "variables", "pausing"),
    [
        (host_with(*BRIDGED, ENO2, text=STORED), {}, ""),
        (host_with(*BRIDGED, ENO2, text=STORED), {"vmfab_storage_mtu": "9000"}, ""),
        (host_with(*BRIDGED, ENO2, text=STORED), {"vmfab_storage_mtu": "1500"}, "eno2"),
        (host_with(*BRIDGED, ENO2, text=BY_HAND), {}, "eno2"),
        (host_with(*BRIDGED, replace(ENO2, mtu=1500), text=STORED), {"vmfab_storage_mtu": "9000"}, "eno2"),
        (host_with(*BRIDGED, ENO2, text=STORED), {"vmfab_dns": "10.0.0.2"}, ""),
        (
            host_with(*BRIDGED, replace(ENO2, addresses=()), text=STORED),
            {"vmfab_dns": "10.0.0.2", "vmfab_storage_nic": "eno2"},
            "eno2",
        ),
        (host_with(ENO2), {}, "eno2"),
        (host_with(), {"vmfab_storage_address": "10.0.0.11"}, "eno1"),
        (host_with(*BRIDGED, text=BY_HAND), {"vmfab_storage_address": "10.0.0.11"}, ""),
        (
            host_with(*BRIDGED, text=BY_HAND),
            {"vmfab_storage_address": "10.0.0.11", "vmfab_dns": "10.0.0.2"},
            "br0",
        ),
        (
            host_with(
                *BRIDGED,
                Link("br0.20", "vlan", parent="br0", vlan=20, addresses=ENO2.addresses),
                text=BY_HAND.replace("  bridges:", "  vlans: {br0.20: {id: 20, link: br0,"
                " addresses: [192.168.0.21/24]}}\n  bridges:"),
            ),
            {"vmfab_dns": "10.0.0.2"},
            "br0.20",
        ),
    ],
    ids=[
        "all is so", "the MTU, too", "another MTU", "not in netplan's files", "the kernel has another MTU",
        "the LAN alone", "the LAN, and the kernel lacks the address", "a host without a bridge",
        "storage on the LAN's NIC", "storage on the bridge, which is so", "storage on the bridge",
        "storage on a VLAN of the bridge",
    ],
)  # fmt: skip
def test_it_is_told_when_the_storage_nic_pauses(
    found: Network, variables: dict[str, str], pausing: str
) -> None:
    made = wanted(found, wish("10.0.0.11", **{**STORAGE, **variables}))
    assert made.storage == pausing
    assert ("storage network" in made.interrupts) is bool(pausing)


REFUSED: Mapping[str, tuple[Network, Mapping[str, str], str]] = {
    "bond": (
        host_with(
            Link("eno1", mac="3c:ec:ef:aa:bb:10", master="bond0"),
            Link("bond0", "bond", addresses=(Address("inet", "10.0.0.11/24"),)),
        ),
        {},
        "its address lies on bond0, a bond",
    ),
    "NIC in a bond": (
        host_with(Link("eno2", master="bond0"), Link("bond0", "bond")),
        {"vmfab_nic": "eno2"},
        "eno2 is part of the bond bond0",
    ),
    "another bridge": (
        host_with(
            Link("eno1", master="vmbr0"),
            Link("vmbr0", "bridge", addresses=(Address("inet", "10.0.0.11/24"),)),
        ),
        {},
        "on another bridge, vmbr0. Write vmfab_bridge=vmbr0",
    ),
    "wireless": (
        host_with(Link("eno1", wireless=True, addresses=(Address("inet", "10.0.0.11/24"),))),
        {},
        "eno1 is wireless",
    ),
    "macvtap": (host_with(Link("macvtap0", "macvtap", parent="eno1")), {}, "macvtap0 lies on eno1"),
    "name taken": (host_with(Link("br0", "dummy")), {}, "br0 is there and is dummy"),
    "no such NIC": (host_with(), {"vmfab_nic": "eth0"}, "has no eth0. Its NICs: eno1 (3c:ec:ef:aa:bb:10, "),
    "nobody's address": (
        host_with(Link("eno1"), routes=()),
        {},
        "none of its NICs has 10.0.0.11 or a default route. Write vmfab_nic=NAME",
    ),
    "ifupdown": (
        host_with(others={"/etc/network/interfaces.d/lan": "auto eno1\niface eno1 inet dhcp\n"}),
        {},
        "/etc/network/interfaces.d/lan configures eno1, and ifupdown would fight netplan",
    ),
    "networkd": (
        host_with(others={"/etc/systemd/network/20-wired.network": "[Match]\nName=en* eth*\n[Network]\n"}),
        {},
        "20-wired.network configures eno1, and systemd-networkd would fight netplan",
    ),
    "NetworkManager": (
        host_with(text="network:\n  renderer: NetworkManager\n  ethernets: {eno1: {dhcp4: true}}\n"),
        {},
        "NetworkManager serves eno1",
    ),
    "a pattern for two": (
        host_with(text='network: {ethernets: {all: {match: {name: "en*"}, dhcp4: true}}}\n'),
        {},
        "the entry all in /etc/netplan/01-netcfg.yaml is about eno1 and eno2 at once",
    ),
    "an unknown key": (
        host_with(text="network: {ethernets: {eno1: {dhcp4: true, sparkle: 1}}}\n"),
        {},
        "netplan's entry eno1 says sparkle, which vmfab does not carry over",
    ),
    "no YAML": (host_with(text="network: [\n"), {}, "/etc/netplan/01-netcfg.yaml:2 cannot be read"),
    "distribution's file": (
        host_with(netplan={"/usr/lib/netplan/00.yaml": "network: {ethernets: {eno1: {dhcp4: true}}}\n"}),
        {},
        "changes only files in /etc/netplan",
    ),
    "its own address taken away": (
        host_with(),
        {"vmfab_addresses": "10.0.0.12/24"},
        "vmfab_addresses lacks 10.0.0.11, by which it is reached",
    ),
    "a route over several ways": (
        host_with(
            routes=(
                Route("inet", "default", "eno1", "10.0.0.1", "static"),
                Route("inet", "10.9.0.0/16", "eno1", "10.0.0.2", "static", multipath=True),
            )
        ),
        {},
        "the route to 10.9.0.0/16 has several ways",
    ),
    "no storage NIC": (
        host_with(),
        {"vmfab_storage_address": "192.168.0.21"},
        "no NIC has its storage address, 192.168.0.21. Write vmfab_storage_nic=NAME",
    ),
    "the default route's NIC beside the bridge's": (
        host_with(
            Link("eno1", addresses=(Address("inet", "172.16.0.11/24"),)),
            Link("eno2", master="br0"),
            Link("br0", "bridge"),
        ),
        {},
        "br0 has eno2 in it, but the host's default route is on eno1. Write vmfab_nic=eno2 at vmhost1",
    ),
    "another NIC in the bridge than hosts.ini names": (
        APART["no VLAN"],
        {"vmfab_nic": "eno2"},
        "br0 has eno1 in it, not eno2",
    ),
    "a bridge in netplan's files over another NIC": (
        host_with(text="network: {ethernets: {eno2: {}}, bridges: {br0: {interfaces: [eno2]}}}\n"),
        {},
        "br0 has eno2 in it in netplan's files, not eno1",
    ),
    "MTU of a shared NIC": (
        host_with(),
        {"vmfab_storage_address": "10.0.0.11", "vmfab_storage_mtu": "9000"},
        "eno1 is both its LAN and its storage NIC",
    ),
    "VMs on the bridge": (
        host_with(*BRIDGED, Link("vnet3", "tun", master="br0"), text=BY_HAND),
        {"vmfab_dns": "10.0.0.2"},
        "VMs use br0 (vnet3), which is to change. Empty the host first: fab -H vmhost1 drain",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_sentence(case: str) -> None:
    found, variables, words = REFUSED[case]
    with pytest.raises(Refused) as refused:
        wanted(found, wish("10.0.0.11", **variables))
    assert words in str(refused.value)
    assert str(refused.value).startswith("vmhost1")


def test_settings_that_disagree_are_refused_before_any_host_is_asked() -> None:
    with pytest.raises(Refused, match="both br7"):
        wish("10.0.0.11", vmfab_nic="br7", vmfab_bridge="br7")
    with pytest.raises(Refused, match="no vmfab_storage_address"):
        wish("10.0.0.11", vmfab_storage_mtu="9000")
