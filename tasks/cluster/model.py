"""What is known about the cluster, as frozen values. No input or output happens here.

Units: memory in KiB, file systems in bytes, durations in seconds, moments in seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

#: The states in which libvirt says that nothing of the VM runs. Every other state counts as running.
OFF = "shut off"


@dataclass(frozen=True, slots=True)
class Host:
    """A vmhost as the inventory describes it.

    What the inventory leaves out stays unset, so that the operator's ssh configuration decides: an empty
    `user` means its User for `address`, else root; `port` None its Port, else 22; an empty `identity` its
    IdentityFile and the agent. Its HostName and ProxyJump apply in any case.
    """

    name: str
    #: what ssh is given: a host name (maybe one that only the ssh configuration knows) or an IP address
    address: str
    user: str = ""
    port: int | None = None
    #: go through `sudo -n` even if the login's name says root; every other login goes through it anyway
    become: bool = False
    #: absolute path of a private key
    identity: str = ""
    #: memory that VMs must never be planned into, KiB
    reserve_kib: int = 0
    #: in the storage network; empty when the inventory does not say
    storage_address: str = ""
    #: in the OCFS2 cluster; None when the inventory does not say
    node: int | None = None
    #: every variable that applies to it, as written (host variables over group variables)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class StoreHost:
    """A machine that exports a store, and where its file system is mounted."""

    name: str
    address: str
    mount: str
    holds_vms: bool
    #: of its file system; empty means its name
    label: str = ""
    #: its iSCSI target; empty means the only one that is offered
    target: str = ""
    port: int = 3260
    #: as whom the hosts log in, with CHAP; empty without
    chap_user: str = ""
    #: absolute path of a file of this computer; empty without
    chap_secret_file: str = ""
    #: hosts that may mount it at once, when it is formatted
    slots: int = 8

    @property
    def file_system(self) -> str:
        """The label of its file system."""
        return self.label or self.name


@dataclass(frozen=True, slots=True)
class Console:
    """A machine's console on a serial line of a host, 8 bits and one stop bit."""

    name: str
    #: alias of the host that has the line
    host: str
    device: str = "/dev/ttyS0"
    #: bits per second
    speed: int = 115200
    #: none, even or odd
    parity: str = "none"


@dataclass(frozen=True, slots=True)
class Inventory:
    """hosts.ini, understood: hosts in file order, stores, and the rules for VMs."""

    path: str
    hosts: Mapping[str, Host]
    stores: Mapping[str, StoreHost]
    #: mount point of the store that holds the VMs' images
    mount: str = "/vmstorage"
    #: name of the rule -> exact VM names or glob patterns that must not share a host
    apart: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: seconds before a shutdown becomes a destroy: cluster-wide, and by VM name or glob pattern
    shutdown_timeout: float = 180.0
    shutdown_timeouts: Mapping[str, float] = field(default_factory=dict)
    #: how many times longer than usual hosts may take for a login or an answer
    patience: float = 1.0
    #: days for which the journals of ended operations are kept
    journal_days: int = 400
    #: the OCFS2 cluster that the hosts make up, and its heartbeat threshold
    ocfs2_cluster: str = "vmfab"
    ocfs2_threshold: int = 31
    #: an OpenSSH client configuration to use instead of ~/.ssh/config; empty for the usual one
    ssh_config: str = ""
    #: consoles on serial lines of the hosts
    consoles: Mapping[str, Console] = field(default_factory=dict)
    #: group name -> its cluster hosts, in file order; groups without any are left out
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def timeout_of(self, vm_name: str) -> float:
        """Seconds a VM gets for its shutdown: its exact name first, then the first matching pattern."""
        if vm_name in self.shutdown_timeouts:
            return self.shutdown_timeouts[vm_name]
        for pattern, seconds in self.shutdown_timeouts.items():
            if fnmatchcase(vm_name, pattern):
                return seconds
        return self.shutdown_timeout


@dataclass(frozen=True, slots=True)
class Vm:
    """The identity of a VM: libvirt's UUID, and the name people use."""

    uuid: str
    name: str


@dataclass(frozen=True, slots=True)
class FileId:
    """What a path on a host really is.

    `key` is the same for the same file on every host when it lies on the shared store, however the path is
    spelled; a file that lies elsewhere has a key of its own host.
    """

    path: str
    real: str
    exists: bool
    on_store: bool
    key: str


