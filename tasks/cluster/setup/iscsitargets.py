"""Which target a store is: a host's iSCSI sessions and node records, and what the store offers it."""

from __future__ import annotations

import re

from tasks.cluster.asking.hostfiles import Ended
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.errors import HostError, Refused
from tasks.cluster.model import StoreHost
from tasks.cluster.setup import iscsiadm
from tasks.cluster.setup.iscsiadm import Login, Record
from tasks.cluster.setup.steps import run

INITIATOR = "/etc/iscsi/initiatorname.iscsi"
#: vmfab's iface record, which binds sessions to the storage NIC.
IFACE = "vmfab"
#: Seconds: iscsiadm tries several times.
DISCOVERY = 40.0


def initiator_of(text: str | None) -> str:
    """The initiator's name in its file; empty when there is none yet."""
    match = re.search(r"(?m)^InitiatorName=(\S+)\s*$", text or "")
    return match[1] if match else ""


def logins(ops: HostOps) -> tuple[Login, ...]:
    """The iSCSI sessions of a host. Raises Lacking without iscsiadm, HostError for what is not understood."""
    return iscsiadm.logins(_told(ops, "session", "-P", "3"))


def recorded(ops: HostOps) -> tuple[Record, ...]:
    """The node records of a host. Raises as `logins` does."""
    text = _told(ops, "node", "-P", "1")
    try:
        return iscsiadm.records(text)
    except ValueError as error:
        raise HostError(ops.host, "bad-request", f"iscsiadm lists a record not understood: {error}") from None


def _told(ops: HostOps, *words: str) -> str:
    ended = run(ops, ["iscsiadm", "-m", *words])
    if ended.rc == iscsiadm.NONE_FOUND:
        return ""
    if ended.rc != 0:
        raise HostError(ops.host, "bad-request", f"iscsiadm -m {' '.join(words)}: {ended.said}")
    return ended.out


def folder(ops: HostOps) -> str:
    """The folder in which the host's open-iscsi keeps its records."""
    new = run(ops, ["test", "-d", iscsiadm.FOLDER]).rc == 0
    return iscsiadm.FOLDER if new else iscsiadm.OLD_FOLDER


def target_of(ops: HostOps, store: StoreHost) -> Record | None:
    """The record by which this host logs in to a store, without asking the store; None if there is none."""
    found = known(ops, store)
    return found[0] if len(found) == 1 else None


def known(ops: HostOps, store: StoreHost) -> list[Record]:
    """vmfab's records at a store's portal that may be meant."""
    where = (store.address, store.port)
    there = [r for r in recorded(ops) if r.iface == IFACE and (r.address, r.port) == where]
    return [r for r in there if r.target == store.target or not store.target]


def is_of(record: Record, offer: Record) -> bool:
    """Whether a record at a store's portal is of what the store offers there."""
    return record.target == offer.target and record.group in (offer.group, -1)


def forgotten(host: str, stale: list[Record]) -> str:
    """What to type about records that are to go."""
    typed = "; ".join(f"iscsiadm {' '.join(record.words)} -o delete" for record in stale)
    return f"Type on {host}: {typed}; then the same again."


def discovered(ops: HostOps, store: StoreHost) -> Record:
    """The record for a store, from what its machine offers to this host; makes none.

    Raises Refused when it is silent, or when it does not offer exactly one target that is wanted.
    """
    portal = iscsiadm.portal(store.address, store.port)
    words = ["iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal, "-o", "nonpersistent"]
    try:
        ended = ops.command(words, timeout=DISCOVERY)
    except HostError as error:
        if error.kind != "deadline":
            raise
        ended = Ended(8, "", f"no answer within {DISCOVERY:.0f} s")
    if ended.rc not in (0, iscsiadm.NONE_FOUND):
        last = ended.said.split("; ")[-1].removeprefix("iscsiadm: ")
        raise Refused(
            f"{ops.host} gets no list of targets from {store.name} at {portal}: {last}.",
            f"Type there: ping -c 3 {store.address}; then see that {store.name} serves iSCSI.",
        )
    try:
        offers = iscsiadm.offered(ended.out)
    except ValueError as error:
        raise HostError(ops.host, "bad-request", f"iscsiadm says of {store.name}: {error}") from None
    return _chosen(ops.host, store, [Record(name, a, p, group, IFACE) for a, p, group, name in offers])


def _chosen(host: str, store: StoreHost, offers: list[Record]) -> Record:
    names = sorted({offer.target for offer in offers})
    listed = "".join(f"\n    {name}" for name in names)
    if not names:
        raise Refused(
            f"{store.name} at {store.address} offers {host} no target.",
            f"Let its access list name the host's initiator, which is in {INITIATOR} there.",
        )
    if store.target and store.target not in names:
        raise Refused(
            f"{store.name} at {store.address} does not offer {store.target}, but{listed}",
            f"Correct vmfab_target at {store.name} in hosts.ini.",
        )
    if not store.target and len(names) > 1:
        raise Refused(
            f"{store.name} at {store.address} offers {len(names)} targets:{listed}",
            f"Write vmfab_target=NAME at {store.name} in hosts.ini.",
        )
    wanted = [offer for offer in offers if offer.target == (store.target or names[0])]
    at = [offer for offer in wanted if (offer.address, offer.port) == (store.address, store.port)]
    if at:
        return at[0]
    portals = ", ".join(offer.portal for offer in wanted)
    raise Refused(
        f"{store.name} offers {wanted[0].target} at {portals}, not at"
        f" {iscsiadm.portal(store.address, store.port)}.",
        f"Write such an address as ansible_host= at {store.name}, and its port as vmfab_target_port= unless"
        " it is 3260.",
    )
