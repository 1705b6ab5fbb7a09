"""What a snapshot says about the cluster at one glance: where each VM is, and what is not as it should be."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from tasks.cluster.model import EVACUATED, OFF, Cordon, Domain, HostFacts, QemuProcess, Silent, Snapshot, Vm

#: State of a VM that no answering host runs, while another host's VMs are not known.
NOT_KNOWN = "not known"


@dataclass(frozen=True, slots=True)
class VmLine:
    """One VM wherever it is.

    `running_on` names each host with a trace of it running; more than one is a breach of the law.
    """

    vm: Vm
    running_on: tuple[str, ...]
    defined_on: tuple[str, ...]
    #: libvirt's state where it runs, `model.OFF` when every host asked says so, else NOT_KNOWN
    state: str
    #: as libvirt says; None when only a qemu process was seen
    memory_kib: int | None
    vcpus: int | None
    since: float | None

    @property
    def running(self) -> bool:
        return bool(self.running_on)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that needs a look. `kind` is one of KINDS; `grave` marks a danger to a VM's image."""

    kind: str
    text: str
    host: str = ""
    vm: str = ""
    #: what to type or to look at
    advice: str = ""
    #: since when, seconds since the epoch, where that is known
    at: float | None = None

    @property
    def grave(self) -> bool:
        return self.kind in ("runs-twice", "image-twice")


#: Kinds of findings, in the order in which they are told.
KINDS = (
    "runs-twice",
    "image-twice",
    "silent",
    "libvirt",
    "store",
    "other-store",
    "stray-process",
    "not-running",
    "interrupted",
    "cordoned",
)


@dataclass(frozen=True, slots=True)
class _Trace:
    """A definition on a host, or a qemu process there that libvirtd does not list."""

    vm: Vm
    host: str
    number: int
    domain: Domain | None = None

    @property
    def running(self) -> bool:
        return self.domain is None or self.domain.running

    @property
    def keys(self) -> tuple[tuple[str, str], ...]:
        keys = (("uuid", self.vm.uuid), ("name", self.vm.name))
        return tuple(key for key in keys if key[1]) or (("process", str(self.number)),)


def vm_lines(snapshot: Snapshot) -> tuple[VmLine, ...]:
    """Every VM that is defined or runs on a host that answered.

    Definitions and processes of one UUID or one name are one VM.
    """
    complete = not snapshot.unsure()
    return tuple(_line(traces, complete=complete) for traces in _same_vm(_traces(snapshot)))


def _traces(snapshot: Snapshot) -> Iterator[_Trace]:
    number = itertools.count()
    for facts in snapshot.facts():
        for d in facts.domains:
            yield _Trace(d.vm, facts.host, next(number), d)
        for p in stray_processes(facts):
            yield _Trace(Vm(p.uuid, p.name), facts.host, next(number))


def _line(traces: Sequence[_Trace], *, complete: bool) -> VmLine:
    active = [t for t in traces if t.running]
    domains = [t.domain for t in (active or traces) if t.domain] or [t.domain for t in traces if t.domain]
    shown = domains[0] if domains else None
    states = dict.fromkeys(t.domain.state if t.domain else "running" for t in active)
    return VmLine(
        vm=shown.vm if shown else traces[0].vm,
        running_on=tuple(dict.fromkeys(t.host for t in active)),
        defined_on=tuple(t.host for t in traces if t.domain),
        state=" and ".join(states) or (OFF if complete else NOT_KNOWN),
        memory_kib=shown.memory_kib if shown else None,
        vcpus=shown.vcpus if shown else None,
        since=shown.since if shown and shown.running else None,
    )


def findings(
    snapshot: Snapshot, cordons: Mapping[str, Cordon], *, lines: Iterable[VmLine] | None = None
) -> tuple[Finding, ...]:
    """Everything that needs a look, gravest first."""
    lines = vm_lines(snapshot) if lines is None else lines
    found = [
        *_running_twice(lines),
        *_images_twice(snapshot),
        *(f for host in snapshot.hosts.values() for f in _of_host(host)),
        *_different_stores(snapshot.facts()),
        *_interrupted(snapshot),
        *_cordoned(snapshot, cordons),
    ]
    return tuple(sorted(found, key=lambda f: KINDS.index(f.kind)))


def _same_vm(traces: Iterable[_Trace]) -> list[list[_Trace]]:
    """Group traces that share a UUID or a name, also by way of a third one."""
    groups: dict[int, list[_Trace]] = {}
    group_of: dict[tuple[str, str], int] = {}
    for trace in traces:
        known = sorted({group_of[key] for key in trace.keys if key in group_of})
        first = known[0] if known else trace.number
        members = groups.setdefault(first, [])
        for other in known[1:]:
            members += groups.pop(other)
        members.append(trace)
        for member in members if len(known) > 1 else (trace,):
            group_of.update(dict.fromkeys(member.keys, first))
    return list(groups.values())


def stray_processes(facts: HostFacts) -> list[QemuProcess]:
    """qemu processes that libvirtd does not list as running, if it answered at all."""
    known = {d.pid for d in facts.domains if d.running and d.pid is not None}
    listed = {d.vm.uuid for d in facts.domains if d.running}
    return [p for p in facts.processes if p.pid not in known and p.uuid not in listed]


