"""host.iscsi and host.ocfs2 on machines: an account that shows nowhere, a store that comes back."""

from __future__ import annotations

import contextlib
import re
import shlex
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.cluster.setup import clusterconf, iscsiadm
from tasks.cluster.setup.clusterconf import Node
from tasks.lab.machines.machines import Machines
from tests.lab.fab import Fab
from tests.machines.exclusion import tries

ONE, TWO = "vmhost1", "vmhost2"
BOTH = f"{ONE},{TWO}"
USER, SECRET = "vmhosts", "Sesam-0pen.x9"
NETPLAN = "network: {{version: 2, ethernets: {{enp0s3: {{addresses: [{}/24]}}}}}}\n"
INSTALL = (
    "cat >/etc/netplan/60-storage.yaml && chmod 600 /etc/netplan/60-storage.yaml && netplan apply && "
    "apt-get -q update && DEBIAN_FRONTEND=noninteractive "
    "apt-get -qy install --no-install-recommends open-iscsi ocfs2-tools"
)


@pytest.fixture(scope="module")
def hosts(machines: Machines, fab: Fab) -> Machines:
    """Hosts that have what comes before iSCSI: packages, and their addresses in the storage network."""

    def prepare(name: str) -> None:
        address = machines.storage_address(name)
        machines.run(name, "sh", "-c", INSTALL, stdin=NETPLAN.format(address), timeout=900)

    with ThreadPoolExecutor() as pool:
        list(pool.map(prepare, machines.hosts))
    machines.require_chap(USER, SECRET)
    secret = machines.root / "store.chap"
    secret.touch(mode=0o600)
    secret.write_text(f"{SECRET}\n", encoding="ascii")
    inventory = machines.root / "hosts.ini"
    account = f"vmfab_chap_user={USER} vmfab_chap_secret_file={secret}"
    text = inventory.read_text(encoding="utf-8")
    inventory.write_text(re.sub(r"(?m)^vmstorage .*", rf"\g<0> {account}", text), encoding="utf-8")
    return machines


@contextlib.contextmanager
def command_lines(machines: Machines, name: str) -> Iterator[list[str]]:
    """What stands in a host's process list, looked at again and again meanwhile."""
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            words = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '"
            seen.append(machines.run(name, "sh", "-c", words, check=False).stdout)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield seen
    finally:
        over.set()
        looker.join()


def test_hosts_log_in_with_an_account_that_shows_nowhere(hosts: Machines, fab: Fab) -> None:
    with command_lines(hosts, ONE) as seen:
        shown = fab("-H", BOTH, "host.iscsi", "--dry-run")
        done = fab("-H", BOTH, "host.iscsi", "--yes")
    assert shown.code == done.code == 0, shown.said + done.said
    assert "iscsiadm" in "".join(seen)
    assert SECRET not in "".join(seen) + shown.said + done.said
    places = "grep -rlF {} /etc /root /tmp /run /var 2>/dev/null; journalctl --no-pager | grep -cF {}"
    found = hosts.run(ONE, "sh", "-c", places.format(*[shlex.quote(SECRET)] * 2), check=False).stdout
    (session,) = iscsiadm.logins(hosts.run(ONE, "iscsiadm", "-m", "session", "-P", "3").stdout)
    record = iscsiadm.Record(session.target, "10.77.1.10", 3260, 1, "vmfab").path
    assert found.split() == [record, "0"]
    assert hosts.run(ONE, "stat", "-c", "%a %U", record).stdout == "600 root\n"
    assert (session.iface, session.nic, session.state, len(session.disks)) == (
        "vmfab",
        "enp0s3",
        "LOGGED_IN",
        1,
    )


def test_the_store_is_formatted_once_and_only_when_typed(hosts: Machines, fab: Fab) -> None:
    done = fab("-H", ONE, "host.ocfs2", "--yes")
    assert done.code == 2
    assert "host.ocfs2 --format" in done.said
    assert fab("-H", ONE, "host.ocfs2", "--format", "--yes").code == 2
    done = fab("-H", ONE, "host.ocfs2", "--format", "--confirm", "vmstorage", "--yes")
    assert done.code == 0, done.said
    done = fab("-H", TWO, "host.ocfs2", "--format", "--confirm", "vmstorage", "--yes")
    assert done.code == 0, done.said
    assert "nothing to format" in done.out


def test_the_same_again_changes_nothing(hosts: Machines, fab: Fab) -> None:
    for task in ("host.iscsi", "host.ocfs2"):
        done = fab("-H", BOTH, task)
        assert done.code == 0, done.said
        assert "to be" not in done.out


@pytest.mark.parametrize(("way", "other"), [("flock", "refused"), ("fcntl", "got")])
def test_only_flock_excludes_across_hosts(hosts: Machines, way: str, other: str) -> None:
    assert tries(hosts, way, f"/vmstorage/lock-{way}", ONE, TWO) == (other, "got")


def test_a_reboot_mounts_it_again(hosts: Machines, fab: Fab) -> None:
    before = hosts.boot_id(TWO)
    hosts.run(TWO, "systemctl", "reboot", check=False)
    hosts.wait_ssh(TWO, not_boot=before)
    hosts.run(TWO, "sh", "-c", "until systemctl is-active -q remote-fs.target; do sleep 1; done", timeout=300)
    assert hosts.run(TWO, "findmnt", "-no", "FSTYPE", "/vmstorage").stdout == "ocfs2\n"
    for task in ("host.iscsi", "host.ocfs2"):
        done = fab("-H", TWO, task)
        assert done.code == 0, done.said
        assert "to be" not in done.out


def test_a_node_that_joins_is_told_to_the_running_kernels(hosts: Machines, fab: Fab) -> None:
    nodes = [Node(name, hosts.storage_address(name), number) for number, name in enumerate((ONE, TWO), 1)]
    text = clusterconf.render("vmfab", [*nodes, Node("vmhost9", "10.77.1.99", 9)])
    hosts.run(TWO, "sh", "-c", f"cat >{clusterconf.PATH}", stdin=text)
    done = fab("-H", ONE, "host.ocfs2", "--yes")
    assert done.code == 0, done.said
    for name in (ONE, TWO):
        assert hosts.run(name, "cat", clusterconf.PATH).stdout == text
        known = hosts.run(name, "ls", "/sys/kernel/config/cluster/vmfab/node").stdout.split()
        assert known == [ONE, TWO, "vmhost9"]
