"""The stores' file systems on a host: the OCFS2 cluster, the mounts, and what protects them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, Refused
from tasks.cluster.model import StoreHost
from tasks.cluster.setup import blockdevices, clusterconf, fstab, iscsitargets, neighbours, templates
from tasks.cluster.setup.blockdevices import FileSystem, Mounted
from tasks.cluster.setup.clusterconf import Member, Node
from tasks.cluster.setup.iscsi import NoStores, require_address, systemctl, unit
from tasks.cluster.setup.neighbours import Neighbour
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, Lacking, OwnFile, Step, Wish, diff, run

#: The step, and what makes a store's file system.
NAME = "ocfs2"
FORMAT = f"{NAME} --format"
O2CB = "o2cb.service"
#: Mounts at boot as fstab does, and at its end kills whatever uses an OCFS2, guests too.
KILLER = "ocfs2.service"
SYSCTL = "/etc/sysctl.d/90-vmfab-ocfs2.conf"
#: Seconds after which a host that has panicked starts again.
PANIC = 30
#: Seconds for which the cluster's start waits for the host's storage address.
ADDRESS = 90
LOG = "/var/log/vmfab/ocfs2.log"
#: Seconds: a mount waits for the heartbeat, and replays what a dead host left.
MOUNTING = 240.0
#: Settings that all nodes must share, and that vmfab does not let anybody choose.
_TIMEOUTS = {
    "O2CB_IDLE_TIMEOUT_MS": "30000",
    "O2CB_KEEPALIVE_DELAY_MS": "2000",
    "O2CB_RECONNECT_DELAY_MS": "2000",
}
_THRESHOLD = "O2CB_HEARTBEAT_THRESHOLD"


def step(session: Session, host: str) -> Step:
    """What `host.ocfs2` sets up on a host. Asks nobody; raises Refused for settings that make no sense."""
    inventory = session.inventory
    if not inventory.stores:
        return Step(NAME, (NoStores(),))
    stores = tuple(inventory.stores.values())
    mounts = [StoreMounted(session, host, store) for store in stores]
    return Step(NAME, (*cluster_step(session, host).wishes, InFstab(stores), *mounts))


def cluster_step(session: Session, host: str) -> Step:
    """The same without the stores: as much as is needed to format one."""
    inventory = session.inventory
    for one in inventory.hosts.values():
        address = require_address(one)
        if ipaddress.ip_address(address).version != 4:
            raise Refused(
                f"{one.name} has the storage address {address}: o2cb knows IPv4 only.",
                f"Write an IPv4 address as vmfab_storage_address at {one.name}.",
            )
    defaults = templates.render(
        "o2cb.default.j2", cluster=inventory.ocfs2_cluster, threshold=inventory.ocfs2_threshold
    )
    sysctl = templates.render("vmfab-ocfs2.sysctl.j2", seconds=PANIC)
    wishes: tuple[Wish, ...] = (
        ClusterConf(session, host),
        OthersKnow(session, host),
        SameSettings(session, host),
        # On some releases o2cb's own script rewrites it in another form at each stop and start.
        OwnFile(neighbours.DEFAULTS, defaults, 0o644, reads=neighbours.values),
        DropIn(O2CB, waits_for(inventory.hosts[host].storage_address)),
        Online(session),
        NoKiller(),
        OwnFile(SYSCTL, sysctl, 0o644),
        ComesBackFromPanic(),
        DropIn("libvirt-guests.service", templates.render("libvirt-guests.dropin.j2")),
    )
    return Step(NAME, wishes)


def waits_for(address: str) -> str:
    """What o2cb's unit lacks: its start waits for the host's storage address."""
    return templates.render("o2cb.dropin.j2", address=address, seconds=ADDRESS)


# -- the cluster ---------------------------------------------------------------------------------------------


def agreed(session: Session, ops: HostOps) -> tuple[str, Mapping[str, Neighbour]]:
    """The text of cluster.conf for all hosts, and what the other hosts have now.

    Raises Refused when hosts contradict each other, or one that would have to be told does not answer.
    """
    inventory = session.inventory
    answered, silent = neighbours.others(session, ops.host)
    mine = neighbours.look(ops, inventory.ocfs2_cluster)
    seen = {**answered, ops.host: mine}
    files = {name: seen[name].cluster_conf for name in inventory.hosts if name in seen}
    found = {name: text for name, text in files.items() if text is not None and text.strip()}
    members = [
        Member(
            host.name,
            seen[host.name].name if host.name in seen else host.name,
            host.storage_address,
            host.node,
            host.name in seen,
        )
        for host in inventory.hosts.values()
    ]
    nodes = clusterconf.merged(inventory.ocfs2_cluster, found, members)
    _all_heard(found, nodes, list(silent))
    return clusterconf.render(inventory.ocfs2_cluster, nodes), answered


def _all_heard(found: Mapping[str, str], nodes: tuple[Node, ...], silent: list[str]) -> None:
    """Raise Refused when a node is to be added while a host is silent.

    It may have that number for another node, and both would write their heartbeat to the same place.
    """
    files = [clusterconf.parse(text).nodes.values() for text in found.values()]
    known = {node.address for file in files for some in file for node in some}
    new = [node.name for node in nodes if node.address not in known]
    if new and silent:
        do = "does" if len(silent) == 1 else "do"
        raise Refused(
            f"{', '.join(silent)} {do} not answer: cluster.conf there is not known, and {', '.join(new)}"
            " would have to be added to it.",
            "Bring it back first, or take it out of hosts.ini until it is back.",
        )


@dataclass(frozen=True, slots=True)
class ClusterConf:
    """The same cluster.conf as on all hosts."""

    session: Session = field(repr=False)
    host: str

    def look(self, ops: HostOps) -> Finding:
        run(ops, ["o2cb", "--version"])
        text, _ = agreed(self.session, ops)
        return OwnFile(clusterconf.PATH, text, 0o644).look(ops)


@dataclass(frozen=True, slots=True)
class OthersKnow:
    """The other hosts of the cluster have the same cluster.conf, and their kernels know all its nodes."""

    session: Session = field(repr=False)
    host: str

    def look(self, ops: HostOps) -> Finding:
        what = "cluster.conf of the other hosts"
        text, others = agreed(self.session, ops)
        names = _names(text)
        stale = {
            name: other
            for name, other in others.items()
            if other.cluster_conf and (other.cluster_conf != text or not names <= (other.nodes or names))
        }
        if not stale:
            have = sum(1 for other in others.values() if other.cluster_conf)
            return AlreadySo(what, f"is the same on {have} of them" if have else "there is none yet")

        def tell(ops: HostOps) -> str:
            for name in stale:
                with self.session.using(name) as there:
                    _update(there, self.session.inventory.ocfs2_cluster, text)
            return ""

        shown = "".join(
            diff(f"{clusterconf.PATH} on {name}", other.cluster_conf, text) for name, other in stale.items()
        )
        return Change(what, f"brought up to date on {', '.join(stale)}, while they run", tell, shown)


def _names(text: str) -> frozenset[str]:
    return frozenset(node.name for nodes in clusterconf.parse(text).nodes.values() for node in nodes)


def _update(ops: HostOps, cluster: str, text: str) -> None:
    """Give a host the file, and its running cluster the nodes that it lacks."""
    found = ops.file_read(clusterconf.PATH)
    if found.text != text:
        ops.file_write(clusterconf.PATH, text, mode=0o644, expect=found.sha256)
    if neighbours.look(ops, cluster).nodes is not None:
        _register(ops, cluster, text)


def _register(ops: HostOps, cluster: str, text: str) -> None:
    ended = run(ops, ["o2cb", "register-cluster", cluster])
    nodes = neighbours.look(ops, cluster).nodes
    missing = sorted(_names(text) - (nodes or frozenset()))
    if missing:
        raise Failed(
            f"{ops.host}: the running cluster {cluster} does not take {', '.join(missing)}: {ended.said}.",
            f"Empty {ops.host} and reboot it: it reads cluster.conf then.",
        )


@dataclass(frozen=True, slots=True)
class SameSettings:
    """No host goes by other time-outs than the rest: it would not be let in."""

    session: Session = field(repr=False)
    host: str

    def look(self, ops: HostOps) -> Finding:
        inventory = self.session.inventory
        others, silent = neighbours.others(self.session, self.host)
        mine = neighbours.look(ops, inventory.ocfs2_cluster)
        wanted = str(inventory.ocfs2_threshold)
        if mine.nodes is None and any(mount.kind == "ocfs2" for mount in mine.mounts):
            raise Refused(
                f"{self.host} has an OCFS2 mounted, but not by the cluster {inventory.ocfs2_cluster}.",
                f"Type there: ls {neighbours.CONFIGFS}. Write the name of its cluster as vmfab_ocfs2_cluster"
                " in [vmhosts:vars] of hosts.ini. One with another stack than o2cb has to be umounted first.",
            )
        for name, one in {**others, self.host: mine}.items():
            in_use = one.mounts and any(m.kind == "ocfs2" for m in one.mounts)
            if one.threshold is not None and in_use and str(one.threshold) != wanted:
                raise Refused(
                    f"{name} runs with the heartbeat threshold {one.threshold}, not {wanted}.",
                    f"Write vmfab_ocfs2_threshold={one.threshold} in [vmhosts:vars]. To change it, umount the"
                    " stores on all hosts.",
                )
            if name == self.host or not one.defaults:
                continue
            theirs = neighbours.values(one.defaults)
            if not theirs.get("O2CB_BOOTCLUSTER"):
                continue  # the package's own file: it is no member yet
            for key, value in {_THRESHOLD: wanted, **_TIMEOUTS}.items():
                if theirs.get(key, value) not in ("", value):
                    hint = (
                        f"Make it {key}={value} in {neighbours.DEFAULTS} on {name} while nothing is mounted."
                    )
                    if key == _THRESHOLD:
                        hint = f"Write vmfab_ocfs2_threshold={theirs[key]} in [vmhosts:vars] of hosts.ini."
                    raise Refused(f"{name} has {key}={theirs[key]}, not {value}; hosts must agree.", hint)
        unasked = f"; {', '.join(silent)} did not answer" if silent else ""
        return AlreadySo("o2cb's time-outs", f"no host has others{unasked}")


@dataclass(frozen=True, slots=True)
class Online:
    """The cluster is online, with all nodes that its cluster.conf will have, also after each boot."""

    session: Session = field(repr=False)

    def look(self, ops: HostOps) -> Finding:
        cluster, threshold = self.session.inventory.ocfs2_cluster, self.session.inventory.ocfs2_threshold
        text, _ = agreed(self.session, ops)
        mine = neighbours.look(ops, cluster)
        enabled = unit(ops, "is-enabled", O2CB) in ("enabled", "generated")
        complete = mine.nodes is not None and _names(text) <= mine.nodes
        right = mine.threshold == threshold
        if enabled and complete and right:
            return AlreadySo(O2CB, f"has the cluster {cluster} online, with {len(mine.nodes or ())} nodes")

        def start(ops: HostOps) -> str:
            systemctl(ops, "enable", O2CB)
            now = neighbours.look(ops, cluster)
            if now.nodes is None or now.threshold != threshold:
                # Nothing is mounted then, or SameSettings would have refused.
                systemctl(ops, "restart", O2CB)
                now = neighbours.look(ops, cluster)
            if now.nodes is None:
                raise Failed(
                    f"{ops.host}: the cluster {cluster} does not come online.",
                    f"Type there: journalctl -u {O2CB}; ls {clusterconf.PATH}",
                )
            _register(ops, cluster, ops.file_read(clusterconf.PATH).text or "")
            return ""

        why = "enabled" if complete and right else "told of all nodes" if mine.nodes else "brought online"
        return Change(O2CB, why, start)


# -- what protects it ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NoKiller:
    """The package's own script, which ends guests when it stops, is out of the way; fstab mounts."""

    def look(self, ops: HostOps) -> Finding:
        state = unit(ops, "is-enabled", KILLER)
        if state in ("masked", "not-found", ""):
            return AlreadySo(KILLER, "is masked" if state == "masked" else "is not there")

        def mask(ops: HostOps) -> str:
            # Without --now: to stop it is what must not happen.
            systemctl(ops, "mask", KILLER)
            return "fstab mounts; at its stop it would kill all processes on the stores, guests too"

        return Change(KILLER, "masked", mask)


