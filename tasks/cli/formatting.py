"""--format at the operator's surface: what is on the disk, the label typed, what was made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from tasks.cli import settingup
from tasks.cli.context import Operator
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostSilent, Refused, Unknown
from tasks.cluster.setup import ocfs2, ocfs2format
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.ocfs2format import Bare
from tasks.cluster.setup.steps import AGAIN


def labels_of(op: Operator, confirm: str, *, format: bool) -> tuple[str, ...] | None:
    """The labels of --confirm; None without --format. Raises Refused for one that is no store's."""
    if not format:
        if confirm:
            raise Refused("--confirm is for --format.", "Leave it out, or add --format.")
        return None
    labels = tuple(filter(None, confirm.split(",")))
    known = [store.file_system for store in op.inventory.stores.values()]
    for label in labels:
        if label not in known:
            raise Refused(f"No store has the label {label}.", f"There are {', '.join(known) or 'none'}.")
    return labels


def make_file_systems(
    op: Operator, session: Session, host: str, *, labels: Sequence[str], dry_run: bool = False
) -> bool:
    """Format the stores that have no file system yet, from this host; with `labels` these only.

    A label that is given needs not be typed any more. The cluster is brought online on the host first,
    because mkfs asks it whether others use the disk. Tells whether anything was done.
    """
    wanted = _wanted(op, session, host, labels)
    for bare in wanted:
        _show(op, bare)
    planned = hostsetup.plan(session.host(host), ocfs2.cluster_step(session, host)) if wanted else None
    if planned is not None and planned.changes:
        settingup.show(op, planned)
    if dry_run or not wanted:
        return False
    for bare in wanted:
        question = f"Make a new file system on {bare.disk} of {host}, for {bare.store.name}?"
        label = bare.store.file_system
        op.confirm_typed(question, label, given=label if label in labels else "")
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
    except Refused as error:
        raise Failed(error.message, error.hint) from error
    return True


def _wanted(op: Operator, session: Session, host: str, labels: Sequence[str]) -> list[Bare]:
    """The disks to format; empty when every store has its file system."""
    ops = session.host(host)
    without = ocfs2format.unformatted(session, ops)
    meant = [s for s in session.inventory.stores.values() if not labels or s.file_system in labels]
    for store in meant:
        if store not in without:
            op.say(f"{host}: {store.name} has its file system, {store.file_system}: nothing to format")
    return [ocfs2format.bare_disk(session, ops, store) for store in meant if store in without]


def _show(op: Operator, bare: Bare) -> None:
    op.say(f"{bare.host}: {bare.disk}, {bare.size}, is the disk of {bare.store.name}", "bold")
    op.say(f"  bare, and not in use on {', '.join(bare.seen_by)}; hosts outside of hosts.ini were not asked")
    op.say(f"  to become an OCFS2 for {bare.store.slots} hosts with the label {bare.store.file_system}")
