"""status on the simulated cluster, and as fab runs it when no host can be reached."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.cli import Operator, guarding
from tasks.cli.output import Output, Stream
from tasks.cluster.asking.session import ANSWER
from tasks.cluster.model import Snapshot
from tasks.cluster.setup import guard
from tasks.status import SCHEMA, status
from tests.sim import Disk, SimCluster
from tests.unit import observed

ROOT = Path(__file__).resolve().parents[2]


def run(sim: SimCluster, *hosts: str, as_json: bool = False) -> tuple[int, str]:
    """Call the task; its exit code, and what was on standard output."""
    out = io.StringIO()
    output = Output(Stream(out), Stream(io.StringIO()), json=as_json)
    operator = Operator(
        hosts=hosts, output=output, inventory=sim.inventory(), connector=lambda _: sim.laptop.connector
    )
    code = status.answer(operator, json=as_json)
    return code, out.getvalue()


def document(sim: SimCluster, *hosts: str) -> dict[str, Any]:
    found = json.loads(run(sim, *hosts, as_json=True)[1])
    assert isinstance(found, dict)
    return found


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the printed tables, by their first cell."""
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_a_healthy_cluster_fits_on_a_screen() -> None:
    with SimCluster() as sim:
        sim.guard()
        sim.add_vm("web-10", "vmhost2", memory_mib=2048)
        sim.add_vm("web-2", "vmhost2", also_defined_on=["vmhost1"])
        sim.add_vm("old", "vmhost3", running=False)
        code, text = run(sim)
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80
    found = rows(text)
    assert found["vmhost2"][:3] == ["vmhost2", "ok", "2"]
    assert found["web-10"][:4] == ["web-10", "vmhost2", "running", "2G"]
    assert found["old"][:4] == ["old", "(vmhost3)", "shut", "off"]
    assert text.index("web-2") < text.index("web-10") < text.index("old")
    assert text.endswith("4 of 4 hosts answered; 2 VMs run, 1 are off. Nothing needs a look.\n")


def test_a_cluster_without_the_guard_is_not_called_well() -> None:
    with SimCluster() as sim:
        _, text = run(sim)
    assert "Nothing needs a look" not in text
    assert text.index("hosts answered") < text.index("! No guard on any host.")


def test_trouble_is_shown_as_what_it_is_and_holds_up_nothing_else() -> None:
    with SimCluster() as sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("lost", "vmhost2")
        sim.add_vm("off", "vmhost1", running=False)
        sim["vmhost2"].cut()
        sim["vmhost3"].libvirt_frozen = True
        sim["vmhost4"].view.hung = True
        begin = sim.clock.monotonic()
        code, text = run(sim)
        took = sim.clock.monotonic() - begin
    assert code == 0
    assert took <= ANSWER + 1
    found = rows(text)
    assert found["vmhost1"][1] == "ok"
    assert found["vmhost2"][1:3] == ["silent", "?"]
    assert found["vmhost3"][1:3] == ["libvirtd", "?"]
    assert found["vmhost4"][1:3] == ["bad", "store"]
    assert found["off"][2:4] == ["not", "known"]
    assert "! vmhost2 does not answer" in text
    assert "! vmhost3: libvirtd does not answer" in text
    assert "! The store cannot be used on vmhost4: /vmstorage hangs" in text
    assert "as far as is known" in text


def test_cordons_tell_who_when_and_why() -> None:
    cordon = {"host": "vmhost2", "by": "ada@laptop", "at": 1767225600.0, "why": "new disks", "drains": []}
    with SimCluster() as sim:
        sim.store.files["cordons/vmhost2.json"] = json.dumps(cordon)
        _, text = run(sim)
        seen = document(sim)
        assert "vmhost2" not in run(sim, "vmhost1")[1]
    assert rows(text)["vmhost2"][1] == "cordoned"
    assert "! vmhost2 is cordoned by ada@laptop: new disks (since 20" in text
    assert "fab -H vmhost2 undrain" in text
    assert seen["hosts"][1]["cordon"] == {"by": "ada@laptop", "at": 1767225600.0, "why": "new disks"}