@dataclass(frozen=True, slots=True)
class ComesBackFromPanic:
    """The kernel goes by the panic settings now."""

    def look(self, ops: HostOps) -> Finding:
        wanted = {"kernel.panic": str(PANIC), "kernel.panic_on_oops": "1"}
        now = {name: ops.file_read(f"/proc/sys/{name.replace('.', '/')}").text for name in wanted}
        different = [name for name, value in wanted.items() if (now[name] or "").strip() != value]
        if not different:
            return AlreadySo("kernel.panic", f"is {PANIC} s, also after an oops")

        def load(ops: HostOps) -> str:
            ended = run(ops, ["sysctl", "-q", "-p", SYSCTL])
            if ended.rc != 0:
                raise Failed(f"{ops.host}: sysctl -p {SYSCTL}: {ended.said}.")
            return ""

        return Change(", ".join(different), f"set as in {SYSCTL}", load)


@dataclass(frozen=True, slots=True)
class DropIn:
    """A file that adds to a unit of systemd, which has read it."""

    unit: str
    text: str

    @property
    def path(self) -> str:
        return f"/etc/systemd/system/{self.unit}.d/vmfab-ocfs2.conf"

    def look(self, ops: HostOps) -> Finding:
        found = OwnFile(self.path, self.text, 0o644).look(ops)
        if isinstance(found, AlreadySo):
            unread = run(ops, ["systemctl", "show", "-p", "NeedDaemonReload", "--value", self.unit])
            if unread.out.strip() != "yes":
                return found
            found = Change(self.path, "read by systemd", lambda ops: "")
        change = found

        def write(ops: HostOps) -> str:
            note = change.apply(ops)
            systemctl(ops, "daemon-reload")
            return note

        return Change(change.what, change.why, write, change.diff)


