"""VMs on two machines that are set up: moved, rebooted with their host, evacuated; a test is a chapter."""

from __future__ import annotations

import re
import time

import pytest

from tasks.lab.machines.machines import Machines
from tasks.lab.machines.outfit import STORAGE
from tasks.lab.namespaces import until
from tests.lab.fab import Done, Fab
from tests.machines.conftest import BOTH, ONE, TWO
from tests.machines.guests import Guests

pytestmark = pytest.mark.usefixtures("members")

#: What is said of a host that was too busy to answer in time.
BUSY = ("not answer", "no answer within", "less busy", "are not known now")
LOG = "/vmstorage/restart_running_vms.log"
#: Seconds in which OCFS2 throws a dead host out, and more on a machine that emulates.
EVICTION = 240.0


def typed(fab: Fab, *words: str) -> Done:
    """Type a command, and again what ended because a machine was too busy to answer in time: they emulate."""
    for _ in range(5):
        done = fab(*words)
        if done.code == 0 or not any(why in done.said for why in BUSY):
            break
        if done.code == 3:
            fab("resume", "--yes")
        time.sleep(10)
    return done


def restarts(machines: Machines, host: str, reader: str) -> list[str]:
    """How the restart script has ended on a host each time, as another one reads the log, too."""
    lines = machines.run(reader, "sh", "-c", f"[ ! -e {LOG} ] || cat {LOG}").stdout.splitlines()
    said = [
        re.sub(r"^\S+ \S+ \S+ ", "", line).removeprefix(f"{host} ") for line in lines if f" {host} " in line
    ]
    return [line for line in said if line.startswith(("done:", "nothing was", "there is no"))]


def await_restart(machines: Machines, host: str, number: int, seconds: float = 240.0) -> str:
    """Wait until the restart script has ended so often on a host; gives its last words."""
    until(
        lambda: len(restarts(machines, host, host)) >= number,
        seconds,
        f"the restart script of {host}",
        2.0,
    )
    return restarts(machines, host, host)[-1]


def await_missing_store(machines: Machines, host: str) -> None:
    """Wait until a boot has given the storage up: cron runs the restart script after that, and it says so."""
    words = ("journalctl", "--boot", "-t", "restart_running_vms")
    until(
        lambda: "trying every" in machines.run(host, *words, check=False).stdout,
        400.0,
        f"{host} without its store",
        2.0,
    )


def await_mount(machines: Machines, host: str, mount: str) -> None:
    asked = ("mountpoint", "-q", mount)
    until(lambda: machines.run(host, *asked, check=False).returncode == 0, 120.0, f"{mount} of {host}", 2.0)


