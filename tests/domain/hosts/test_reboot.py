"""host.reboot on the simulated cluster."""

from __future__ import annotations

import re

from tasks.cluster.setup import reboot as rebooting
from tasks.drain import drain
from tasks.host import reboot
from tasks.hostsetup import guard
from tests.domain.desk import Desk
from tests.sim import faults
from tests.sim.cluster import SimCluster

ONE, TWO = "vmhost1", "vmhost2"


def asked(desk: Desk) -> int:
    """How often a host was asked to reboot."""
    commands = [call.args["argv"] for call in desk.sim.calls if call.op == "command"]
    return commands.count(["systemctl", "reboot"])


def test_it_reboots_and_waits(sim: SimCluster, desk: Desk) -> None:
    boot = sim[ONE].boot_id
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert sim[ONE].boot_id != boot
    assert asked(desk) == 1
    assert "does not answer any more" in ended.out
    assert re.search(r"is back with a new boot id after [3-5]\d s", ended.out)
    assert "has rebooted and has all it needs: /vmstorage, o2cb, libvirtd" in ended.out


def test_a_drained_host_stays_cordoned(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", ONE)
    refused = desk.type(reboot, hosts=[ONE], yes=True)
    assert refused.code == 2
    assert "web runs on vmhost1." in refused.err
    assert "Type fab -H vmhost1 drain" in refused.err
    assert desk.type(drain, hosts=[ONE], yes=True).code == 0
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "fab -H vmhost1 undrain" in ended.out
    assert sim.where("web") == (TWO,)


def test_a_boot_that_would_start_what_runs_elsewhere_is_refused(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", TWO)
    sim[ONE].running_vms = "web\n"
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert "names web, which runs on vmhost2: a reboot of vmhost1 would start it a second time" in ended.err
    assert asked(desk) == 0


def test_a_dry_run_and_a_no_change_nothing(sim: SimCluster, desk: Desk) -> None:
    shown = desk.type(reboot, hosts=[ONE], dry_run=True)
    assert shown.code == 0
    assert "then waited for: /vmstorage, o2cb, libvirtd (900 s at most)" in shown.out
    assert desk.type(reboot, hosts=[ONE]).code == 2
    assert asked(desk) == 0


def test_a_vm_that_was_started_since_the_question_is_seen(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", ONE, running=False)
    sim.faults.on(lambda call: sim[ONE].start("web"), op="observe", n=2)
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert asked(desk) == 0


def test_qemu_that_libvirt_cannot_tell_of_counts_as_running(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", ONE)
    sim[ONE].libvirt_stopped = True
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "web runs on vmhost1." in ended.err


def test_a_lost_answer_is_none(sim: SimCluster, desk: Desk) -> None:
    sim.faults.on(faults.reply_lost, op="command", n=2, when="after")
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert asked(desk) == 1


def test_a_host_that_does_not_reboot_is_told(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].reboot_takes = None
    begun = sim.clock.monotonic()
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "its old boot goes on (running)" in ended.err
    assert sim.clock.monotonic() - begun < rebooting.GOING_DOWN + 20


def test_a_host_that_does_not_come_back_is_unknown(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].reboot_takes = 10_000.0
    ended = desk.type(reboot, hosts=[ONE], timeout=120.0, yes=True)
    assert ended.code == 3
    assert "has not come back within 120 s" in ended.err
    assert "is down, " in ended.out


def test_what_is_missing_after_the_boot_is_named(sim: SimCluster, desk: Desk) -> None:
    sim.after(20.0, lambda: setattr(sim[ONE].view, "mounted", False))
    ended = desk.type(reboot, hosts=[ONE], timeout=120.0, yes=True)
    assert ended.code == 1, ended
    assert "is back, but not all it needs: /vmstorage is not mounted" in ended.err
    assert "waits: /vmstorage is not mounted" in ended.out


def test_a_store_that_no_boot_mounts_is_told_before_and_not_waited_for(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.files["/etc/fstab"] = ("#LABEL=vmstorage /vmstorage ocfs2 _netdev 0 0\n", 0o644)
    sim.after(20.0, lambda: setattr(sim[ONE].view, "mounted", False))
    ended = desk.type(reboot, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "/vmstorage is mounted by hand, no boot mounts it" in ended.out
    assert "fab -H vmhost1 host.ocfs2" in ended.out
    assert "then waited for: libvirtd (900 s at most)" in ended.out


def test_a_unit_of_somebodys_own_may_mount_the_store(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.files["/etc/fstab"] = ("", 0o644)
    sim[ONE].enabled.add("vmstorage.mount")
    shown = desk.type(reboot, hosts=[ONE], dry_run=True)
    assert "by hand" not in shown.out
    assert "then waited for: /vmstorage, o2cb, libvirtd (900 s at most)" in shown.out


def test_the_guard_is_waited_for_where_it_was(sim: SimCluster, desk: Desk) -> None:
    assert desk.type(guard, hosts=[ONE], yes=True).code == 0
    sim[ONE].enabled.clear()
    ended = desk.type(reboot, hosts=[ONE], timeout=120.0, yes=True)
    assert ended.code == 1, ended
    assert "vmfab-liveness.service does not run" in ended.err


def test_a_silent_host_is_not_asked(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].cut()
    assert desk.type(reboot, hosts=[ONE], yes=True).code == 2
    assert asked(desk) == 0