# -- the stores ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InFstab:
    """The lines of /etc/fstab that mount the stores at boot; no other line is touched."""

    stores: tuple[StoreHost, ...]

    def look(self, ops: HostOps) -> Finding:
        found = ops.file_read(fstab.PATH)
        text = found.text or ""
        for store in self.stores:
            text = fstab.with_mount(text, store.mount, fstab.line_for(store.file_system, store.mount))
        names = ", ".join(store.name for store in self.stores)
        if text == found.text:
            return AlreadySo(fstab.PATH, f"mounts {names} at boot")

        def write(ops: HostOps) -> str:
            mode = found.mode if found.text is not None else 0o644
            kept = ops.file_write(fstab.PATH, text, mode=mode, expect=found.sha256)
            systemctl(ops, "daemon-reload")
            return f"the old one is kept as {kept}" if kept else ""

        return Change(fstab.PATH, f"made to mount {names} at boot", write, diff(fstab.PATH, found.text, text))


@dataclass(frozen=True, slots=True)
class StoreMounted:
    """The store is mounted: the same file system as on the other hosts."""

    session: Session = field(repr=False)
    host: str
    store: StoreHost

    def look(self, ops: HostOps) -> Finding:
        store = self.store
        others, _ = neighbours.others(self.session, self.host)
        theirs = {name: one.mounted(store.mount) for name, one in others.items()}
        uuids = {name: there.uuid for name, there in theirs.items() if there and there.kind == "ocfs2"}
        here = next((one for one in reversed(neighbours.mounts(ops)) if one.mount == store.mount), None)
        if here is not None:
            if here.kind != "ocfs2":
                raise Refused(
                    f"{ops.host} has {here.kind} of {here.device} on {store.mount}, not {store.name}.",
                    f"Type there: umount {store.mount}; what is on it has to go elsewhere.",
                )
            self._same(here.device, here.uuid, uuids)
            self._boots_so(ops, here)
            where = f", as on {', '.join(uuids)}" if uuids else ""
            return AlreadySo(store.mount, f"has {store.name} mounted from {here.device}{where}")
        device = store_device(ops, store)
        self._same(device.device, device.uuid, uuids)
        _empty(ops, store)
        return Change(store.mount, f"mounted from {device.device}, which is {device.uuid}", self._mount)

    def _same(self, device: str, uuid: str, theirs: Mapping[str, str]) -> None:
        for name, other in theirs.items():
            if other and uuid and other != uuid:
                raise Refused(
                    f"{self.store.name} is another file system on {self.host} than on {name}: "
                    f"{device} is {uuid}, {name} has {other} mounted on {self.store.mount}.",
                    "Look which target each is logged in to: iscsiadm -m session -P 3",
                )

    def _boots_so(self, ops: HostOps, here: Mounted) -> None:
        """Raise Refused when the next boot would not mount what is mounted now, or locks do not exclude."""
        name, label = self.store.name, self.store.file_system
        if "localflocks" in here.options:
            raise Refused(
                f"{ops.host} has {name} mounted with localflocks: its locks do not hold for the other hosts.",
                f"fab -H {ops.host} drain, then there: umount {here.mount}; and the same again.",
            )
        uuids = {one.uuid for one in labelled(ops, label)}
        if here.uuid and uuids != {here.uuid}:
            raise Refused(
                f"{ops.host} has {name} mounted from {here.device}, which the label {label} does not find:"
                " the next boot would not mount it.",
                f"Type there: blkid {here.device}. Write its label as vmfab_label at {name} in hosts.ini. If"
                " it has none, umount it on all hosts and type on one:"
                f" tunefs.ocfs2 -L {label} {here.device}",
            )

    def _mount(self, ops: HostOps) -> str:
        run(ops, ["mkdir", "-p", self.store.mount])
        try:
            ended = ops.work(["mount", self.store.mount], timeout=MOUNTING, log=LOG)
        except HostError as error:
            if error.kind != "deadline":
                raise
            raise Failed(f"{ops.host}: {error.detail}.", self._advice(ops)) from None
        if ended.rc != 0:
            raise Failed(f"{ops.host} cannot mount {self.store.name}: {ended.said}.", self._advice(ops))
        return ""

    def _advice(self, ops: HostOps) -> str:
        """What may be the matter, with what was found about the heartbeat's network."""
        others, _ = neighbours.others(self.session, self.host)
        deaf = []
        for name, one in others.items():
            address = self.session.inventory.hosts[name].storage_address
            if one.nodes is not None and not _reaches(ops, address):
                deaf.append(f"{name} ({address})")
        if deaf:
            return (
                f"It gets no connection to port {clusterconf.PORT} of {', '.join(deaf)}, which o2cb needs in"
                " both directions: see firewalls and cables of the storage network, and type the same again."
            )
        return f"Type there: dmesg | tail -30; o2cb talks over port {clusterconf.PORT} of the storage net."


