"""Hosts: what could not be asked, stores, clocks, and the guard."""

from __future__ import annotations

import contextlib
import json
import statistics
from collections.abc import Iterator

from tasks.cluster import overview
from tasks.cluster.audit.finding import Finding, fab, listed, moment
from tasks.cluster.audit.seen import Seen
from tasks.cluster.model import Silent

#: Seconds by which clocks may differ: what was claimed or journaled last must be told from the time.
SKEW = 2.0
_LAPTOP = "this laptop"
#: Kinds of the overview that are told as they are, and how grave they are.
_AS_IN_STATUS = {"libvirt": "unknown", "store": "drift", "other-store": "danger"}


def findings(seen: Seen) -> Iterator[Finding]:
    yield from _silent(seen)
    for found in overview.findings(seen.snapshot, {}, lines=()):
        if found.kind in _AS_IN_STATUS:
            yield Finding(
                _AS_IN_STATUS[found.kind], found.kind, found.text, (found.host,), advice=(found.advice,)
            )
    yield from _nameless_stores(seen)
    yield from _not_judged(seen)
    yield from _guards(seen)
    yield from _beacons(seen)
    yield from _clocks(seen)


def _silent(seen: Seen) -> Iterator[Finding]:
    for host in seen.snapshot.hosts.values():
        if isinstance(host, Silent):
            yield Finding(
                "unknown",
                "silent",
                f"{host.host} does not answer: {host.reason}. Nothing of it could be judged.",
                (host.host,),
                evidence=tuple(_sign_of_life(seen, host.host)),
                advice=(
                    host.hint or f"Look at {host.host} itself; nothing is started anywhere until it answers.",
                ),
            )


def _sign_of_life(seen: Seen, host: str) -> Iterator[str]:
    if seen.held is None or seen.beacons is None or host not in seen.beacons:
        return
    if f"hosts/{host}" in seen.held:
        yield "Its lock on the store is held: it is up, and its VMs may be running."
        return
    since = ""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        since = f" (it was taken {moment(float(json.loads(seen.beacons[host])['since']))})"
    yield f"Its lock on the store is free{since}: it is off, or its vmfab-liveness service is."


def _nameless_stores(seen: Seen) -> Iterator[Finding]:
    mounted = [f for f in seen.snapshot.facts() if f.store.mounted and not f.store.problem]
    nameless = [f.host for f in mounted if not f.store.store_id]
    if nameless and len(mounted) > 1:
        yield Finding(
            "unknown",
            "store-nameless",
            f"It cannot be told whether {listed(nameless)} and the others have the same store mounted.",
            tuple(nameless),
            evidence=(
                "The kernel there tells no identity of the file system, and vmfab has given it none yet.",
            ),
            advice=("Any move or start gives it one, for example: fab vm.start NAME",),
        )


def _not_judged(seen: Seen) -> Iterator[Finding]:
    for unread in seen.unread:
        yield Finding(
            "unknown",
            "not-judged",
            f"Not judged: {unread.what}.",
            unread.hosts,
            evidence=(unread.why,),
            advice=("Put right what is named here, then: fab audit",),
        )


def _guards(seen: Seen) -> Iterator[Finding]:
    missing = tuple(host for host, guard in seen.guards.items() if guard.state == "missing")
    if missing:
        yield Finding(
            "danger",
            "guard-missing",
            f"No guard on {listed(missing)}: a virsh start typed there asks nobody.",
            missing,
            advice=(fab("host.guard", hosts=missing),),
        )
    for host, guard in seen.guards.items():
        if guard.state == "outdated":
            yield Finding(
                "danger",
                "guard-outdated",
                f"The guard on {host} is not as this vmfab would install it.",
                (host,),
                evidence=guard.why,
                advice=(fab("host.guard", hosts=[host]),),
            )
        elif guard.state == "foreign":
            yield Finding(
                "danger",
                "guard-foreign",
                f"{host} has a hook that is not vmfab's where the guard belongs: nothing keeps a start away.",
                (host,),
                evidence=guard.why,
                advice=("Move it away as said above, then:", fab("host.guard", hosts=[host])),
            )


def _beacons(seen: Seen) -> Iterator[Finding]:
    """Living hosts whose lock is free: to everybody else that is a sign of death."""
    if seen.held is None or seen.beacons is None:
        return
    for facts in seen.snapshot.facts():
        if facts.guarded and not facts.store.problem and f"hosts/{facts.host}" not in seen.held:
            yield Finding(
                "danger",
                "liveness",
                f"{facts.host} is up, but does not hold its lock on the store: to the others it looks dead.",
                (facts.host,),
                evidence=(f"{facts.store.mount}/.vmfab/hosts/{facts.host} is not locked",),
                advice=(
                    fab("host.guard", hosts=[facts.host]),
                    f"On {facts.host}: systemctl status vmfab-liveness",
                ),
            )


def _clocks(seen: Seen) -> Iterator[Finding]:
    """Clocks that are away from what most of them say, the laptop's among them."""
    ahead = {_LAPTOP: 0.0, **{host: offset.ahead for host, offset in seen.clocks.items()}}
    doubt = {host: offset.doubt for host, offset in seen.clocks.items()}
    usual = statistics.median_low(ahead.values()) if len(ahead) > 2 else 0.0
    most = max(doubt.values(), default=0.0)
    for name, offset in ahead.items():
        away = offset - usual
        if abs(away) <= SKEW + doubt.get(name, most):
            continue
        where = "ahead of" if away > 0 else "behind"
        text = f"The clock of {name} is {abs(away):.1f} s {where} "
        text += "the laptop's." if len(ahead) == 2 else "that of most others."
        yield Finding(
            "drift",
            "clock",
            text,
            () if name == _LAPTOP else (name,),
            evidence=tuple(
                f"{other} is {abs(o):.1f} s {'ahead of' if o > 0 else 'behind'} the laptop (give or take "
                f"{doubt[other]:.1f} s)"
                for other, o in ahead.items()
                if other != _LAPTOP and (name in (other, _LAPTOP))
            ),
            advice=(f"On {name}: timedatectl, then put its time service right (chrony, systemd-timesyncd).",),
        )
