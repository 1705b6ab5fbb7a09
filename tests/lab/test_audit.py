"""audit on the practice cluster: what was changed by hand, each named with what to type."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.lab import image
from tasks.lab.lab import Lab
from tasks.lab.namespaces import until
from tests.lab.fab import FOUR, ONE, PATIENCE, SILENT, THREE, TWO, Done, Fab

ALL = f"{ONE},{TWO},{THREE},{FOUR}"
HOOK = "etc/libvirt/hooks/qemu"


def guard(fab: Fab) -> None:
    """Install the guard everywhere, and wait until every host holds its lock."""
    done = fab("-H", ALL, "host.guard", "--yes")
    assert done.code == 0, done.said
    until(lambda: not kinds(fab("audit", "--json")) & {"liveness"}, PATIENCE, "the locks of the hosts")


def findings(done: Done) -> dict[str, Any]:
    """The findings by kind, the last of each."""
    assert done.code in (0, 1, 3), done.said
    return {one["kind"]: one for one in done.document["findings"]}


def kinds(done: Done) -> set[str]:
    return set(findings(done))


def seen(fab: Fab, *expected: str) -> dict[str, Any]:
    """What audit finds, which has to be of exactly these kinds."""
    done = fab("audit", "--json")
    found = findings(done)
    assert set(found) == set(expected), json.dumps(done.document["findings"], indent=1)
    grave = any(one["severity"] == "unknown" for one in found.values())
    assert done.code == (3 if grave else 1 if found else 0)
    return found


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")


def test_a_good_cluster_has_none_also_after_drain_and_undrain(fab: Fab) -> None:
    guard(fab)
    fab.add(ONE, "web", "db")
    fab.add(TWO, "mail")
    fab.lab.add_vm("off", THREE, start=False)
    definitions = fab.lab.store / ".vmfab/definitions"
    until(lambda: len(list(definitions.glob("*.json"))) == 4, PATIENCE, "the mirrored definitions")
    before = fab.state()
    clean = fab("audit")
    assert clean.code == 0, clean.said
    assert clean.out == "4 of 4 hosts answered, 4 VMs, 4 images: nothing found.\n"
    assert fab.state() == before
    assert fab("-H", ONE, "drain", "--yes").code == 0
    seen(fab)
    assert fab("-H", ONE, "undrain", "--yes").code == 0
    seen(fab)


def test_what_was_changed_by_hand(fab: Fab) -> None:
    lab = fab.lab
    guard(fab)
    fab.add(ONE, "web")
    uuid = fab.uuid("web")
    xml = lab.virsh(ONE, "dumpxml", "--inactive", "web")
    # A definition that lags behind, on a host where it would start by itself.
    lab.define_vm(TWO, re.sub(r"(<memory unit='KiB'>)\d+", r"\g<1>99328", xml))
    lab.virsh(TWO, "autostart", "web")
    # Another name for the same image, and an image that nobody names.
    lab.define_vm(THREE, lab.xml("copy", image_of="web"))
    image.create(lab.image("forgotten"))
    (lab.disk(FOUR) / "root/running_vms").write_text("web\r\n\nold\n", encoding="utf-8")
    found = seen(fab, "definition", "autostart", "shared-image", "unused-image", "running-vms")
    assert "  -<memory>99328</memory>" in found["definition"]["evidence"]
    assert found["definition"]["hosts"] == [ONE, TWO]
    assert (found["autostart"]["hosts"], found["autostart"]["vms"]) == ([TWO], ["web"])
    assert found["shared-image"]["vms"] == ["copy", "web"]
    assert found["shared-image"]["evidence"][0] == "image /vmstorage/images/web.img"
    assert found["unused-image"]["evidence"][0].startswith(
        "/vmstorage/images/forgotten.img: raw, takes 8.0 MiB"
    )
    assert (found["running-vms"]["severity"], found["running-vms"]["vms"]) == ("danger", ["web", "old"])
    shown = fab("audit")
    assert (shown.code, shown.out.splitlines()[-1]) == (
        1,
        "4 of 4 hosts answered, 2 VMs, 2 images: 3 danger and 2 drift.",
    )
    # What it says to type puts things right.
    for line in [line for one in found.values() for line in one["advice"]]:
        if not line.startswith("fab "):
            continue
        words = f"{line} --yes" if not re.search("dumpxml|audit", line) else line
        done = fab.shell(f"cd {fab.lab.root} && {words}")
        assert done.code == 0, (line, done.said)
    seen(fab, "unused-image")
    assert fab.where() == {"web": (ONE,)}
    assert fab.uuid("web") == uuid


def test_owners_that_are_wrong(fab: Fab) -> None:
    lab = fab.lab
    guard(fab)
    fab.add(ONE, "web")
    for host in lab.hosts:
        lab.freeze_tender(host)  # it would put some of this right before audit has seen it
    (file,) = (lab.store / ".vmfab/owners").iterdir()
    good = file.read_text(encoding="utf-8")
    rewrite(file, lambda text: text.replace(ONE, TWO))
    wrong = seen(fab, "owner-wrong")["owner-wrong"]
    assert (wrong["hosts"], wrong["advice"]) == ([TWO, ONE], ["fab -H vmhost1 host.guard"])
    assert fab("-H", ONE, "host.guard", "--yes").code == 0
    seen(fab)
    file.unlink()
    assert seen(fab, "unclaimed")["unclaimed"]["evidence"] == ["no owner file for /vmstorage/images/web.img"]
    assert fab("-H", ONE, "host.guard", "--yes").code == 0
    to = {"host": TWO, "boot_id": "x", "time": time.time() - 3600}
    file.write_text(json.dumps({**json.loads(good), "to": to}), encoding="utf-8")
    assert "for 60 minutes" in seen(fab, "hand-over")["hand-over"]["text"]
    assert fab("-H", ONE, "host.guard", "--yes").code == 0
    seen(fab)
    assert fab("vm.shutdown", "web", "--yes").code == 0
    seen(fab)
    file.write_text(good, encoding="utf-8")
    rewrite(file, lambda text: re.sub(r'"time": ?[\d.]+', '"time": 1', text))
    assert seen(fab, "owner-left")["owner-left"]["hosts"] == [ONE]
    rewrite(file, lambda text: re.sub(r'"boot_id": ?"[^"]+"', '"boot_id": "before"', text))
    assert fab("audit", "--json").document["notes"][0].startswith("web is off and stays owned by vmhost1")
    seen(fab)


def test_a_guard_that_is_not_what_it_should_be(fab: Fab) -> None:
    lab = fab.lab
    missing = seen(fab, "guard-missing")["guard-missing"]
    assert missing["advice"] == [f"fab -H {ALL} host.guard"]
    guard(fab)
    rewrite(lab.disk(ONE) / HOOK, lambda text: text.replace("DEADLINE = 20", "DEADLINE = 1"))
    (lab.disk(TWO) / HOOK).unlink()
    lab.run_on(THREE, ["systemctl", "stop", "vmfab-liveness.service"])
    found = seen(fab, "guard-outdated", "guard-missing", "liveness")
    assert found["guard-missing"]["hosts"] == [TWO]
    assert found["liveness"]["hosts"] == [THREE]
    outdated = {
        one["hosts"][0]: one["evidence"]
        for one in fab("audit", "--json").document["findings"]
        if one["kind"] == "guard-outdated"
    }
    assert outdated[ONE][0] == "/etc/libvirt/hooks/qemu to be replaced"
    assert outdated[THREE] == ["vmfab-liveness.service to be enabled and started"]
    assert fab("-H", ALL, "host.guard", "--yes").code == 0
    until(lambda: not kinds(fab("audit", "--json")), PATIENCE, "the locks of the hosts")
    (lab.disk(FOUR) / HOOK).write_text("#!/bin/sh\nexit 0\n")
    foreign = seen(fab, "guard-foreign")["guard-foreign"]
    assert foreign["evidence"][0] == "/etc/libvirt/hooks/qemu on vmhost4 is not vmfab's."
    (lab.disk(FOUR) / HOOK).unlink()


def test_a_save_that_stayed_behind(fab: Fab) -> None:
    lab = fab.lab
    guard(fab)
    fab.add(ONE, "web")
    lab.define_vm(TWO, lab.virsh(ONE, "dumpxml", "--inactive", "web"))
    lab.virsh(ONE, "managedsave", "web")
    seen(fab)
    lab.virsh(TWO, "start", "web")
    save = seen(fab, "managed-save")["managed-save"]
    assert (save["hosts"], save["evidence"][0]) == ([ONE], "It runs on vmhost2.")
    lab.run_on(ONE, save["advice"][1].partition(": ")[2].split())
    seen(fab)
    lab.virsh(TWO, "suspend", "web")
    assert seen(fab, "halted")["halted"]["vms"] == ["web"]
    lab.virsh(TWO, "resume", "web")


def test_what_commands_left(fab: Fab) -> None:
    lab = fab.lab
    guard(fab)
    fab.add(ONE, acpi="never", web="never")
    move = fab.begin("migrate", "web", "--to", TWO, "--timeout", "100", "--yes")
    fab.await_pressed(ONE, "web")
    at_work = fab("audit", "--json")
    assert at_work.code == 0, at_work.said
    assert "is under way" in at_work.document["notes"][0]
    move.signal(signal.SIGKILL)
    move.done()
    until(lambda: "interrupted" in kinds(fab("audit", "--json")), PATIENCE, "the agents to end")
    left = seen(fab, "interrupted")["interrupted"]
    assert (left["vms"], left["advice"]) == (["web"], ["fab resume"])
    assert left["evidence"][1] == "web (vmhost1 to vmhost2): runs on vmhost1"
    cordon = {"host": FOUR, "by": "ada@laptop", "at": time.time() - 200_000, "why": "disk", "drains": []}
    folder = lab.store / ".vmfab/cordons"
    folder.mkdir(mode=0o700, exist_ok=True)
    for host, why in ((FOUR, "disk"), ("vmhost9", "gone"), (THREE, "evacuated")):
        text = json.dumps({**cordon, "host": host, "why": why})
        (folder / f"{host}.json").write_text(text, encoding="utf-8")
    found = seen(fab, "interrupted", "cordon-old", "cordon-unknown", "evacuated")
    assert "for 2 days" in found["cordon-old"]["text"]


def test_what_cannot_be_looked_at_is_said(fab: Fab) -> None:
    lab = fab.lab
    guard(fab)
    fab.add(ONE, "web")
    image.create(lab.image("forgotten"))
    usual = fab("audit").seconds
    lab.cut_network(THREE)
    lab.unmount_store(FOUR)
    done = fab("audit", "--json")
    assert done.code == 3
    assert done.seconds < 2 * usual + SILENT
    found = findings(done)
    assert set(found) == {"silent", "store", "not-judged"}, found
    assert found["silent"]["evidence"] == [
        "Its lock on the store is held: it is up, and its VMs may be running."
    ]
    assert found["store"]["hosts"] == [FOUR]
    lab.mend_network(THREE)
    lab.mount_store(FOUR)
    until(lambda: kinds(fab("audit", "--json")) == {"unused-image"}, PATIENCE, "vmhost4's lock")


@pytest.fixture
def lawless(restored_lab: Lab, tmp_path: Path) -> Iterator[Fab]:
    """An operator on a cluster where the law is about to be broken on purpose."""
    with Fab(restored_lab, tmp_path / "home") as operator:
        yield operator


def test_a_vm_that_runs_on_two_hosts(lawless: Fab) -> None:
    lab = lawless.lab
    uuid = lab.add_vm("web", ONE)
    # QEMU's own lock works between cells, which share a kernel; so the second one gets an image of its own.
    image.create(lab.image("other"))
    lab.define_vm(TWO, lab.xml("web", uuid=uuid, image_of="other"))
    lab.virsh(TWO, "start", "web")
    done = lawless("audit", "--json")
    twice = findings(done)["runs-twice"]
    assert done.code == 1
    assert (twice["severity"], twice["hosts"], twice["vms"]) == ("breach", [ONE, TWO], ["web"])
    assert f"fab -H {TWO} vm.destroy web" in twice["advice"]
    assert lawless("audit").out.startswith("BREACH: web RUNS ON 2 HOSTS: vmhost1, vmhost2.")