@dataclass(frozen=True, slots=True)
class Domain:
    """One libvirt definition on one host, with its state there."""

    vm: Vm
    host: str
    state: str
    reason: str
    persistent: bool
    autostart: bool
    managed_save: bool
    memory_kib: int
    vcpus: int
    pid: int | None = None
    since: float | None = None
    #: newest trace on this host of it starting or ending, by the host's clock; None when there is none
    last_ran: float | None = None
    #: dumpxml --inactive --security-info; empty unless the observation was made for planning
    xml: str = field(default="", repr=False)
    #: dumpxml of the running instance; empty when off
    live_xml: str = field(default="", repr=False)
    #: keys of the images that it may write, running or not (see FileId.key)
    images: frozenset[str] = frozenset()

    @property
    def running(self) -> bool:
        return self.state != OFF


@dataclass(frozen=True, slots=True)
class QemuProcess:
    """A qemu process found in /proc, whatever libvirt says about it."""

    pid: int
    uuid: str
    name: str
    images: frozenset[str]


@dataclass(frozen=True, slots=True)
class Store:
    """The shared file system as one host sees it. `problem` is empty when it can be used."""

    mount: str
    mounted: bool
    problem: str = ""
    store_id: str = ""
    fstype: str = ""
    source: str = ""
    total_bytes: int = 0
    free_bytes: int = 0

    @property
    def silent(self) -> bool:
        """Whether it is mounted and did not answer, not even how large it is."""
        return self.mounted and bool(self.problem) and not self.total_bytes


#: Why a host is cordoned whose VMs were started elsewhere because it was dead.
EVACUATED = "evacuated"


@dataclass(frozen=True, slots=True)
class Cordon:
    """A host that takes no new VMs; kept on the shared store as cordons/HOST.json."""

    host: str
    by: str
    at: float
    why: str
    #: journals of the drains that ran under this cordon, oldest first; undrain brings back what they moved
    drains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenOperation:
    """An operation that has not ended: under way when its lock is held, else interrupted."""

    id: str
    held: bool
    command: str = ""
    by: str = ""
    #: when it began; None when its lock file does not say
    at: float | None = None


@dataclass(frozen=True, slots=True)
class HostFacts:
    """One host's answer. `libvirt_problem` is empty when libvirtd answered; otherwise domains are unknown."""

    host: str
    at: float
    boot_id: str
    uptime: float
    cpus: int
    load1: float
    memory_total_kib: int
    memory_available_kib: int
    libvirt_version: str
    libvirt_problem: str
    store: Store
    domains: tuple[Domain, ...]
    processes: tuple[QemuProcess, ...]
    #: cordons found on the store as this host sees it
    cordons: tuple[Cordon, ...] = ()
    #: operations of all hosts that have not ended, as this host sees them on the store
    operations: tuple[OpenOperation, ...] = ()
    #: whether vmfab's hook stands in libvirt's way of a start; None when the host did not say
    guarded: bool | None = None
    #: which guard that is: its version, or "edited" when somebody has changed the hook
    guard_version: str = ""
    #: None when the file does not exist
    running_vms: tuple[str, ...] | None = None
    bridges: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    #: machine types this host's QEMU offers, as "arch/machine"; only in observations made for planning
    machines: frozenset[str] = frozenset()
    #: files named in definitions, by path
    files: Mapping[str, FileId] = field(default_factory=dict)

    def domain(self, vm: Vm) -> Domain | None:
        """The definition of `vm` on this host, by UUID or, with another UUID, by name."""
        for domain in self.domains:
            if domain.vm.uuid == vm.uuid:
                return domain
        for domain in self.domains:
            if domain.vm.name == vm.name:
                return domain
        return None


