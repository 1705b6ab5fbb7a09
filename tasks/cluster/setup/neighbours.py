"""What the hosts tell about the OCFS2 cluster: their names, their settings, and what they have mounted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.model import Silent
from tasks.cluster.setup import blockdevices, clusterconf, fstab
from tasks.cluster.setup.blockdevices import Mounted
from tasks.cluster.setup.steps import run

DEFAULTS = "/etc/default/o2cb"
#: Where the kernel keeps the clusters that are online.
CONFIGFS = "/sys/kernel/config/cluster"
_MOUNTS = "/proc/self/mountinfo"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One host, as far as the OCFS2 cluster is concerned."""

    #: the machine's own short name
    name: str
    #: text of cluster.conf and of /etc/default/o2cb; None without one
    cluster_conf: str | None
    defaults: str | None
    #: names of the nodes that its kernel knows; None while the cluster is not online there
    nodes: frozenset[str] | None
    #: the heartbeat threshold that its kernel goes by; None while the cluster is not online
    threshold: int | None
    mounts: tuple[Mounted, ...]

    def mounted(self, mount: str) -> Mounted | None:
        """What is mounted on a mount point, last of several."""
        return next((one for one in reversed(self.mounts) if one.mount == mount), None)


def look(ops: HostOps, cluster: str) -> Neighbour:
    """Ask one host. Changes nothing; works on a bare host."""
    listed = run(ops, ["ls", f"{CONFIGFS}/{cluster}/node"])
    online = listed.rc == 0 and bool(listed.out.split())
    threshold = ops.file_read(f"{CONFIGFS}/{cluster}/heartbeat/dead_threshold").text if online else None
    return Neighbour(
        short_name(ops),
        ops.file_read(clusterconf.PATH).text,
        ops.file_read(DEFAULTS).text,
        frozenset(listed.out.split()) if online else None,
        int(threshold) if threshold and threshold.strip().isdigit() else None,
        mounts(ops),
    )


def short_name(ops: HostOps) -> str:
    """The machine's name without its domain, by which o2cb finds its own node."""
    return (ops.file_read("/proc/sys/kernel/hostname").text or "").strip().partition(".")[0]


def mounts(ops: HostOps) -> tuple[Mounted, ...]:
    """All that is mounted on a host."""
    columns = "TARGET,SOURCE,FSTYPE,OPTIONS,UUID"
    return blockdevices.mounts(run(ops, ["findmnt", "--json", "--list", "-o", columns]).out)


def mounted(ops: HostOps) -> dict[str, str]:
    """File system types by mount point, from the kernel alone: no disk is asked."""
    found = {}
    for line in (ops.file_read(_MOUNTS).text or "").splitlines():
        before, _, after = line.partition(" - ")
        words = before.split()
        if len(words) > 4 and after:
            found[fstab.unescaped(words[4])] = after.split()[0]
    return found


def others(session: Session, host: str) -> tuple[dict[str, Neighbour], dict[str, Silent]]:
    """All hosts but one: those that answered, and those that did not."""
    names: Iterable[str] = [name for name in session.inventory.hosts if name != host]
    cluster = session.inventory.ocfs2_cluster
    said: Mapping[str, Neighbour | Silent] = session.each(names, lambda ops: look(ops, cluster))
    return (
        {name: one for name, one in said.items() if isinstance(one, Neighbour)},
        {name: one for name, one in said.items() if isinstance(one, Silent)},
    )


def values(defaults: str) -> dict[str, str]:
    """The settings in /etc/default/o2cb, as the init script that reads them takes them."""
    found = re.findall(r"(?m)^\s*(O2CB_\w+)=(\S*)", defaults)
    return {"O2CB_STACK": "o2cb", **{name: value.strip("\"'") for name, value in found}}