def _reaches(ops: HostOps, address: str) -> bool:
    """Whether o2cb's port of another host accepts a connection."""
    script = f"exec 3<>/dev/tcp/{address}/{clusterconf.PORT}"
    return run(ops, ["timeout", "5", "bash", "-c", script]).rc == 0


class Unformatted(Lacking):
    """No device of the host has a store's label."""

    def __init__(self, host: str, lacks: str, store: StoreHost) -> None:
        super().__init__(host, lacks, by=FORMAT)
        self.hint = (
            f"For a new store: fab -H {host} host.{FORMAT}. If it has another label, write"
            f" vmfab_label=LABEL at {store.name} in hosts.ini."
        )


def store_device(ops: HostOps, store: StoreHost) -> FileSystem:
    """The device with the store's file system, found by its label.

    Raises Lacking while the host has no session with the store, Unformatted when there is no such device,
    Refused when there are several, or it has something else on it.
    """
    label = store.file_system
    found = labelled(ops, label)
    if len(found) > 1:
        devices = ", ".join(f"{one.device} ({one.kind}, {one.uuid})" for one in found)
        raise Refused(
            f"{ops.host} has {len(found)} devices with the label {label}: {devices}.",
            "If they are the same disk, there is more than one way to it: iscsiadm -m session -P 3. A copy of"
            " the store has to go, or to get another label: tunefs.ocfs2 -L.",
        )
    if not found:
        disks = disks_of(ops, store)
        named = f", which is to be on {', '.join(disks)}" if disks else ""
        raise Unformatted(ops.host, f"has no file system with the label {label}{named}", store)
    (one,) = found
    if one.kind != "ocfs2":
        raise Refused(
            f"{one.device} of {ops.host} has the label {label}, but {one.kind} on it, not ocfs2.",
            f"Write the right vmfab_label at {store.name} in hosts.ini.",
        )
    return one


