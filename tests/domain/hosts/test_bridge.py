"""host.bridge on the simulated cluster: made, proved, taken back, and every fault at every request."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from tasks.cluster.asking.session import CONNECT, UNHURRIED
from tasks.cluster.setup import bridge
from tasks.cluster.setup.bridgeplan import OWN
from tasks.hostsetup import bridge as bridge_task
from tasks.hostsetup import check, setup
from tests.domain.desk import Desk
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.cluster import SimCluster
from tests.sim.lan import BY_HAND, SimLan
from tests.sim.scheduler import SimKilled

ONE, TWO, THREE = "vmhost1", "vmhost2", "vmhost3"
CLOUD = "/etc/netplan/50-cloud-init.yaml"


@pytest.fixture
def sim(sim: SimCluster) -> SimCluster:
    for host in sim.hosts.values():
        host.lan.unbridge()
    return sim


def wish(desk: Desk, host: str, **variables: str) -> None:
    """Give a host variables in the inventory."""
    hosts = dict(desk.sim.inventory(**desk.inventory).hosts)
    hosts[host] = replace(hosts[host], variables=variables)
    desk.inventory["hosts"] = hosts


def is_bridged(lan: SimLan) -> bool:
    return (
        set(lan.etc) == {OWN}
        and not lan.run
        and lan.links["br0"]["addresses"] == [f"{lan.address}/24"]
        and lan.links["br0"]["mac"] == lan.links["eno1"]["mac"]
        and lan.links["eno1"]["master"] == "br0"
        and lan.links["eno1"]["addresses"] == []
    )


def is_old(lan: SimLan) -> bool:
    return (
        set(lan.etc) == {CLOUD}
        and not lan.run
        and "br0" not in lan.links
        and lan.links["eno1"]["addresses"] == [f"{lan.address}/24"]
    )


def test_a_host_gets_its_bridge_and_is_content_then(sim: SimCluster, desk: Desk) -> None:
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert is_bridged(sim[ONE].lan)
    assert "proved by a new login" in ended.out
    assert "search: [example.org]" in sim[ONE].lan.etc[OWN]
    assert is_old(sim[TWO].lan)
    sim.calls.clear()
    again = desk.type(bridge_task, hosts=[ONE])
    assert again.code == 0
    assert again.out.count("already so") == 2
    assert desk.ops("command", "file.write") == []


def test_a_dry_run_shows_the_files_and_changes_nothing(sim: SimCluster, desk: Desk) -> None:
    ended = desk.type(bridge_task, hosts=[ONE], dry_run=True)
    assert ended.code == 0
    assert f"+++ {OWN}" in ended.out
    assert f"--- {CLOUD}" in ended.out
    assert "+      interfaces: [eno1]\n" in ended.out
    assert "off the network for some seconds" in ended.out
    assert is_old(sim[ONE].lan)
    assert desk.ops("command", "file.write") == []


def test_20_a_network_that_cuts_the_host_off_is_taken_back(sim: SimCluster, desk: Desk) -> None:
    wish(desk, ONE, vmfab_vlan="99")
    begun = sim.clock.now()
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 1, ended
    assert "no new login within 105 s" in ended.err
    assert "The old network is back." in ended.err
    assert is_old(sim[ONE].lan)
    assert "eno1.99" not in sim[ONE].lan.links
    assert sim.clock.now() - begun < 120 + CONNECT * UNHURRIED


def test_the_time_until_it_is_taken_back_can_be_said(sim: SimCluster, desk: Desk) -> None:
    wish(desk, ONE, vmfab_vlan="99")
    begun = sim.clock.now()
    assert desk.type(bridge_task, hosts=[ONE], yes=True, timeout=40.0).code == 1
    assert is_old(sim[ONE].lan)
    assert (
        sim.clock.now() - begun < 40 + CONNECT * UNHURRIED
    )  # a login that has begun before may last so long
    ended = desk.type(bridge_task, hosts=[ONE], yes=True, timeout=20.0)
    assert ended.code == 2
    assert "at least 30 seconds" in ended.err


def test_the_old_network_comes_back_without_the_laptop(sim: SimCluster, desk: Desk) -> None:
    wish(desk, ONE, vmfab_vlan="99")

    def die(call: object) -> None:
        sim.after(0.5, sim.laptop.kill)

    sim.faults.on(die, op="command", n=2)
    with pytest.raises(SimKilled):
        desk.type(bridge_task, hosts=[ONE], yes=True)
    sim.wait(2)
    assert not sim[ONE].answers
    sim.wait(118)
    assert sim[ONE].answers
    assert is_old(sim[ONE].lan)


def test_a_reboot_in_between_brings_the_old_network(sim: SimCluster, desk: Desk) -> None:
    wish(desk, ONE, vmfab_vlan="99")
    sim.after(20.0, lambda: sim[ONE].power_off(10.0))
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 1, ended
    assert "was restarted before its new network was proved" in ended.err
    assert is_old(sim[ONE].lan)


def test_a_host_that_is_not_heard_any_more_is_an_unknown_outcome(sim: SimCluster, desk: Desk) -> None:
    sim.after(1.0, lambda: sim[ONE].power_off())
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 3, ended
    assert "console" in ended.err


def test_a_change_that_is_being_tried_is_left_alone(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].lan._state = "applied"
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "being tried" in ended.err


def test_what_netplan_does_not_like_is_not_tried(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].lan.complaint = "unknown key 'x'"
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "netplan does not like what would be written: unknown key 'x'." in ended.err
    assert is_old(sim[ONE].lan)


def test_without_netplan_the_packages_come_first(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.missing.add("netplan")
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "host.packages" in ended.err


def test_vms_on_a_bridge_that_is_to_change_forbid_it(sim: SimCluster, desk: Desk) -> None:
    lan = sim[ONE].lan
    lan.unbridge("00-lan.yaml", BY_HAND)
    lan.taps["vnet0"] = "br0"
    assert desk.type(bridge_task, hosts=[ONE]).code == 0
    wish(desk, ONE, vmfab_dns="192.0.2.1")
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "VMs use br0 (vnet0)" in ended.err
    assert "drain" in ended.err


def test_cloud_init_is_told_to_leave_the_network_alone(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].lan.cloud_init = True
    assert desk.type(bridge_task, hosts=[ONE], yes=True).code == 0
    assert sim[ONE].disk.files[bridge.CLOUD_INIT] == (
        "# Written by vmfab, fab host.bridge: netplan's files are not cloud-init's any more.\n"
        "network: {config: disabled}\n",
        0o644,
    )
    assert desk.type(bridge_task, hosts=[ONE]).out.count("already so") == 2


def test_the_storage_nic_gets_its_address_and_mtu(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].view.mounted = False
    wish(desk, ONE, vmfab_storage_address="10.9.0.1", vmfab_storage_nic="eno2", vmfab_storage_mtu="9000")
    assert desk.type(bridge_task, hosts=[ONE], yes=True).code == 0
    assert sim[ONE].lan.links["eno2"]["addresses"] == ["10.9.0.1/24"]
    assert sim[ONE].lan.links["eno2"]["mtu"] == 9000
    assert desk.type(bridge_task, hosts=[ONE]).code == 0


MOUNTED = (
    "vmhost1: eno2 is its storage NIC and is to change, which might make o2cb reset the host while "
    "/vmstorage is mounted. Type fab -H vmhost1 drain, then umount /vmstorage on vmhost1, and then the "
    "same again."
)


def one_line(text: str) -> str:
    return " ".join(text.split())


def test_the_storage_nic_does_not_change_under_a_mounted_store(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].lan.cloud_init = True
    wish(desk, ONE, vmfab_storage_address="10.9.0.1", vmfab_storage_nic="eno2", vmfab_storage_mtu="9000")
    for dry_run in (True, False):
        refused = desk.type(bridge_task, hosts=[ONE], yes=True, dry_run=dry_run)
        assert refused.code == 2, refused
        assert MOUNTED in one_line(refused.err)
    refused = desk.type(setup, hosts=[ONE], dry_run=True)
    assert refused.code == 2, refused
    assert MOUNTED in one_line(refused.err)
    refused = desk.type(setup, hosts=[ONE], yes=True)
    assert refused.code == 2, refused
    assert MOUNTED in one_line(refused.err)
    checked = desk.type(check, hosts=[ONE])
    assert checked.code != 0, checked
    assert MOUNTED in one_line(checked.text).replace("mounted. > Type", "mounted. Type")
    assert is_old(sim[ONE].lan)
    assert desk.ops("file.write") == []
    sim[ONE].view.mounted = False
    assert desk.type(bridge_task, hosts=[ONE], yes=True).code == 0
    sim[ONE].view.mounted = True
    again = desk.type(bridge_task, hosts=[ONE])
    assert again.code == 0, again
    assert again.out.count("already so") == 2


def test_a_store_that_is_mounted_after_the_question_keeps_its_nic(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].lan.cloud_init = True
    sim[ONE].view.mounted = False
    wish(desk, ONE, vmfab_storage_address="10.9.0.1", vmfab_storage_nic="eno2", vmfab_storage_mtu="9000")
    # cloud-init's file is the first that is written after the question.
    sim.faults.on(lambda call: setattr(call.host.view, "mounted", True), op="file.write")
    ended = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert ended.code == 1, ended
    assert MOUNTED in one_line(ended.err)
    assert is_old(sim[ONE].lan)


@pytest.mark.parametrize(
    ("live", "written", "mtu"),
    [(9000, 9000, "1500"), (1500, 1500, "9000"), (1500, 9000, "9000"), (9000, None, "9000")],
    ids=["lowered", "added", "not in the kernel", "not in netplan's files"],
)
def test_the_mtu_of_a_storage_nic_that_is_in_use_stays(
    sim: SimCluster, desk: Desk, live: int, written: int | None, mtu: str
) -> None:
    lan = sim[ONE].lan
    addresses = "{addresses: [10.9.0.1/24]" + (f", mtu: {written}" if written else "") + "}"
    lan.etc = {"/etc/netplan/00-lan.yaml": BY_HAND.format(address=lan.address)}
    lan.etc["/etc/netplan/10-storage.yaml"] = f"network: {{ethernets: {{eno2: {addresses}}}}}\n"
    lan.apply()
    lan.links["eno2"]["mtu"] = live
    wish(desk, ONE, vmfab_storage_address="10.9.0.1", vmfab_storage_mtu=mtu)
    refused = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert refused.code == 2, refused
    assert MOUNTED in one_line(refused.err)
    assert lan.links["eno2"]["mtu"] == live
    sim[ONE].view.mounted = False
    assert desk.type(bridge_task, hosts=[ONE], yes=True).code == 0
    assert lan.links["eno2"]["mtu"] == int(mtu)


def test_a_storage_address_on_the_lans_nic_does_not_pause_under_a_mounted_store(
    sim: SimCluster, desk: Desk
) -> None:
    wish(desk, ONE, vmfab_storage_address=sim[ONE].lan.address)
    refused = desk.type(bridge_task, hosts=[ONE], yes=True)
    assert refused.code == 2, refused
    assert MOUNTED.replace("eno2", "eno1") in one_line(refused.err)
    sim[ONE].view.mounted = False
    assert desk.type(bridge_task, hosts=[ONE], yes=True).code == 0
    sim[ONE].view.mounted = True
    assert desk.type(bridge_task, hosts=[ONE]).code == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_at_every_request(fault: str, when: str) -> None:
    """The host ends with the old network or with the new one, whole, and the same again makes it the new."""
    for n in count(1):
        with SimCluster((ONE, TWO), seed=n) as sim:
            lan, desk = sim[ONE].lan, Desk(sim)
            lan.unbridge()
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = desk.type_or_die(bridge_task, hosts=[ONE], yes=True)
            sim.faults.clear()
            assert ended is None or ended.code != 0 or is_bridged(lan), ended
            assert ended is None or ended.code not in (1, 2) or is_old(lan), ended
            sim[ONE].mend()
            sim[ONE].power_on()
            sim.wait(200.0)
            assert is_bridged(lan) or is_old(lan), (ended, lan.etc, lan.links)
            laptop = sim.another_laptop("another")
            again = desk.type(bridge_task, hosts=[ONE], yes=True, laptop=laptop)
            assert again.code == 0, again
            assert is_bridged(lan)
        if not rule.struck:
            assert n > 8, "it asks more often than that"
            return