@dataclass(frozen=True, slots=True)
class Silent:
    """A host that could not be asked, and why. It may be running anything."""

    host: str
    reason: str
    #: what the operator can do about it, if there is more to say than "look at it"
    hint: str = ""
    #: something at its address did answer: it is no host without power
    alive: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why a VM counts as running on a host: what was seen, in words for the operator."""

    host: str
    what: str


@dataclass(frozen=True, slots=True)
class RunningNow:
    """The light question to one host: what is active there at this moment?

    `active` are all domains that libvirt lists as active (running, paused, in shutdown, crashed ...).
    """

    host: str
    at: float
    active: tuple[Domain, ...]
    processes: tuple[QemuProcess, ...]
    store_problem: str = ""


def evidence_of(vm: Vm, images: frozenset[str], seen: RunningNow | HostFacts) -> tuple[Evidence, ...]:
    """Everything on one host that says `vm`, or anything holding one of `images`, runs there.

    An empty answer means: this host was asked and shows no trace. Callers must have dealt with silent hosts
    and with `libvirt_problem` before; this function only reads what was seen.
    """
    found: list[Evidence] = []
    if isinstance(seen, HostFacts):
        active: Sequence[Domain] = [d for d in seen.domains if d.running]
    else:
        active = seen.active
    for d in active:
        if d.vm.uuid == vm.uuid:
            found.append(Evidence(seen.host, f"libvirt lists it as {d.state}"))
        elif d.vm.name == vm.name:
            found.append(
                Evidence(seen.host, f"libvirt lists a VM of this name (UUID {d.vm.uuid}) as {d.state}")
            )
        elif shared := d.images & images:
            found.append(Evidence(seen.host, f"VM {d.vm.name!r} ({d.state}) uses its image {_first(shared)}"))
    known = {d.pid for d in active if d.pid is not None}
    for p in seen.processes:
        if p.pid in known:
            continue
        if p.uuid == vm.uuid or p.name == vm.name:
            found.append(Evidence(seen.host, f"qemu process {p.pid} of it is alive"))
        elif shared := p.images & images:
            found.append(
                Evidence(seen.host, f"qemu process {p.pid} ({p.name}) has its image {_first(shared)} open")
            )
    return tuple(found)


def _first(keys: frozenset[str]) -> str:
    return sorted(keys)[0]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All inventory hosts at one moment. A host that did not answer is Silent, never missing."""

    hosts: Mapping[str, HostFacts | Silent]

    def facts(self) -> tuple[HostFacts, ...]:
        return tuple(h for h in self.hosts.values() if isinstance(h, HostFacts))

    def unsure(self) -> tuple[Silent, ...]:
        """Hosts whose VMs are unknown: silent ones, and those whose libvirtd did not answer."""
        found: list[Silent] = []
        for h in self.hosts.values():
            if isinstance(h, Silent):
                found.append(h)
            elif h.libvirt_problem:
                found.append(Silent(h.host, h.libvirt_problem))
        return tuple(found)

    def domains(self) -> tuple[Domain, ...]:
        return tuple(d for h in self.facts() for d in h.domains)

    def running(self) -> tuple[Domain, ...]:
        return tuple(d for d in self.domains() if d.running)

    def cordons(self) -> Mapping[str, Cordon]:
        """Cordons by host, whichever host reported them: one that only some can read still counts."""
        found: dict[str, Cordon] = {}
        for facts in self.facts():
            for cordon in facts.cordons:
                found.setdefault(cordon.host, cordon)
        return found

    def operations(self) -> tuple[OpenOperation, ...]:
        """Operations that have not ended, oldest first; one whose lock any host sees held is under way."""
        found: dict[str, OpenOperation] = {}
        for facts in self.facts():
            for one in facts.operations:
                if one.id not in found or one.held:
                    found[one.id] = one
        return tuple(found[key] for key in sorted(found))

    def unguarded(self) -> tuple[str, ...]:
        """Hosts on which libvirt starts VMs without asking anybody."""
        return tuple(facts.host for facts in self.facts() if facts.guarded is False)

    def where_running(self, vm: Vm) -> tuple[Domain, ...]:
        return tuple(d for d in self.running() if d.vm.uuid == vm.uuid or d.vm.name == vm.name)

    def images_of(self, vm: Vm) -> frozenset[str]:
        """Every image that any definition of `vm`, on any host, may write."""
        keys: frozenset[str] = frozenset()
        for d in self.domains():
            if d.vm.uuid == vm.uuid or d.vm.name == vm.name:
                keys |= d.images
        return keys


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason against a plan. `flag` names the option that overrides it, empty if nothing may."""

    vm: str
    host: str
    reason: str
    flag: str = ""


@dataclass(frozen=True, slots=True)
class Move:
    """One VM's way from source to target."""

    vm: Vm
    source: str
    target: str
    memory_kib: int
    shutdown_timeout: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, what cannot be, and why; every VM concerned is in exactly one of the two."""

    moves: tuple[Move, ...]
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one move ended, as observed.

    `result` is one of: moved, already-there, left (not tried), kept (still running on the source),
    back (running again on the source), failed (off everywhere, or dead on the target), unknown.
    """

    move: Move
    result: str
    #: where the VM runs now as far as was observed; empty when nowhere or not known
    running_on: str
    #: how it stopped: "shutdown", "destroyed", "was off"; empty if it did not
    stopped_by: str = ""
    #: seconds from the end of the guest to the target's running state; None if it never stopped or started
    downtime: float | None = None
    detail: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.result in ("moved", "already-there")


def require(mapping: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """`mapping[key]` checked for its type.

    Raises ValueError that names the key: an answer that is not understood is never an empty answer.
    """
    value = mapping.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool and kind != (bool,)):
        raise ValueError(f"unexpected answer: {key!r} is {value!r}")
    return value
