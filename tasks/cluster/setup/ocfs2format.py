"""Making the file system of a store, once in its life: only on a disk that is bare for every host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, Refused, Unknown
from tasks.cluster.model import Silent, StoreHost
from tasks.cluster.setup import blockdevices, ocfs2
from tasks.cluster.setup.steps import Lacking, run

#: Seconds for mkfs, which discards all blocks of a large disk first.
FORMATTING = 1800.0


@dataclass(frozen=True, slots=True)
class Bare:
    """A disk without anything on it, which is to get a store's file system."""

    host: str
    store: StoreHost
    disk: str
    size: str
    #: hosts that see it, the one that formats it first
    seen_by: tuple[str, ...]


def unformatted(session: Session, ops: HostOps) -> tuple[StoreHost, ...]:
    """The stores whose label is on no device of this host."""
    stores = session.inventory.stores.values()
    return tuple(store for store in stores if not ocfs2.labelled(ops, store.file_system))


def bare_disk(session: Session, ops: HostOps, store: StoreHost) -> Bare:
    """The disk of a store, if nothing stands against making a file system on it. Changes nothing.

    Raises Refused with everything that does: something is on it, some host uses it, or a host does not
    answer and may use it.
    """
    disks = ocfs2.disks_of(ops, store)
    if len(disks) != 1:
        listed = ", ".join(disks) or "none"
        raise Refused(
            f"{store.name} shows {ops.host} {len(disks)} disks ({listed}): vmfab does not choose one.",
            f"Let its target have one LUN, or type there: mkfs.ocfs2 -L {store.file_system} ... DISK",
        )
    names = list(session.inventory.hosts)
    said: Mapping[str, tuple[str, ...] | Silent] = session.each(names, lambda there: _against(there, store))
    against = []
    for name, found in said.items():
        if isinstance(found, Silent):
            against.append(f"{name} could not be asked: {found.reason}")
        else:
            against += [f"{name}: {reason}" for reason in found]
    if against:
        raise Refused(
            f"The disk of {store.name} is not formatted:" + "".join(f"\n    {one}" for one in against),
            "A new store's disk is bare, and no host uses it. If what is on it may go, type on one host"
            f" while no other uses it: wipefs -a {disks[0]}",
        )
    size = run(ops, ["lsblk", "--nodeps", "-n", "-o", "SIZE", disks[0]]).out.strip()
    seers = tuple(name for name in names if name != ops.host)
    return Bare(ops.host, store, disks[0], size, (ops.host, *seers))


def _against(ops: HostOps, store: StoreHost) -> tuple[str, ...]:
    """Why the disk of a store must not be formatted, as far as this host sees; nothing if it has none.

    Raises HostError when that cannot be found out.
    """
    if ocfs2.labelled(ops, store.file_system):
        return (f"there is a file system with the label {store.file_system} already",)
    try:
        disks = ocfs2.disks_of(ops, store)
    except Lacking:
        return ()
    return tuple(reason for disk in disks for reason in _on(ops, disk))


def _on(ops: HostOps, disk: str) -> tuple[str, ...]:
    """What is on a disk, or uses it."""
    listed = run(ops, ["lsblk", "--json", "-o", "NAME,TYPE,FSTYPE,MOUNTPOINT", disk])
    if listed.rc != 0:
        raise HostError(ops.host, "file", f"lsblk {disk}: {listed.said}")
    found = list(blockdevices.uses(listed.out))
    # wipefs sees signatures that blkid has no name for, and the other way round.
    wiped = run(ops, ["wipefs", "-n", "--noheadings", "-O", "TYPE,OFFSET", disk])
    if wiped.rc != 0:
        raise HostError(ops.host, "file", f"wipefs -n {disk}: {wiped.said}")
    found += [
        f"{disk} has the signature {' at '.join(line.split())}" for line in wiped.out.splitlines() if line
    ]
    probed = run(ops, ["blkid", "-p", "-o", "export", disk])
    if probed.rc != 2:
        kinds = [fs.kind for fs in blockdevices.file_systems(probed.out) if fs.kind]
        found.append(f"{disk} is taken for {', '.join(kinds) or 'something, says blkid -p'}")
    opened = run(ops, ["find", "/proc", "-maxdepth", "3", "-path", "/proc/[0-9]*/fd/*", "-lname", disk])
    pids = sorted({int(line.split("/")[2]) for line in opened.out.splitlines() if line.startswith("/proc/")})
    found += [f"process {pid} has {disk} open" for pid in pids]
    return tuple(dict.fromkeys(found))


def make(session: Session, ops: HostOps, bare: Bare) -> str:
    """Make the file system, and see that it is there; its UUID.

    Raises Failed, or Unknown when it is not known how far it came.
    """
    store, inventory = bare.store, session.inventory
    words = ["mkfs.ocfs2", "-q", "-N", str(store.slots), "-L", store.file_system]
    # A large cluster size suits images, and little else.
    words += ["-T", "vmstore"] if store.holds_vms else []
    words += ["--cluster-stack=o2cb", f"--cluster-name={inventory.ocfs2_cluster}", bare.disk]
    try:
        ended = ops.work(words, timeout=FORMATTING, log=ocfs2.LOG)
    except HostError as error:
        if error.kind != "deadline":
            raise
        raise Unknown(
            f"{ops.host}: {error.detail}.", f"Look there: pgrep -a mkfs; blkid -p {bare.disk}"
        ) from None
    if ended.rc != 0:
        raise Failed(
            f"{ops.host}: mkfs.ocfs2 on {bare.disk} failed: {ended.said}.", f"See {ocfs2.LOG} there."
        )
    run(ops, ["udevadm", "settle", "--timeout=10"])
    found = ocfs2.labelled(ops, store.file_system)
    if [(one.device, one.kind) for one in found] != [(bare.disk, "ocfs2")]:
        raise Failed(f"{ops.host}: {bare.disk} is not ocfs2 with the label {store.file_system} now.", "")
    return found[0].uuid