def _running_twice(lines: Iterable[VmLine]) -> list[Finding]:
    return [
        Finding(
            "runs-twice",
            f"{line.vm.name} RUNS ON {len(line.running_on)} HOSTS: {', '.join(line.running_on)}. "
            "Both write its image.",
            vm=line.vm.name,
            advice="Decide at once which of them is the good one and stop the other, for example: "
            f"fab -H {line.running_on[1]} vm.destroy {quote(line.vm.name)}.",
        )
        for line in lines
        if len(line.running_on) > 1
    ]


def _images_twice(snapshot: Snapshot) -> list[Finding]:
    """Images that VMs of different names hold at the same time.

    Without the VMs' definitions in the snapshot this is a suspicion: the disk may be a shareable one.
    """
    holders: dict[str, dict[tuple[str, str], None]] = {}
    for facts in snapshot.facts():
        known = {d.pid: d for d in facts.domains if d.running and d.pid is not None}
        for d in known.values():
            for key in d.images:
                holders.setdefault(key, {})[d.vm.name, facts.host] = None
        for p in facts.processes:
            domain = known.get(p.pid)
            # A process also has those disks open for writing that its definition calls shareable.
            for key in () if domain and domain.live_xml else p.images:
                holders.setdefault(key, {})[domain.vm.name if domain else p.name, facts.host] = None
    found: dict[str, Finding] = {}
    for who in holders.values():
        if len({name for name, _ in who}) > 1:
            each = " and ".join(f"{name} on {host}" for name, host in sorted(who))
            found[each] = Finding(
                "image-twice",
                f"ONE IMAGE IS WRITTEN BY TWO VMS: {each}.",
                vm=sorted(who)[0][0],
                advice="Decide at once which is the good one, stop the other: fab -H HOST vm.destroy NAME.",
            )
    return list(found.values())


def next_step(host: HostFacts | Silent) -> str:
    """What to do about a host whose VMs are not known."""
    if isinstance(host, HostFacts):
        return f"On {host.host}: systemctl status libvirtd."
    return host.hint or (
        f"Look at {host.host} itself; nothing is started anywhere until it answers. "
        f"If it is dead: fab -H {host.host} evacuate."
    )


def _of_host(host: HostFacts | Silent) -> list[Finding]:
    if isinstance(host, Silent):
        return [
            Finding(
                "silent",
                f"{host.host} does not answer: {host.reason}. Its VMs are not known.",
                host.host,
                advice=next_step(host),
            )
        ]
    found = []
    if host.libvirt_problem:
        found.append(
            Finding(
                "libvirt",
                f"{host.host}: {host.libvirt_problem}. Its VMs are not known.",
                host.host,
                advice=next_step(host),
            )
        )
    if host.store.problem or not host.store.mounted:
        problem = host.store.problem or f"{host.store.mount} is not mounted"
        found.append(
            Finding(
                "store",
                f"The store cannot be used on {host.host}: {problem}.",
                host.host,
                advice=f"On {host.host}: findmnt {host.store.mount}.",
            )
        )
    if not host.libvirt_problem:
        found += (
            Finding(
                "stray-process",
                f"qemu process {p.pid} ({p.name or p.uuid or 'no name'}) on {host.host} is not known to "
                "libvirtd there; it counts as running.",
                host.host,
                p.name,
                advice=f"On {host.host}: ps -fp {p.pid}.",
            )
            for p in stray_processes(host)
        )
        found += (
            Finding(
                "not-running",
                f"{d.vm.name} is {d.state} on {host.host}" + (f" ({d.reason})." if d.reason else "."),
                host.host,
                d.vm.name,
            )
            for d in host.domains
            if d.state not in ("running", "idle", OFF)
        )
    return found


def _different_stores(hosts: Sequence[HostFacts]) -> list[Finding]:
    by_id: dict[str, list[str]] = {}
    for facts in hosts:
        if facts.store.store_id:
            by_id.setdefault(facts.store.store_id, []).append(facts.host)
    if len(by_id) < 2:
        return []
    groups = sorted(by_id.values(), key=len, reverse=True)
    return [
        Finding(
            "other-store",
            f"{', '.join(group)} {'has' if len(group) == 1 else 'have'} another store mounted than "
            f"{', '.join(groups[0])}.",
            group[0],
            advice=f"On {group[0]}: findmnt, and look at the iSCSI session.",
        )
        for group in groups[1:]
    ]


def _interrupted(snapshot: Snapshot) -> list[Finding]:
    return [
        Finding(
            "interrupted",
            f"'{one.command}' by {one.by} was interrupted" if one.command else "A command was interrupted",
            advice="To finish or undo what it left: fab resume",
            at=one.at,
        )
        for one in snapshot.operations()
        if not one.held
    ]


def _cordoned(snapshot: Snapshot, cordons: Mapping[str, Cordon]) -> list[Finding]:
    found = []
    for host, cordon in cordons.items():
        text = f"{host} is cordoned by {cordon.by}" + (f": {cordon.why}" if cordon.why else "")
        advice = f"When it is ready again: fab -H {host} undrain."
        if cordon.why == EVACUATED:
            facts = snapshot.hosts.get(host)
            back = f"fab -H {host} undrain brings them back, with --stay they stay."
            text = f"{host} was evacuated by {cordon.by}: its VMs were started elsewhere"
            advice = (
                f"When it is back: {back}\n"
                "  If it stays away: take it out of hosts.ini, which is your word that it runs nothing."
            )
            if isinstance(facts, HostFacts):
                text = f"{host} was evacuated by {cordon.by} and is back: its VMs were started elsewhere"
                text += ", it starts none of them" if facts.guarded else ""
                advice = f"Look at it, then: {back}"
        found.append(Finding("cordoned", text, host, advice=advice, at=cordon.at))
    return found
