"""host.ocfs2 --format at the operator's surface: what is on the disk, the label typed, what was made."""

from __future__ import annotations

from functools import partial

from tasks.cli import settingup
from tasks.cli.context import Operator
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostSilent, Refused, Unknown
from tasks.cluster.setup import ocfs2, ocfs2format
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.ocfs2format import Bare
from tasks.cluster.setup.steps import AGAIN


def make_file_systems(op: Operator, *, label: str, dry_run: bool) -> bool:
    """Format the stores that have no file system yet, from the host of -H; with `label` that one only.

    The cluster is brought online on the host first, because mkfs asks it whether others use the disk. Tells
    whether anything was done.
    """
    if len(op.hosts) != 1:
        raise Refused("--format acts on one host.", f"Example: fab -H {op.hosts[0]} host.ocfs2 --format")
    (host,) = op.hosts
    with op.session(unhurried=True) as session:
        wanted = _wanted(op, session, host, label)
        for bare in wanted:
            _show(op, bare)
        planned = hostsetup.plan(session.host(host), ocfs2.cluster_step(session, host)) if wanted else None
        if planned is not None and planned.changes:
            settingup.show(op, planned)
        if dry_run or not wanted:
            return False
        for bare in wanted:
            question = f"Make a new file system on {bare.disk} of {host}, for {bare.store.name}?"
            op.confirm_typed(question, bare.store.file_system, given=label)
        try:
            if planned is not None and planned.changes:
                hostsetup.apply(session.host(host), planned, partial(settingup.tell, op, host))
            for bare in wanted:
                # Looked at again: somebody may have been faster.
                now = ocfs2format.bare_disk(session, session.host(host), bare.store)
                uuid = ocfs2format.make(session, session.host(host), now)
                op.say(f"{host}: {now.disk} has the file system {bare.store.file_system}, {uuid}", "green")
        except HostSilent as error:
            raise Unknown(f"{host} does not answer any more ({error.reason}).", AGAIN) from error
        return True


def _wanted(op: Operator, session: Session, host: str, label: str) -> list[Bare]:
    """The disks to format; empty when every store has its file system."""
    stores = session.inventory.stores.values()
    labels = [store.file_system for store in stores]
    if label and label not in labels:
        raise Refused(f"No store has the label {label}.", f"There are {', '.join(labels) or 'none'}.")
    ops = session.host(host)
    without = ocfs2format.unformatted(session, ops)
    for store in stores:
        if store not in without and label in ("", store.file_system):
            op.say(f"{host}: {store.name} has its file system, {store.file_system}: nothing to format")
    chosen = [store for store in without if label in ("", store.file_system)]
    return [ocfs2format.bare_disk(session, ops, store) for store in chosen]


def _show(op: Operator, bare: Bare) -> None:
    op.say(f"{bare.host}: {bare.disk}, {bare.size}, is the disk of {bare.store.name}", "bold")
    op.say(f"  bare, and not in use on {', '.join(bare.seen_by)}; hosts outside of hosts.ini were not asked")
    op.say(f"  to become an OCFS2 for {bare.store.slots} hosts with the label {bare.store.file_system}")