def test_vms_are_defined_and_started(machines: Machines, fab: Fab, guests: Guests, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("xml")
    for name, host in (("web", ONE), ("db", TWO)):
        guests.make_disk(name)
        file = folder / f"{name}.xml"
        file.write_text(guests.xml(name), encoding="utf-8")
        done = typed(fab, "-H", host, "vm.define", f"--file={file}", "--yes")
        assert done.code == 0, done.said
    done = typed(fab, "vm.start", "web,db")
    assert done.code == 0, done.said
    for name in ("web", "db"):
        guests.await_counting(name, boots=1)
    assert guests.where() == {"web": ONE, "db": TWO}


def test_a_start_by_hand_on_the_other_host_is_refused(machines: Machines, guests: Guests) -> None:
    xml = machines.run(ONE, "virsh", "dumpxml", "--inactive", "web").stdout
    machines.run(TWO, "sh", "-c", "cat >/root/web.xml && virsh define /root/web.xml", stdin=xml)
    done = machines.run(TWO, "virsh", "start", "web", check=False)
    assert done.returncode != 0
    assert "vmfab guard on vmhost2: web is not started" in done.stderr
    assert f"is owned by {ONE}" in done.stderr
    assert guests.where() == {"web": ONE, "db": TWO}


def test_migrate_and_drain(fab: Fab, guests: Guests) -> None:
    done = typed(fab, "migrate", "web", "--to", TWO, "--yes")
    assert done.code == 0, done.said
    guests.await_counting("web", boots=2)
    done = typed(fab, "-H", TWO, "drain", "--yes")
    assert done.code == 0, done.said
    assert guests.where() == {"web": ONE, "db": ONE}
    done = typed(fab, "-H", TWO, "undrain", "--stay", "--yes")
    assert done.code == 0, done.said
    guests.check_law({"web": 3, "db": 2})


def test_a_reboot_brings_back_its_vms(machines: Machines, fab: Fab, guests: Guests) -> None:
    refused = typed(fab, "-H", ONE, "host.reboot", "--yes")
    assert refused.code == 2, refused.said
    assert "drain" in refused.err
    # An operator who types reboot on the host itself: the VMs are shut down, and cron brings them back.
    before = machines.boot_id(ONE)
    machines.run(ONE, "systemctl", "reboot", check=False)
    machines.wait_ssh(ONE, not_boot=before)
    assert await_restart(machines, ONE, 1).startswith("done: 2 started, 0 ran already, 0 refused, 0 failed")
    assert guests.where() == {"web": ONE, "db": ONE}
    for name, boots in {"web": 4, "db": 3}.items():
        guests.await_counting(name, boots)
    done = typed(fab, "-H", TWO, "host.reboot", "--yes")
    assert done.code == 0, done.said
    guests.check_law({"web": 4, "db": 3})
    done = typed(fab, "-H", BOTH, "host.check")
    assert done.code == 0, done.said


def test_a_host_without_power_is_evacuated(machines: Machines, fab: Fab, guests: Guests) -> None:
    machines.power_off(ONE)
    words = ("-H", ONE, "evacuate", "--confirm", ONE)
    early = fab(*words)
    assert early.code == 2, early.said
    assert "Missing: its lock is free" in early.out
    # First the lock is held, then the store stands still while the others replay what it has left.
    end = time.monotonic() + EVICTION
    done = fab(*words)
    while done.code == 2 and "Missing: " in done.out and time.monotonic() < end:
        time.sleep(5)
        done = fab(*words)
    if "less busy" in done.said:  # the same command goes on
        done = typed(fab, *words)
    assert done.code == 0, done.said
    for name, boots in {"web": 5, "db": 4}.items():
        guests.await_counting(name, boots)
    assert guests.where() == {"web": TWO, "db": TWO}


def test_all_lose_power_and_are_back_before_their_storage(
    machines: Machines, fab: Fab, guests: Guests
) -> None:
    """Also the host that was evacuated: it starts nothing a second time."""
    before = {host: len(restarts(machines, host, TWO)) for host in (ONE, TWO)}
    for name in (TWO, STORAGE):
        machines.power_off(name)
    for host in (ONE, TWO):
        machines.power_on(host)
    for host in (ONE, TWO):
        machines.wait_ssh(host)
        await_missing_store(machines, host)
    assert guests.running() == []
    machines.power_on(STORAGE)
    ended = {host: await_restart(machines, host, before[host] + 1, 400.0) for host in (ONE, TWO)}
    assert ended[TWO].startswith("done: 2 started, 0 ran already, 0 refused, 0 failed, 0 left off")
    assert ended[ONE].startswith("done: 0 started, 0 ran already, 0 refused, 0 failed, 2 left off")
    for name, number in {"web": 6, "db": 5}.items():
        guests.await_counting(name, number)
    assert guests.where() == {"web": TWO, "db": TWO}
    for host in (ONE, TWO):
        await_mount(machines, host, "/datengrab")
    for name in ("web", "db"):
        done = machines.run(ONE, "virsh", "start", name, check=False)
        assert done.returncode != 0
        assert f"is owned by {TWO}" in done.stderr
    done = typed(fab, "-H", ONE, "undrain", "--stay", "--yes")
    assert done.code == 0, done.said
    guests.check_law({"web": 6, "db": 5})
    done = typed(fab, "audit")
    assert done.code == 0, done.said
