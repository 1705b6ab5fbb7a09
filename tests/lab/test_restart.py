"""Back after a reboot, with real parts: cron's table, libvirt, QEMU, guests that count their boots."""

from __future__ import annotations

import re
import sys

import pytest

from tasks.lab import evidence, law
from tasks.lab.lab import PROJECT, Lab
from tasks.lab.namespaces import until

ONE, TWO = "vmhost1", "vmhost2"
SCRIPT = "/usr/local/bin/restart_running_vms"
NAMES = ("web", "größe 2", "it's -x")


def fab(lab: Lab, *words: str, code: int = 0) -> str:
    """Run vmfab as an operator does; what it printed."""
    command = [sys.executable, "-m", "fabric", *words]
    done = lab.run_on_laptop(command, cwd=PROJECT)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def crontab(lab: Lab, host: str = ONE) -> str:
    return lab.run_on(host, ["crontab", "-l"]).stdout


def log(lab: Lab) -> list[str]:
    """The words of the script's log, without time and host."""
    file = lab.store / "restart_running_vms.log"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [re.sub(r"^\S+ \S+ \S+ \S+ ", "", line) for line in lines]


def wait_done(lab: Lab, seconds: float = 120.0) -> str:
    """Wait for the summary in the log, and give it."""
    until(lambda: any(line.startswith("done:") for line in log(lab)), seconds, "the restart script", 0.2)
    return log(lab)[-1]


@pytest.fixture
def ready_lab(clean_lab: Lab) -> Lab:
    """The lab with the script set up on one host."""
    fab(clean_lab, "-H", ONE, "host.autostart", "--yes")
    return clean_lab


def test_set_up_shows_first_changes_once_and_is_content_then(clean_lab: Lab) -> None:
    lab = clean_lab
    uuid = lab.add_vm("web", ONE, start=False)
    lab.virsh(ONE, "autostart", uuid)
    table = "MAILTO=root\n# of old\n@reboot /root/other >/dev/null\n5 4 * * * /bin/true\n"
    lab.run_on(ONE, ["crontab", "-"], stdin=table)
    lab.run_on(ONE, ["sh", "-c", f"echo 'sleep 30' >{SCRIPT}"])
    shown = fab(lab, "-H", ONE, "host.autostart", "--dry-run")
    for line in ("-sleep 30", "+#!/bin/sh", f"+@reboot {SCRIPT}", "turned off for web", "+    size 1M"):
        assert line in shown
    assert (crontab(lab), lab.run_on(ONE, ["cat", SCRIPT]).stdout) == (table, "sleep 30\n")
    assert "no terminal" in fab(lab, "-H", ONE, "host.autostart", code=2)
    fab(lab, "-H", ONE, "host.autostart", "--yes")
    assert crontab(lab) == f"{table}@reboot {SCRIPT}\n"
    assert lab.run_on(ONE, ["stat", "-c", "%a %U", SCRIPT]).stdout == "755 root\n"
    kept = lab.run_on(ONE, ["sh", "-c", f"cat /var/backups/vmfab{SCRIPT}.*"]).stdout
    assert kept == "sleep 30\n"
    assert "Autostart:      disable" in lab.virsh(ONE, "dominfo", uuid)
    again = fab(lab, "-H", ONE, "host.autostart")
    assert again.count("already so") == 5
    assert crontab(lab) == f"{table}@reboot {SCRIPT}\n"


def test_vms_are_back_once_after_a_power_loss(ready_lab: Lab) -> None:
    lab = ready_lab
    for name in NAMES:
        lab.add_vm(name, ONE, booted=True)
    lab.add_vm("off", ONE, start=False)
    lab.image("off").unlink()
    assert "+web" in fab(lab, "-H", ONE, "host.save-running", "--yes")
    assert "names what runs already" in fab(lab, "-H", ONE, "host.save-running")
    before = evidence.standing(lab)
    lab.power_off(ONE)
    lab.power_on(ONE)
    assert wait_done(lab) == "done: 3 started, 0 ran already, 0 refused, 0 failed, 0 left off, 0 unknown"
    for name in NAMES:
        lab.wait_counting(name)
    after = evidence.standing(lab)
    assert evidence.doubts(before, after, dict.fromkeys(NAMES, 1)) == []
    assert lab.running(ONE) == sorted(NAMES)
    assert sorted(log(lab)[:-1]) == sorted(f"{name}: started" for name in NAMES)
    # By hand once more, as an operator would to be sure.
    lab.run_on(ONE, [SCRIPT])
    assert log(lab)[-1] == "done: 0 started, 3 ran already, 0 refused, 0 failed, 0 left off, 0 unknown"
    assert evidence.doubts(before, evidence.standing(lab), dict.fromkeys(NAMES, 1)) == []


def test_fault_19_running_vms_in_every_odd_shape(ready_lab: Lab) -> None:
    lab = ready_lab
    listed = lab.disk(ONE) / "root/running_vms"
    for name in ("web", "db"):
        lab.add_vm(name, ONE, booted=True)
    before = evidence.standing(lab)
    lab.power_off(ONE)
    listed.write_bytes(b"\r\nunknown\r\n\n web\nweb\r\n  \nweb\ndb")
    lab.power_on(ONE)
    assert wait_done(lab) == "done: 2 started, 0 ran already, 0 refused, 0 failed, 0 left off, 2 unknown"
    for name in ("web", "db"):
        lab.wait_counting(name)
    assert evidence.doubts(before, evidence.standing(lab), {"web": 1, "db": 1}) == []
    said = {None: "there is no /root/running_vms: nothing to start"}
    said |= dict.fromkeys((b"", b"\n\r\n  \n"), "/root/running_vms names no VM: nothing to start")
    for text, line in said.items():
        listed.unlink() if text is None else listed.write_bytes(text)
        lab.run_on(ONE, [SCRIPT])
        assert log(lab)[-1] == line
    assert evidence.doubts(before, evidence.standing(lab), {"web": 1, "db": 1}) == []


