"""host.autostart and host.save-running on the simulated cluster, with every fault at every request."""

from __future__ import annotations

from itertools import count

import pytest

from tasks.cluster.setup import afterboot
from tasks.host import save_running
from tasks.hostsetup import autostart, guard
from tests.domain.desk import Desk
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.cluster import SimCluster
from tests.sim.host import SimHost

ONE, TWO, THREE = "vmhost1", "vmhost2", "vmhost3"
ENTRY = f"@reboot {afterboot.SCRIPT}\n"


def is_set_up(host: SimHost) -> bool:
    return (
        host.disk.files.get(afterboot.SCRIPT) == (afterboot.script("/vmstorage", host.name), 0o755)
        and host.disk.files.get(afterboot.LOGROTATE) == (afterboot.logrotate("/vmstorage"), 0o644)
        and (host.disk.crontab or "").count(ENTRY) == 1
        and not any(definition.autostart for definition in host.definitions.values())
    )


def untouched(host: SimHost) -> bool:
    return not host.disk.files and host.disk.crontab is None


def changes(desk: Desk) -> list[str]:
    """Requests that change a host; crontab is asked as well as told."""
    told = [c for c in desk.sim.calls if c.op == "command" and c.args["argv"] == ["crontab", "-"]]
    return [*desk.ops("file.write", "autostart", "save_running"), *(c.op for c in told)]


