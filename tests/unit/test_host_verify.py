"""host.verify: hosts are looked at only when they are named, and its end is what pytest saw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.check import ROOT
from tests.hosts import wanted

INVENTORY = """\
[vmhosts]
one ansible_host=10.9.9.1 vmfab_storage_address=10.8.8.1
two ansible_host=10.9.9.2 vmfab_storage_address=10.8.8.2 ansible_user=ops ansible_port=2222
[vmhosts:vars]
vmfab_bridge=br7
[stores]
vmstorage ansible_host=10.8.8.100 vmfab_mount=/vmstorage
archive ansible_host=10.8.8.101 vmfab_mount=/archive vmfab_holds_vms=no vmfab_target_port=3261
[consoles]
raid vmfab_console_host=two vmfab_device=/dev/ttyS1 vmfab_speed=9600
switch vmfab_console_host=two
"""


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.ini"
    path.write_text(INVENTORY, encoding="utf-8")
    return path


def run_pytest(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/hosts", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_no_host_is_looked_at_that_was_not_named() -> None:
    done = run_pytest("--collect-only", "-q")
    assert (done.returncode, "no tests" in done.stdout) == (pytest.ExitCode.NO_TESTS_COLLECTED, True)


def test_hosts_without_an_inventory_are_refused() -> None:
    done = run_pytest("--hosts=vmhost1")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "--hosts wants to know the inventory" in done.stderr


def test_a_host_of_no_inventory_is_refused(inventory: Path) -> None:
    done = run_pytest("--hosts=three", f"--ansible-inventory={inventory}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "three is no host and no group of hosts" in done.stderr


def test_a_host_that_cannot_be_asked_is_one_sentence(inventory: Path) -> None:
    config = inventory.with_name("ssh_config")
    config.write_text("Host *\n    ProxyCommand false\n", encoding="utf-8")
    done = run_pytest("--hosts=one", f"--ansible-inventory={inventory}", f"--ssh-config={config}")
    assert done.returncode == 3
    assert "one cannot be asked: " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_every_test_is_for_every_host(inventory: Path) -> None:
    done = run_pytest("--collect-only", "-q", "--hosts=vmhosts", f"--ansible-inventory={inventory}")
    tests = [line for line in done.stdout.splitlines() if "::" in line]
    assert len(tests) > 80
    assert sum("[one" in test for test in tests) == sum("[two" in test for test in tests) == len(tests) / 2


def test_the_inventory_is_read_as_ansible_reads_it(inventory: Path) -> None:
    one, two = wanted.read(inventory, ["one", "two"])
    assert (one.user, one.port, two.user, two.port) == ("", "", "ops", "2222")
    assert (one.bridge, one.storage_address, one.vm_store.mount) == ("br7", "10.8.8.1", "/vmstorage")
    assert one.nodes == {"one": "10.8.8.1", "two": "10.8.8.2"}
    assert [(store.label, store.port) for store in one.stores] == [("vmstorage", 3260), ("archive", 3261)]
    assert one.consoles == ()
    assert [(console.name, console.device, console.speed) for console in two.consoles] == [
        ("raid", "/dev/ttyS1", "9600"),
        ("switch", "/dev/ttyS0", "115200"),
    ]
