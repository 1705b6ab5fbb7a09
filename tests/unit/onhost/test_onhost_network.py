"""What the agent tells of this machine's network, and what netplan says through it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.cluster.asking.network import Network, Route, _by_link, _servers
from tasks.cluster.asking.network import network as understand
from tasks.onhost import network
from tasks.onhost.problem import Problem


def told() -> Network:
    return understand("here", network.facts())


def test_this_machines_network_is_understood() -> None:
    found = told()
    assert found.links["lo"].loopback
    assert not found.links["lo"].nic
    assert not found.trying


def test_what_is_being_tried_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("etc", "run", "trial/netplan"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/50-lan.yaml").write_text("network: {}\n")
    for place in ("run", "trial/netplan"):
        (tmp_path / place / "60-vmfab.yaml").write_text("network: {version: 2}\n")
    monkeypatch.setattr(network, "_NETPLAN", (f"{tmp_path}/etc", f"{tmp_path}/run"))
    monkeypatch.setattr(network, "_RUN", f"{tmp_path}/run")
    monkeypatch.setattr(network, "TRIAL", f"{tmp_path}/trial")
    assert told().netplan == {f"{tmp_path}/etc/50-lan.yaml": "network: {}\n"}


def test_netplans_opinion_is_asked_off_to_the_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if network._which("netplan") is None:
        pytest.skip("netplan.io is not installed")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    good = network.check({"a.yaml": "network: {version: 2, ethernets: {eth9: {dhcp4: true}}}\n"})
    assert good["rc"] == 0
    bad = network.check({"a.yaml": "network: {version: 2, ethernets: {eth9: {dhcp4: maybe}}}\n"})
    assert bad["rc"] != 0
    assert "/etc/netplan/a.yaml:1:" in bad["said"]
    assert str(tmp_path) not in bad["said"]


def test_without_netplan_there_is_no_opinion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_which", lambda name: None)
    with pytest.raises(Problem) as problem:
        network.check({"a.yaml": "network: {}\n"})
    assert problem.value.kind == "bad-request"


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("10.0.0.2", "10.0.0.2"),
        ("10.0.0.2:5353", "10.0.0.2"),
        ("10.0.0.2#dns.example.org", "10.0.0.2"),
        ("2001:db8::2", "2001:db8::2"),
        ("fe80::1%eno1", "fe80::1"),
        ("[2001:db8::2]:53#dns.example.org", "2001:db8::2"),
    ],
)
def test_every_way_in_which_resolvectl_writes_a_server(word: str, address: str) -> None:
    assert _servers([word]) == (address,)


def test_links_and_servers_of_resolvectl() -> None:
    said = "Global:\nLink 2 (eno1): 10.0.0.2 10.0.0.3\nLink 3 (virbr0):\n"
    assert dict(_by_link(said)) == {"eno1": ("10.0.0.2", "10.0.0.3"), "virbr0": ()}


@pytest.mark.parametrize(
    ("protocol", "static"),
    [("static", True), ("boot", True), ("kernel", False), ("dhcp", False), ("ra", False)],
)
def test_which_routes_are_somebodys_own(protocol: str, static: bool) -> None:
    assert Route("inet", "default", "eno1", "10.0.0.1", protocol).static is static
