"""From bare machines to members of a cluster: one command, two ways of looking at it, and what is mended."""

from __future__ import annotations

import re
import shlex
import socket

import pytest

from tasks.cluster.setup import iscsiadm, sequence
from tasks.lab.machines import recipe
from tasks.lab.machines.machines import Machines
from tests.lab.fab import Fab
from tests.machines.conftest import BOTH, ONE, RELEASE, SECRET, TWO, SetUp

STEPS = [stage.name for stage in sequence.STAGES]
#: Breaks one thing of nearly every step, as hands and upgrades do, without taking the store away.
BREAK = """
set -eu
rm /etc/minicom/minirc.device2
sed -i '/vmstorage/d' /etc/fstab
rm /etc/systemd/system/libvirt-guests.service.d/vmfab-ocfs2.conf
sysctl -q kernel.panic=0
iscsiadm -m node -o update -n node.startup -v manual
echo '# by hand' >>/etc/libvirt/hooks/qemu
crontab -r
chmod -x /usr/local/bin/restart_running_vms
systemctl daemon-reload
"""


def verified(text: str) -> dict[str, str]:
    """The tests of host.verify and how they ended."""
    return dict(re.findall(r"^tests/hosts/(\S+) (PASSED|FAILED|ERROR)", text, re.MULTILINE))


def lacking(fab: Fab, host: str) -> list[str]:
    """The steps of which host.check says that something is missing."""
    done = fab("-H", host, "host.check", "--json")
    (one,) = done.document["hosts"]
    assert one["complete"], done.said
    assert done.code == (1 if one["missing"] else 0)
    return list(dict.fromkeys(lack["step"] for lack in one["missing"]))


def test_a_bare_host_has_nothing_of_it(fab: Fab) -> None:
    """Also tests the suite: what is not there is told by one sentence each, and by no error of its own."""
    done = fab("-H", TWO, "host.verify")
    assert done.code == 1, done.said
    found = verified(done.out)
    failed = {name for name, how in found.items() if how == "FAILED"}
    assert "ERROR" not in found.values()
    for name, how in found.items():
        if name.startswith(("test_guard", "test_store", "test_network.py::test_bridge")):
            assert how == "FAILED", name
    assert len(re.findall(rf"^{TWO}: ", done.out, re.MULTILINE)) == len(failed)
    assert lacking(fab, TWO) == STEPS


def test_one_command_sets_all_hosts_up(members: SetUp) -> None:
    done = members.done
    assert done.code == 0, done.said
    for host in (ONE, TWO):
        assert f"{host} is set up" in done.out
    for store in ("vmstorage", "datengrab"):
        assert done.out.count(f" has the file system {store}, ") == 1


def test_the_same_again_changes_nothing(members: SetUp, fab: Fab) -> None:
    done = fab("-H", BOTH, "host.setup")
    assert done.code == 0, done.said
    assert done.out.endswith(f"{ONE}, {TWO}: set up already, nothing was changed\n")


def test_both_ways_of_looking_find_it_good(members: SetUp, fab: Fab) -> None:
    done = fab("-H", BOTH, "host.check")
    assert done.code == 0, done.said
    done = fab("-H", BOTH, "host.verify")
    assert done.code == 0, done.said
    assert set(verified(done.out).values()) == {"PASSED"}


def test_the_stores_password_shows_nowhere(members: SetUp, machines: Machines) -> None:
    assert "iscsiadm" in members.seen
    assert SECRET not in members.seen + members.done.said
    places = "grep -rlF {} /etc /root /tmp /run /var 2>/dev/null; journalctl --no-pager | grep -cF {}"
    script = places.format(*[shlex.quote(SECRET)] * 2)
    found = machines.run(ONE, "sh", "-c", script, check=False, timeout=600).stdout
    held = iscsiadm.logins(machines.run(ONE, "iscsiadm", "-m", "session", "-P", "3").stdout)
    session, other = sorted(held, key=lambda one: "vmstorage" not in one.target)
    old = recipe.choose(RELEASE).name in ("bookworm", "jammy", "noble")
    folder = "/etc/iscsi" if old else "/var/lib/iscsi"
    record = f"{folder}/nodes/{session.target}/10.77.1.10,3260,1/vmfab"
    assert found.split() == [record, "0"]
    assert machines.run(ONE, "stat", "-c", "%a %U", record).stdout == "600 root\n"
    assert (session.iface, session.nic, session.state) == ("vmfab", "enp0s3", "LOGGED_IN")
    assert len(session.disks) == len(other.disks) == 1


def test_what_was_broken_is_named_by_both_and_mended(members: SetUp, machines: Machines, fab: Fab) -> None:
    machines.run(TWO, "sh", "-c", BREAK)
    assert lacking(fab, TWO) == ["iscsi", "ocfs2", "guard", "autostart", "serial"]
    done = fab("-H", TWO, "host.verify")
    assert done.code == 1, done.said
    failed = {name.partition("[")[0] for name, how in verified(done.out).items() if how == "FAILED"}
    assert failed == {
        "test_autostart.py::test_crontab_runs_the_script_once_after_a_boot",
        "test_autostart.py::test_script_is_there_and_good",
        "test_guard.py::test_hook_is_of_this_version_and_as_it_was_written",
        "test_serial.py::test_each_console_has_its_configuration",
        "test_store.py::test_a_host_that_oopses_reboots",
        "test_store.py::test_fstab_has_one_line_for_each_store",
        "test_store.py::test_guests_are_shut_down_before_their_store_goes",
        "test_store.py::test_session_comes_back_after_a_reboot_and_a_short_silence",
    }
    done = fab("-H", TWO, "host.setup", "--yes")
    assert done.code == 0, done.said
    assert lacking(fab, TWO) == []
    done = fab("-H", TWO, "host.verify")
    assert done.code == 0, done.said


def test_a_console_on_a_serial_line_is_opened(
    members: SetUp, machines: Machines, fab: Fab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(machines.serial(ONE).parent)
    with socket.socket(socket.AF_UNIX) as device, fab.terminal("host.console", "device1") as terminal:
        device.connect(machines.serial(ONE).name)
        terminal.await_words("Welcome to minicom")
        device.sendall(b"RAID controller ready\r\n")
        terminal.await_words("RAID controller ready")
        terminal.type("show disks\r")
        device.settimeout(60)
        heard = b""
        while b"show disks" not in heard:
            heard += device.recv(100)
        terminal.type("\x01x")
        terminal.await_words("Leave")
        terminal.type("\r")
        assert terminal.end() == 0