def test_it_sets_a_host_up_and_is_content_then(sim: SimCluster, desk: Desk) -> None:
    vm = sim.add_vm("web", ONE)
    sim[ONE].definitions[vm.uuid].autostart = True
    ended = desk.type(autostart, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert is_set_up(sim[ONE])
    assert "turned off for web" in ended.out
    assert f"{afterboot.SCRIPT}: to be made (" in ended.out
    assert "#!/bin/sh" not in ended.out, "a question below a whole file is not read"
    assert "to be given the entry @reboot" in ended.out
    assert untouched(sim[TWO])
    sim.calls.clear()
    again = desk.type(autostart, hosts=[ONE])
    assert again.code == 0
    assert again.out.count("already so") == 5
    assert changes(desk) == []


def test_a_list_that_names_what_another_host_runs_is_refused(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", TWO)
    sim[ONE].running_vms = "web\n"
    ended = desk.type(autostart, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert "/root/running_vms on vmhost1 names web, which runs on vmhost2" in ended.err
    assert "fab -H vmhost1 host.save-running" in ended.err
    assert untouched(sim[ONE])
    assert desk.type(save_running, hosts=[ONE], yes=True).code == 0
    assert desk.type(autostart, hosts=[ONE], yes=True).code == 0


def test_a_vm_that_the_guard_keeps_off_may_be_in_the_list(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", TWO)
    assert desk.type(guard, hosts=[ONE, TWO], yes=True).code == 0
    sim[ONE].running_vms = "web\n"
    ended = desk.type(autostart, hosts=[ONE], yes=True)
    assert ended.code == 0, ended


def test_a_dry_run_shows_the_differences_and_changes_nothing(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.files[afterboot.SCRIPT] = ("sleep 30\n", 0o755)
    sim[ONE].disk.crontab = "MAILTO=root"
    ended = desk.type(autostart, hosts=[ONE], dry_run=True)
    assert ended.code == 0
    for line in (
        "-sleep 30\n",
        "+#!/bin/sh\n",
        f"+{ENTRY}",
        "\\ No newline at end of file",
        "+    size 1M\n",
    ):
        assert line in ended.out
    assert changes(desk) == []


def test_without_a_yes_nothing_is_changed(sim: SimCluster, desk: Desk) -> None:
    assert desk.type(autostart, hosts=[ONE]).code == 2
    assert untouched(sim[ONE])


def test_only_the_mode_differs(sim: SimCluster, desk: Desk) -> None:
    desk.type(autostart, hosts=[ONE], yes=True)
    text, _ = sim[ONE].disk.files[afterboot.SCRIPT]
    sim[ONE].disk.files[afterboot.SCRIPT] = (text, 0o644)
    ended = desk.type(autostart, hosts=[ONE], yes=True)
    assert "to be given the mode 0755 instead of 0644" in ended.out
    assert is_set_up(sim[ONE])


def test_what_is_replaced_is_kept(sim: SimCluster, desk: Desk) -> None:
    disk = sim[ONE].disk
    disk.files[afterboot.SCRIPT] = ("old", 0o700)
    disk.crontab = "@daily x\n"
    assert desk.type(autostart, hosts=[ONE], yes=True).code == 0
    kept = {path: text for path, (text, _) in disk.files.items() if path.startswith("/var/backups/vmfab/")}
    assert sorted(kept.values()) == ["@daily x\n", "old"]
    assert disk.crontab == f"@daily x\n{ENTRY}"


def test_a_silent_host_stops_it_before_anything_is_changed(sim: SimCluster, desk: Desk) -> None:
    sim[TWO].cut()
    ended = desk.type(autostart, hosts=[ONE, TWO], yes=True)
    assert ended.code == 2
    assert TWO in ended.err
    assert untouched(sim[ONE])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (lambda disk: disk.missing.add("crontab"), "vmhost2 has no crontab"),
        (lambda disk: disk.complaints.update(crontab="not allowed"), "cannot be read: not allowed"),
        (lambda disk: setattr(disk, "crontab", f"@reboot x; {afterboot.SCRIPT}\n"), "not understood"),
    ],
)
def test_what_cannot_be_planned_is_refused_for_all(
    sim: SimCluster, desk: Desk, break_it: object, words: str
) -> None:
    break_it(sim[TWO].disk)  # type: ignore[operator]
    ended = desk.type(autostart, hosts=[ONE, TWO], yes=True)
    assert ended.code == 2, ended
    assert words in ended.err
    assert untouched(sim[ONE])


def test_the_first_failure_ends_it_and_names_who_is_left(sim: SimCluster, desk: Desk) -> None:
    sim[TWO].disk.complaints["logrotate"] = "error: unknown option\n"
    ended = desk.type(autostart, hosts=[ONE, TWO, THREE], yes=True)
    assert ended.code == 1, ended
    assert "vmhost2: logrotate does not like" in ended.err
    assert "Not touched: vmhost3" in ended.out
    assert is_set_up(sim[ONE])
    assert untouched(sim[THREE])


def test_a_crontab_that_changes_meanwhile_is_not_overwritten(sim: SimCluster, desk: Desk) -> None:
    def edit(call: object) -> None:
        sim[ONE].disk.crontab = "@daily theirs\n"

    sim.faults.on(edit, op="file.write", n=1)
    ended = desk.type(autostart, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "changed root's crontab meanwhile" in ended.err
    assert sim[ONE].disk.crontab == "@daily theirs\n"
    assert desk.type(autostart, hosts=[ONE], yes=True).code == 0
    assert sim[ONE].disk.crontab == f"@daily theirs\n{ENTRY}"


def test_a_libvirtd_that_does_not_answer_is_no_host_without_autostart(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].libvirt_stopped = True
    assert desk.type(autostart, hosts=[ONE], yes=True).code == 1
    assert untouched(sim[ONE])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_at_every_request(fault: str, when: str) -> None:
    for n in count(1):
        with SimCluster((ONE, TWO), seed=n) as sim:
            desk = Desk(sim)
            vm = sim.add_vm("web", ONE)
            sim[ONE].definitions[vm.uuid].autostart = True
            sim[ONE].disk.crontab = "@daily theirs"
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = desk.type_or_die(autostart, hosts=[ONE], yes=True)
            sim.faults.clear()
            if ended is not None and ended.code == 0:
                assert is_set_up(sim[ONE]), ended
            if ended is not None and ended.code == 2:
                assert untouched_but_for_the_crontab(sim[ONE]), ended
            assert (sim[ONE].disk.crontab or "").count(ENTRY) <= 1
            assert (sim[ONE].disk.crontab or "").startswith("@daily theirs")
        if not rule.struck:
            assert n > 12, "it asks more often than that"
            return


def test_a_host_that_is_lost_half_way_is_not_called_unchanged(sim: SimCluster, desk: Desk) -> None:
    sim.faults.on(lambda call: sim[TWO].cut(), op="file.write", host=ONE, n=1)
    ended = desk.type(autostart, hosts=[ONE, TWO], yes=True)
    assert ended.code == 3, ended
    assert "vmhost2" in ended.err
    assert is_set_up(sim[ONE])
    sim[TWO].mend()
    assert desk.type(autostart, hosts=[ONE, TWO], yes=True).code == 0


def untouched_but_for_the_crontab(host: SimHost) -> bool:
    return not host.disk.files and host.disk.crontab == "@daily theirs"


# -- save-running -----------------------------------------------------------------------------------------


def test_save_running_shows_what_changes_and_writes_it(sim: SimCluster, desk: Desk) -> None:
    for name in ("web", "db"):
        sim.add_vm(name, ONE)
    sim[ONE].running_vms = "gone\ndb\n"
    shown = desk.type(save_running, hosts=[ONE], dry_run=True)
    assert (shown.code, sim[ONE].running_vms) == (0, "gone\ndb\n")
    assert "-gone\n" in shown.out
    assert "+web" in shown.out
    assert "-db" not in shown.out
    assert desk.type(save_running, hosts=[ONE]).code == 2
    assert desk.type(save_running, hosts=[ONE], yes=True).code == 0
    assert sim[ONE].running_vms == "db\nweb\n"
    sim.calls.clear()
    again = desk.type(save_running, hosts=[ONE])
    assert again.code == 0
    assert "names what runs already (2 VMs)" in again.out
    assert [call.args["write"] for call in sim.calls if call.op == "save_running"] == [False]


def test_save_running_makes_a_list_that_is_missing(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].running_vms = None
    assert desk.type(save_running, hosts=[ONE], yes=True).code == 0
    assert sim[ONE].running_vms == ""


def test_save_running_never_writes_what_a_silent_libvirtd_did_not_say(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", ONE)
    sim[ONE].running_vms = "web\n"
    sim[ONE].libvirt_stopped = True
    assert desk.type(save_running, hosts=[ONE], yes=True).code == 1
    assert sim[ONE].running_vms == "web\n"