def test_a_start_that_fails_does_not_hold_up_the_others(ready_lab: Lab) -> None:
    lab = ready_lab
    for name in ("web", "db"):
        lab.add_vm(name, ONE, booted=True)
    lab.power_off(ONE)
    (lab.disk(ONE) / "root/running_vms").write_text("web\ndb\n")
    lab.fail_next_start(ONE)
    lab.power_on(ONE)
    assert wait_done(lab) == "done: 1 started, 0 ran already, 0 refused, 1 failed, 0 left off, 0 unknown"
    assert lab.running(ONE) == ["db"]
    assert log(lab)[0].startswith("web: failed: Failed to start domain 'web'")


def test_a_hook_that_refuses_is_heard(ready_lab: Lab) -> None:
    """Stands for the guard: what libvirt makes of a hook's refusal is told as one."""
    lab = ready_lab
    hook = lab.disk(ONE) / "etc/libvirt/hooks/qemu"
    for name in ("web", "db"):
        lab.add_vm(name, ONE, booted=True)
    lab.power_off(ONE)
    (lab.disk(ONE) / "root/running_vms").write_text("web\ndb\n")
    hook.write_text(
        '#!/bin/sh\n[ "$1 $2" != "web prepare" ] || { echo "web: belongs to vmhost2" >&2; exit 1; }\n'
    )
    hook.chmod(0o755)
    try:
        lab.power_on(ONE)
        assert wait_done(lab) == "done: 1 started, 0 ran already, 1 refused, 0 failed, 0 left off, 0 unknown"
        assert log(lab)[0] == "web: refused: web: belongs to vmhost2"
        assert lab.running(ONE) == ["db"]
    finally:
        hook.unlink()
        # Nothing may write to the log any more when the next test reads it.
        lab.run_on(ONE, ["crontab", "-r"])
        lab.power_off(ONE)
        lab.power_on(ONE)


def test_a_vm_moved_away_by_vmfab_is_not_started_again(ready_lab: Lab) -> None:
    """A move takes the name off the list before it starts the VM elsewhere."""
    lab = ready_lab
    for name in ("web", "db"):
        lab.add_vm(name, ONE, booted=True)
    fab(lab, "-H", ONE, "host.save-running", "--yes")
    fab(lab, "migrate", "web", "--to", TWO, "--yes")
    lab.power_off(ONE)
    lab.power_on(ONE)
    done = wait_done(lab)
    assert done == "done: 1 started, 0 ran already, 0 refused, 0 failed, 0 left off, 0 unknown", log(lab)
    assert (lab.running(ONE), lab.running(TWO)) == (["db"], ["web"])
    assert [start.host for start in law.starts(lab) if start.name == "web"][-1] == TWO


def test_fault_15_the_whole_cluster_comes_back_where_it_was(ready_lab: Lab) -> None:
    lab = ready_lab
    fab(lab, "-H", TWO, "host.autostart", "--yes")
    lab.add_vm("web", ONE, booted=True)
    lab.add_vm("db", TWO, booted=True)
    fab(lab, "-H", f"{ONE},{TWO}", "host.save-running", "--yes")
    before = evidence.standing(lab)
    for host in (ONE, TWO):
        lab.power_off(host)
    for host in (ONE, TWO):
        lab.power_on(host)
    until(lambda: sum(line.startswith("done:") for line in log(lab)) == 2, 120.0, "both scripts", 0.2)
    for name in ("web", "db"):
        lab.wait_counting(name)
    after = evidence.standing(lab)
    assert evidence.doubts(before, after, {"web": 1, "db": 1}) == []
    assert {name: found.host for name, found in after.items()} == {"web": ONE, "db": TWO}


def test_it_waits_for_a_store_that_comes_late(ready_lab: Lab) -> None:
    lab = ready_lab
    lab.add_vm("web", ONE, booted=True)
    (lab.disk(ONE) / "root/running_vms").write_text("web\n")
    lab.power_off(ONE)
    lab.power_on(ONE, store=False)
    processes = ["pgrep", "-f", SCRIPT]
    until(lambda: lab.run_on(ONE, processes, check=False).returncode == 0, 120.0, "the script", 0.1)
    assert lab.running(ONE) == []
    lab.mount_store(ONE)
    assert wait_done(lab) == "done: 1 started, 0 ran already, 0 refused, 0 failed, 0 left off, 0 unknown"
    assert lab.running(ONE) == ["web"]


def test_logrotate_takes_the_log(ready_lab: Lab) -> None:
    lab = ready_lab
    file = lab.store / "restart_running_vms.log"
    rotate: list[str] = ["logrotate", "-s", "/var/tmp/logrotate", "/etc/logrotate.d/restart_running_vms"]
    file.write_text("short\n")
    lab.run_on(ONE, rotate)
    assert file.read_text() == "short\n"
    file.write_text("x" * (1 << 20) + "\n")
    lab.run_on(ONE, rotate)
    assert not file.exists()
    assert (lab.store / "restart_running_vms.log.1").stat().st_size > 1 << 20
