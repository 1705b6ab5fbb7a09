"""The practice machines themselves, before anything is set up on them: they are bare, and stay so here."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tasks.lab.lab import PROJECT
from tasks.lab.machines import belongings, recipe
from tasks.lab.machines.machines import Machines
from tasks.lab.machines.outfit import STORAGE
from tasks.lab.namespaces import until
from tests.machines.conftest import ONE, RELEASE, SECRET, TWO, USER, processes_of

LISTENS = "import socket; socket.create_connection(('{}', {}), 10)"


def test_hosts_are_bare_servers_of_one_release(machines: Machines) -> None:
    assert machines.hosts == [ONE, TWO]
    look = (
        "command -v virsh iscsiadm mkfs.ocfs2 qemu-img; ls /etc/netplan; . /etc/os-release; "
        "echo $VERSION_CODENAME"
    )
    said = machines.run(ONE, "sh", "-c", look).stdout.split()
    assert said == ["00-installer-config.yaml", recipe.choose(RELEASE).name]
    failed = machines.run(ONE, "systemctl", "--failed", "--no-legend", "--plain").stdout
    assert failed == ""
    console = machines.console(ONE)
    until(lambda: "login:" in console.read_text(errors="replace"), 120.0, "a login prompt on its console")


def test_a_host_can_install_all_that_it_needs_without_a_way_out(machines: Machines) -> None:
    machines.run(ONE, "apt-get", "update", "-q")
    wanted = recipe.choose(RELEASE).host_packages
    said = machines.run(
        ONE, "apt-get", "install", "--simulate", "-q", "--no-install-recommends", *wanted
    ).stdout
    assert "Inst ocfs2-tools" in said
    assert machines.run(ONE, "ping", "-c", "1", "-W", "2", "192.0.2.1", check=False).returncode != 0


def test_the_storage_machine_offers_its_disks_in_the_storage_network(machines: Machines) -> None:
    machines.run(ONE, "python3", "-c", LISTENS.format(machines.storage_address(STORAGE), 3260))
    shown = machines.run(STORAGE, "tgt-admin", "--show").stdout
    for store, size in (("vmstorage", "8590 MB"), ("datengrab", "268 MB")):
        assert (
            f"Size: {size}"
            in shown.partition(f": {belongings.target_name(store)}\n")[2].partition("Target ")[0]
        )
    machines.require_chap(USER, SECRET)
    assert USER in machines.run(STORAGE, "tgt-admin", "--show").stdout.partition("Account information")[2]
    machines.require_chap("", "")
    shown = machines.run(STORAGE, "tgt-admin", "--show").stdout
    assert USER not in shown.partition("Account information")[2]


def test_the_serial_line_has_another_end(machines: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machines.serial(ONE).parent)
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(30)
        line.connect(machines.serial(ONE).name)
        machines.run(ONE, "sh", "-c", "stty -F /dev/ttyS0 raw 115200; echo ready >/dev/ttyS0")
        assert line.recv(100).startswith(b"ready")


def test_a_cut_host_hears_nothing_and_knows_nothing_of_it(machines: Machines) -> None:
    ask = [*machines.ssh(TWO)[:-1], "-o", "ConnectTimeout=5", TWO, "true"]
    machines.cut_network(TWO)
    assert subprocess.run(ask, capture_output=True, check=False).returncode == 255
    machines.mend_network(TWO)
    machines.wait_ssh(TWO)


def test_up_again_changes_nothing(machines: Machines) -> None:
    boots = [machines.boot_id(name) for name in machines.names]
    said: list[str] = []
    machines.up(hosts=2, release=RELEASE, say=said.append)
    assert said == []
    assert [machines.boot_id(name) for name in machines.names] == boots


def test_a_build_that_is_killed_leaves_no_process_and_no_image(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    fab = subprocess.Popen(
        [PROJECT / "fab", "lab.up", "--machines"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        env={**os.environ, "VMFAB_LAB": str(root)},
    )  # fmt: skip
    home = root / "cache/machines"
    until(lambda: any(home.glob("part-*/tree/*")), 120.0, "the beginning of the build")
    fab.send_signal(signal.SIGKILL)
    fab.communicate(timeout=20)
    until(lambda: processes_of(root) == [], 20.0, "the end of what the build has started")
    assert str(root) not in Path("/proc/self/mounts").read_text()
    assert not any(home.glob(f"{recipe.choose('').name}-*"))
