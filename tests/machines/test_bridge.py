"""host.bridge on a real machine: what cuts it off comes back, what is good stays, also after a boot."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from tasks.lab.machines.machines import Machines
from tasks.lab.namespaces import until
from tasks.lab.problem import LabError
from tests.lab.fab import Fab
from tests.machines.conftest import COMMAND, ONE

#: Seconds until the way back begins, and at most until the old network is there.
PATIENCE, BACK = 40, 120
NIC = "enp0s2"
#: The files with their modes and texts, and what is in force until the next boot.
LOOK = "set -e; ls -l /etc/netplan; cat /etc/netplan/*; [ ! -d /run/netplan ] || ls /run/netplan"
#: A VLAN that the switch does not carry: as far as the network goes, the host is off.
WRONG = "vmfab_vlan=99"


def links(machines: Machines) -> dict[str, dict[str, object]]:
    """The host's links by name, with their MAC, bridge and addresses."""
    told = json.loads(machines.run(ONE, "ip", "-j", "address").stdout)
    return {
        link["ifname"]: {
            "mac": link.get("address"),
            "master": link.get("master"),
            "addresses": [
                f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"
            ],
        }
        for link in told
    }


def netplan(machines: Machines) -> str:
    """Netplan's files in /etc, with their modes and texts."""
    return machines.run(ONE, "sh", "-c", LOOK).stdout


def ways(machines: Machines) -> list[str]:
    """The default routes, without their links."""
    told = json.loads(machines.run(ONE, "ip", "-j", "route", "show", "default").stdout)
    return [route["gateway"] for route in told]


def answers(machines: Machines) -> bool:
    """Whether a new login works."""
    try:
        return machines.run(ONE, "true", timeout=15.0, check=False).returncode == 0
    except LabError:
        return False


@pytest.fixture(scope="module")
def laptop(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fab]:
    """A laptop with an inventory of its own."""
    with Fab(machines, tmp_path_factory.mktemp("laptop"), seconds=COMMAND) as operator:
        yield operator


@pytest.fixture(scope="module")
def before(machines: Machines) -> tuple[dict[str, dict[str, object]], str]:
    return links(machines), netplan(machines)


def test_fault_20_a_network_that_cuts_the_host_off_is_back_by_itself(
    machines: Machines, laptop: Fab, before: tuple[dict[str, dict[str, object]], str]
) -> None:
    laptop.use_inventory(host_variables=WRONG)
    done = laptop("-H", ONE, "host.bridge", "--yes", "--timeout", str(PATIENCE))
    assert done.code == 1, done.said
    assert "The old network is back." in done.err
    assert (links(machines), netplan(machines)) == before


def test_fault_20_it_is_back_as_well_when_the_laptop_is_gone(
    machines: Machines, laptop: Fab, before: tuple[dict[str, dict[str, object]], str]
) -> None:
    laptop.use_inventory(host_variables=WRONG)
    running = laptop.begin("-H", ONE, "host.bridge", "--yes", "--timeout", str(PATIENCE))
    until(lambda: not answers(machines), 180.0, "the host's end", 0.5)
    begun = time.monotonic()
    running.kill()
    machines.wait_ssh(ONE, 2 * BACK)
    assert time.monotonic() - begun < BACK
    until(lambda: (links(machines), netplan(machines)) == before, 60.0, "the old network", 1.0)


def test_the_bridge_takes_over_what_the_nic_was(
    machines: Machines, laptop: Fab, before: tuple[dict[str, dict[str, object]], str]
) -> None:
    laptop.use_inventory()
    gateways = ways(machines)
    done = laptop("-H", ONE, "host.bridge", "--yes")
    assert done.code == 0, done.said
    assert "proved by a new login" in done.out
    now, (old, _) = links(machines), before
    assert now["br0"] == {**old[NIC], "master": None}
    assert now[NIC] == {"mac": old[NIC]["mac"], "master": "br0", "addresses": []}
    assert now["enp0s3"] == old["enp0s3"]
    assert ways(machines) == gateways
    text = netplan(machines)
    assert "-rw------- 1 root root" in text
    assert "60-vmfab.yaml" in text
    assert "00-installer-config.yaml" not in text.partition("# It stands")[0]
    timers = machines.run(ONE, "systemctl", "list-timers", "--all", "--no-legend", "vmfab-netplan-back*")
    assert timers.stdout.strip() == ""
    with_bridge = links(machines), netplan(machines)
    again = laptop("-H", ONE, "host.bridge")
    assert again.code == 0, again.said
    assert "br0: already so" in again.out
    assert (links(machines), netplan(machines)) == with_bridge


def test_a_way_back_from_a_bridge_to_the_bridge_before(machines: Machines, laptop: Fab) -> None:
    old = links(machines), netplan(machines)
    laptop.use_inventory(host_variables=WRONG)
    done = laptop("-H", ONE, "host.bridge", "--yes", "--timeout", str(PATIENCE))
    assert done.code == 1, done.said
    assert (links(machines), netplan(machines)) == old