def labelled(ops: HostOps, label: str) -> tuple[FileSystem, ...]:
    """All devices with a label, without the cache of blkid."""
    ended = run(ops, ["blkid", "-c", "/dev/null", "-t", f"LABEL={label}", "-o", "export"])
    return blockdevices.file_systems(ended.out) if ended.rc == 0 else ()


def disks_of(ops: HostOps, store: StoreHost) -> tuple[str, ...]:
    """The disks that the host's session with a store gives. Raises Lacking without a session."""
    record = iscsitargets.target_of(ops, store)
    logins = iscsitargets.logins(ops)
    held = [login for login in logins if record is not None and login.target == record.target]
    if not held:
        raise Lacking(ops.host, f"has no session with {store.name}", by="iscsi")
    return tuple(f"/dev/{disk}" for login in held for disk in login.disks)


def _empty(ops: HostOps, store: StoreHost) -> None:
    """Raise Refused when files lie in the folder that the mount would hide: guests may write to them."""
    words = ["find", store.mount, "-mindepth", "1", "-maxdepth", "1", "-print", "-quit"]
    below = run(ops, words).out.strip()
    if below:
        raise Refused(
            f"{ops.host} has {below} in the folder {store.mount} itself, which the mount would hide.",
            "See that no VM runs from there, move it away, and type the same again.",
        )