def test_hosts_without_the_guard_or_with_another_are_named() -> None:
    with SimCluster(("vmhost1", "vmhost2", "vmhost3")) as sim:
        inventory = sim.inventory()
    own = guard.version("vmhost1", inventory.mount)
    told = {"vmhost1": own, "vmhost2": "edited", "vmhost3": ""}
    snapshot = Snapshot(
        {
            name: replace(observed.host(name), guarded=bool(text), guard_version=text)
            for name, text in told.items()
        }
    )
    out = io.StringIO()
    operator = Operator(output=Output(Stream(out), Stream(io.StringIO())), inventory=inventory)
    guarding.note_unguarded(operator, snapshot)
    guarding.note_outdated(operator, snapshot)
    assert "! No guard on vmhost3." in out.getvalue()
    assert "To install it:\n    fab -H vmhost3 host.guard\n" in out.getvalue()
    assert "! Another guard than this vmfab's on vmhost2." in out.getvalue()
    assert "or was edited: fab -H vmhost2 host.guard\n" in out.getvalue()
    states = [guard.state_on(facts, inventory) for facts in snapshot.facts()]
    assert states == ["present", "outdated", "absent"]


def test_only_the_named_hosts_are_asked() -> None:
    with SimCluster() as sim:
        sim.add_vm("web", "vmhost1")
        sim.add_vm("db", "vmhost2")
        _, text = run(sim, "vmhost2", "vmhost1")
        asked = {call.host.name for call in sim.calls}
    assert asked == {"vmhost1", "vmhost2"}
    assert text.index("vmhost2") < text.index("vmhost1")
    assert "Only vmhost2, vmhost1" in text


def test_one_connection_and_one_question_per_host() -> None:
    with SimCluster() as sim:
        sim.add_vm("web", "vmhost1")
        run(sim)
        assert sorted((call.host.name, call.op) for call in sim.calls) == [
            (name, "observe") for name in sim.hosts
        ]


def test_vms_that_share_a_shareable_disk_are_no_alarm() -> None:
    shared = Disk("/vmstorage/quorum.raw", target="vdb", shareable=True)
    with SimCluster() as sim:
        for name, on in (("one", "vmhost1"), ("two", "vmhost2")):
            sim.add_vm(name, on, disks=[Disk(f"/vmstorage/{name}.qcow2"), shared])
        assert document(sim)["findings"] == []


def test_nobody_answering_is_exit_1() -> None:
    with SimCluster() as sim:
        for host in sim.hosts.values():
            host.cut()
        code, text = run(sim)
        sim["vmhost1"].mend()
        assert run(sim, "vmhost1")[0] == 0
        assert run(sim, "vmhost2")[0] == 1
    assert code == 1
    assert "0 of 4 hosts answered" in text


def test_the_document_has_its_fields_whatever_happened() -> None:
    with SimCluster() as sim:
        vm = sim.add_vm("größe", "vmhost1")
        sim["vmhost2"].cut()
        sim["vmhost3"].libvirt_stopped = True
        seen = document(sim)
    assert seen["schema"] == SCHEMA
    assert [h["answering"] for h in seen["hosts"]] == [True, False, True, True]
    assert len({tuple(h) for h in seen["hosts"]}) == 1
    assert [h["vms_running"] for h in seen["hosts"]] == [1, None, None, 0]
    assert seen["hosts"][1]["reason"]
    assert seen["hosts"][2]["libvirt_problem"]
    (line,) = seen["vms"]
    assert (line["name"], line["uuid"]) == ("größe", vm.uuid)
    assert line["running_on"] == line["defined_on"] == ["vmhost1"]
    assert {f["kind"] for f in seen["findings"]} == {"silent", "libvirt"}


@pytest.fixture
def fab(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text(
        "[vmhosts]\na ansible_host=127.0.0.1 ansible_port=1\nb ansible_host=127.0.0.1 ansible_port=2\n"
    )

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.prefix) / "bin" / "fab"), *words],
            cwd=ROOT,
            env=os.environ | {"VMFAB_INVENTORY": str(inventory), "HOME": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return call


def test_fab_status_tells_of_hosts_that_cannot_be_reached(
    fab: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    begin = time.monotonic()
    done = fab("status")
    assert time.monotonic() - begin < 10
    assert done.returncode == 1
    assert done.stderr == ""
    assert {"a", "b"} <= rows(done.stdout).keys()
    assert "\x1b" not in done.stdout
    done = fab("-H", "b", "status", "--json")
    assert [h["name"] for h in json.loads(done.stdout)["hosts"]] == ["b"]
    assert done.stderr == ""


def test_listing_tasks_loads_no_more_than_fab_itself(
    fab: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(Path(sys.prefix) / "bin" / "fab"), "--list"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tasks.status" in loaded
    assert not loaded & {"rich", "rich.console", "tasks.cluster.model", "tasks.cluster.asking.session"}
    assert not loaded & {"tasks.cluster.remote.links", "tasks.cluster.inventory.inventory", "jinja2"}
