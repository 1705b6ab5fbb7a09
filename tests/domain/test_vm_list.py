"""vm.list on the simulated cluster."""

from __future__ import annotations

import pytest

from tasks.vm import list_
from tests.domain.desk import Desk
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.law import LawBroken


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line][1:]


def test_lists_what_runs(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web-10", "vmhost1", also_defined_on=("vmhost2",))
        sim.add_vm("web-9", "vmhost3")
        sim.add_vm("old", "vmhost1", running=False)
        ended = desk.type(list_)
        assert ended.code == 0
        assert [row[:3] for row in rows(ended.out)] == [
            ["web-9", "vmhost3", "running"],
            ["web-10", "vmhost1", "running"],
        ]


def test_all_shows_where_the_others_are_defined(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("old", "vmhost1", running=False, also_defined_on=("vmhost2",))
        ended = desk.type(list_, all=True)
        assert "old  (vmhost1, vmhost2)  shut off" in ended.out


def test_of_one_host(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        sim.add_vm("db", "vmhost3")
        ended = desk.type(list_, hosts=["vmhost2"], all=True)
        # Defined there, and not called off: it runs elsewhere.
        assert [row[:3] for row in rows(ended.out)] == [["web", "vmhost1", "running"]]


def test_silent_host_is_never_an_empty_one(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web", "vmhost1", running=False)
        sim["vmhost4"].cut()
        ended = desk.type(list_)
        assert ended.code == 3
        assert "No VM runs as far as is known." in ended.out
        assert "vmhost4 cannot be asked" in ended.out
        assert "not known" in desk.type(list_, all=True).out
        document = desk.type(list_, json=True).document
        assert [s["host"] for s in document["silent"]] == ["vmhost4"]
        assert desk.type(list_, hosts=["vmhost1"]).code == 0
        assert desk.type(list_, hosts=["vmhost4"]).code == 3


def test_nothing_at_all(sim: SimCluster, desk: Desk) -> None:
    with sim:
        ended = desk.type(list_)
        assert (ended.code, ended.out) == (0, "No VM runs.\n")
        assert desk.type(list_, json=True).document["vms"] == []


def test_json(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("größe", "vmhost1", memory_mib=2048, vcpus=2)
        ended = desk.type(list_, json=True)
        (row,) = ended.document["vms"]
        since = row.pop("since")
        assert since <= sim.clock.now()
        assert row == {
            "name": "größe",
            "uuid": vm.uuid,
            "state": "running",
            "running_on": ["vmhost1"],
            "defined_on": ["vmhost1"],
            "memory_kib": 2 << 20,
            "vcpus": 2,
        }


def test_double_run_is_loud(sim: SimCluster, desk: Desk) -> None:
    with sim:
        vm = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
        with pytest.raises(LawBroken):
            sim["vmhost2"].start(vm.uuid)
        ended = desk.type(list_)
        assert "web RUNS ON 2 HOSTS: vmhost1, vmhost2" in ended.out
        assert "vm.destroy web" in ended.out
        assert desk.type(list_, json=True).document["findings"][0]["kind"] == "runs-twice"
        sim.law.forgive()


def test_shareable_image_is_no_alarm(sim: SimCluster, desk: Desk) -> None:
    with sim:
        shared = Disk("/vmstorage/quorum.img", target="vdb", shareable=True)
        sim.add_vm("node1", "vmhost1", disks=[Disk("/vmstorage/n1.img"), shared])
        sim.add_vm("node2", "vmhost2", disks=[Disk("/vmstorage/n2.img"), shared])
        assert "!" not in desk.type(list_).out


def test_names_cannot_steer_the_terminal(sim: SimCluster, desk: Desk) -> None:
    with sim:
        sim.add_vm("web\u202etxt.exe", "vmhost1")
        assert "\u202e" not in desk.type(list_).out
