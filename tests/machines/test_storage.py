"""The mounted OCFS2 of two machines: which locks exclude, and how its nodes come to know of a new one."""

from __future__ import annotations

import pytest

from tasks.cluster.setup import clusterconf
from tasks.cluster.setup.clusterconf import Node
from tasks.lab.machines.machines import Machines
from tests.lab.fab import Fab
from tests.machines.conftest import ONE, TWO
from tests.machines.exclusion import tries

pytestmark = pytest.mark.usefixtures("members")


@pytest.mark.parametrize(("way", "other"), [("flock", "refused"), ("fcntl", "got")])
def test_only_flock_excludes_across_hosts(machines: Machines, way: str, other: str) -> None:
    assert tries(machines, way, f"/vmstorage/lock-{way}", ONE, TWO) == (other, "got")


def test_a_node_that_joins_is_told_to_the_running_kernels(machines: Machines, fab: Fab) -> None:
    nodes = [Node(name, machines.storage_address(name), number) for number, name in enumerate((ONE, TWO), 1)]
    text = clusterconf.render("vmfab", [*nodes, Node("vmhost9", "10.77.1.99", 9)])
    machines.run(TWO, "sh", "-c", f"cat >{clusterconf.PATH}", stdin=text)
    done = fab("-H", ONE, "host.ocfs2", "--yes")
    assert done.code == 0, done.said
    for name in (ONE, TWO):
        assert machines.run(name, "cat", clusterconf.PATH).stdout == text
        known = machines.run(name, "ls", "/sys/kernel/config/cluster/vmfab/node").stdout.split()
        assert known == [ONE, TWO, "vmhost9"]
