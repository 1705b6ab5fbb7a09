"""What the guard sees to beside starts, with real libvirt: migrations that break, new disks, edits."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tasks.lab.lab import Lab
from tasks.lab.namespaces import until
from tasks.lab.problem import LabError
from tests.lab.fab import PATIENCE, Fab
from tests.lab.test_guard import ALL, ONE, TWO, lock_is_free, owners, refusal

#: Seconds for libvirt to lose patience with a silent peer, and for the tender to believe it dead.
LONG = 150.0


@pytest.fixture
def guarded(fab: Fab) -> Fab:
    """An operator whose hosts have the guard, and VM web on the first."""
    done = fab("-H", ALL, "host.guard", "--yes")
    assert done.code == 0, done.said
    fab.lab.add_vm("web", ONE, booted=True)
    for host in (ONE, TWO):
        until(lambda host=host: not lock_is_free(fab.lab, host), PATIENCE, f"the lock of {host}")
    return fab


class Migration:
    """A live migration typed on the first host, so slow that it can be disturbed."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.failed = ""
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        until(lambda: owners(lab) == {"web.img": f"{ONE}>{TWO}"}, PATIENCE, "the hand-over to begin")
        until(lambda: "Data remaining" in lab.virsh(ONE, "domjobinfo", "web"), PATIENCE, "memory to be sent")

    def _run(self) -> None:
        words = (
            "migrate",
            "--live",
            "--p2p",
            "--unsafe",
            "--bandwidth",
            "1",
            "web",
            f"qemu+ssh://{TWO}/system",
        )
        try:
            self._lab.virsh(ONE, *words, timeout=LONG)
        except LabError as error:
            self.failed = str(error)

    def end(self) -> None:
        self._thread.join(LONG)
        assert not self._thread.is_alive()
        assert self.failed


def state(lab: Lab, host: str) -> str:
    return lab.virsh(host, "domstate", "web").strip()


def test_fault_17_a_migration_that_is_cancelled(guarded: Fab) -> None:
    lab = guarded.lab
    migration = Migration(lab)
    lab.virsh(ONE, "domjobabort", "web")
    migration.end()
    until(lambda: owners(lab) == {"web.img": ONE}, PATIENCE, "the way back")
    assert (state(lab, ONE), lab.running(TWO)) == ("running", [])
    lab.wait_counting("web")


def test_fault_17_a_migration_whose_target_dies(guarded: Fab) -> None:
    lab = guarded.lab
    migration = Migration(lab)
    lab.power_off(TWO)
    migration.end()
    until(lambda: owners(lab) == {"web.img": ONE}, LONG, "the way back")
    assert "vmhost2 is silent and vmhost1 runs it" in (lab.store / ".vmfab/guard.log").read_text()
    assert state(lab, ONE) == "running"
    lab.wait_counting("web")
    lab.power_on(TWO)
    lab.define_vm(TWO, lab.virsh(ONE, "dumpxml", "--inactive", "web"))
    assert "is owned by vmhost1" in refusal(lab, TWO, "web")


def test_fault_17_a_migration_whose_source_dies(guarded: Fab) -> None:
    lab = guarded.lab
    migration = Migration(lab)
    lab.power_off(ONE)
    migration.end()
    until(lambda: owners(lab) == {"web.img": ONE}, LONG, "the way back")
    assert lab.running(TWO) == []
    lab.power_on(ONE)
    lab.virsh(ONE, "start", "web")
    assert owners(lab) == {"web.img": ONE}
    lab.wait_counting("web")


def test_disks_plugged_in_and_overlays_are_claimed(guarded: Fab) -> None:
    lab = guarded.lab
    # Not beside the guests' own disks: those are looked at as such.
    (lab.store / "extra").mkdir()
    (lab.store / "extra/more.img").write_bytes(b"\0" * (1 << 20))
    more, overlay = "/vmstorage/extra/more.img", "/vmstorage/extra/over.qcow2"
    plug = ("--live", "--targetbus", "virtio", "--subdriver", "raw")
    lab.virsh(ONE, "attach-disk", "web", more, "vdb", *plug)
    until(lambda: "more.img" in owners(lab), PATIENCE, "the claim of the disk")
    lab.define_vm(TWO, lab.xml("thief").replace("/vmstorage/images/thief.img", more))
    assert "more.img is owned by vmhost1 (VM web" in refusal(lab, TWO, "thief")
    words = ("--disk-only", "--no-metadata", "--diskspec", "vda,snapshot=no")
    lab.virsh(ONE, "snapshot-create-as", "web", "s", *words, "--diskspec", f"vdb,file={overlay}")
    until(lambda: "over.qcow2" in owners(lab), PATIENCE, "the claim of the overlay")
    lab.virsh(ONE, "destroy", "web")
    assert owners(lab) == {}


def test_definitions_are_mirrored_whoever_types(guarded: Fab) -> None:
    lab = guarded.lab
    uuid = guarded.uuid("web")

    def mirror() -> dict[str, Any]:
        path = lab.store / f".vmfab/definitions/{uuid}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    until(lambda: bool(mirror()), PATIENCE, "the definition of what runs")
    assert [v["host"] for v in mirror()["versions"]] == [ONE]
    xml = lab.virsh(ONE, "dumpxml", "--inactive", "--security-info", "web")
    lab.define_vm(ONE, xml.replace("</name>", "</name><title>edited</title>", 1))
    until(lambda: len(mirror()["versions"]) == 2, PATIENCE, "the edit")
    assert "<title>edited</title>" in mirror()["versions"][0]["xml"]
    # A copy elsewhere does not count while it runs here.
    lab.define_vm(TWO, xml.replace("</name>", "</name><title>copy</title>", 1))
    time.sleep(7)
    assert "<title>edited</title>" in mirror()["versions"][0]["xml"]
    lab.virsh(ONE, "destroy", "web")
    lab.virsh(TWO, "start", "web")
    assert [v["host"] for v in mirror()["versions"]] == [TWO, ONE, ONE]
    lab.virsh(ONE, "undefine", "web")
    until(lambda: list(mirror()["undefined"]) == [ONE], PATIENCE, "the note")
    assert guarded("status", "--json").document["hosts"][0]["guard"] == "present"
