"""The storage network, simulated: targets and their disks, and a host's programs for iSCSI and OCFS2."""

from __future__ import annotations

import ipaddress
import itertools
import json
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.cluster.setup import blockdevices, clusterconf, fstab, iscsiadm, iscsitargets, neighbours, ocfs2
from tests.sim.errors import AgentError

if TYPE_CHECKING:
    from tests.sim.host import SimHost

Ended = tuple[int, str, str]
#: The hosts' NICs: that in the storage network, and that in the LAN, with the default route.
NIC, LAN = "enp2s0", "enp1s0"
PROGRAMS = ("iscsiadm", "o2cb", "mkfs.ocfs2")


@dataclass(eq=False, slots=True)
class Lun:
    """A disk that a target exports: what is on it, "" for nothing."""

    kind: str = ""
    label: str = ""
    uuid: str = ""
    made_with: tuple[str, ...] = ()


@dataclass(eq=False, slots=True)
class Target:
    """An iSCSI target: its portals, the account that it wants, its disks."""

    name: str
    portals: tuple[str, ...]
    luns: list[Lun] = field(default_factory=list)
    account: tuple[str, str] | None = None


@dataclass(slots=True)
class Network:
    """All targets that hosts may reach, by nobody's order; those that are down do not answer."""

    targets: list[Target] = field(default_factory=list)
    down: bool = False
    #: a portal at which only the list of targets is given -> the portal whose targets these are
    forwards: dict[str, str] = field(default_factory=dict)
    #: o2cb's port is closed between hosts
    firewall: bool = False


@dataclass(slots=True)
class Session:
    """What a host is logged in with."""

    sid: int
    target: Target
    portal: str
    iface: str
    disks: tuple[str, ...]


class Storage:
    """One host's part: what its kernel holds, and its programs."""

    def __init__(self, host: SimHost, network: Network, address: str, lan: str) -> None:
        self.host = host
        self.network = network
        self.address: str | None = address
        self.lan = lan
        self.hostname = host.name
        #: where its open-iscsi keeps its records
        self.folder = iscsiadm.OLD_FOLDER
        self.sessions: list[Session] = []
        self.disks: dict[str, Lun] = {}
        self.nodes: set[str] | None = None
        self.threshold = 31
        #: mount point -> (device, kind)
        self.mounts: dict[str, tuple[str, str]] = {}
        self.below: dict[str, str] = {}
        self.enabled = {"iscsid.socket", "ocfs2.service", "o2cb.service"}
        self.active = {"iscsid.socket"}
        self.masked: set[str] = set()
        self.mount_options = "rw,noatime"
        self.sysctl = {"kernel/panic": "0", "kernel/panic_on_oops": "0"}
        #: process -> the disk that it has open
        self.open: dict[int, str] = {}
        self.seen: list[list[str]] = []
        host.disk.files |= {
            "/etc/machine-id": (f"{'0' * 31}{len(host.name)}\n", 0o444),
            iscsitargets.INITIATOR: (f"InitiatorName=iqn.1993-08.org.debian:01:{host.name}\n", 0o600),
            fstab.PATH: ("UUID=1234 / ext4 errors=remount-ro 0 1\n", 0o644),
            neighbours.DEFAULTS: ("O2CB_ENABLED=false\nO2CB_BOOTCLUSTER=ocfs2\n", 0o644),
        }

    @property
    def files(self) -> dict[str, tuple[str, int]]:
        return self.host.disk.files

    def read(self, path: str) -> str | None:
        """The text of a file of the kernel's; None for one that is not."""
        if path == "/proc/sys/kernel/hostname":
            return f"{self.hostname}\n"
        if path.startswith("/proc/sys/"):
            return f"{self.sysctl[path.removeprefix('/proc/sys/')]}\n"
        if path.endswith("/dead_threshold") and self.nodes is not None:
            return f"{self.threshold}\n"
        return None

    def boot(self) -> None:
        """Start again, as systemd would with these files."""
        self.sessions, self.disks, self.nodes = [], {}, None
        self.mounts, self.active, self.open = {}, {"iscsid.socket"}, {}
        if "open-iscsi.service" in self.enabled:
            self._systemctl(["systemctl", "start", "open-iscsi.service"])
        if "o2cb.service" in self.enabled:
            self._systemctl(["systemctl", "start", "o2cb.service"])
        for line in self.files[fstab.PATH][0].splitlines():
            if line.split()[2] == "ocfs2":
                self._mount(["mount", line.split()[1]])

    def run(self, argv: Sequence[str]) -> Ended | None:
        """Run one of its programs; None when it is another's."""
        programs: dict[str, Callable[[list[str]], Ended | None]] = {
            "iscsiadm": self._iscsiadm,
            "test": self._test,
            "ip": self._ip,
            "systemctl": self._systemctl,
            "udevadm": lambda argv: (0, "", ""),
            "o2cb": self._o2cb,
            "ls": self._ls,
            "findmnt": self._findmnt,
            "blkid": self._blkid,
            "lsblk": self._lsblk,
            "wipefs": lambda argv: (0, self._signature(argv[-1]), ""),
            "find": self._find,
            "mount": self._mount,
            "mkdir": lambda argv: (0, "", ""),
            "rm": lambda argv: (0 if self.files.pop(argv[-1], None) else 1, "", ""),
            "mkfs.ocfs2": self._mkfs,
            "sysctl": self._load,
            "timeout": lambda argv: (1 if self.network.firewall else 0, "", ""),
        }
        program = programs.get(argv[0])
        if program is None:
            return None
        if argv[0] in PROGRAMS and argv[0] in self.host.disk.missing:
            raise AgentError("bad-request", f"{argv[0]}: No such file or directory")
        self.seen.append(list(argv))
        return program(list(argv))

    # -- iSCSI ---------------------------------------------------------------------------------------

    def _ip(self, argv: list[str]) -> Ended:
        has = {"lo": "127.0.0.1", LAN: self.lan, NIC: self.address}
        if "get" in argv:
            wanted = ipaddress.ip_address(argv[-1])
            near = [
                nic
                for nic, own in has.items()
                if own and wanted in ipaddress.ip_network(f"{own}/24", strict=False)
            ]
            return 0, json.dumps([{"dst": argv[-1], "dev": near[0] if near else LAN, "flags": []}]), ""
        nics = [
            {
                "ifname": nic,
                "addr_info": [{"family": "inet", "local": own, "prefixlen": 24}] if own else [],
            }
            for nic, own in has.items()
        ]
        return 0, json.dumps(nics), ""

    def _test(self, argv: list[str]) -> Ended | None:
        return (int(self.folder != argv[-1]), "", "") if argv[-1] == iscsiadm.FOLDER else None

    def _iscsiadm(self, argv: list[str]) -> Ended | None:
        if argv[1] == "--version":
            return 0, "iscsiadm version 2.1.8\n", ""
        mode = argv[2]
        if mode == "discovery":
            return self._discover(argv[argv.index("-p") + 1])
        if mode == "session":
            return self._list_sessions() if "--rescan" not in argv else (0, "", "")
        if "-P" in argv:
            return self._list_records()
        word = dict(itertools.pairwise(argv))
        where, _, group = word["-p"].partition(",")
        address, _, port = where.rpartition(":")
        record = iscsiadm.Record(word["-T"], address, int(port), int(group or "-1"), word["-I"])
        if word.get("-o") == "new":
            text = f"# BEGIN RECORD 2.1.8\nnode.name = {record.target}\nnode.startup = manual\n# END RECORD\n"
            self.files[record.path(self.folder)] = (text, 0o600)
            return 0, "", ""
        if word.get("-o") == "delete":
            del self.files[record.path(self.folder)]
            return 0, "", ""
        return self._log_in(record)

    def _discover(self, portal: str) -> Ended:
        if self.network.down:
            return 4, "", "iscsiadm: cannot make connection to it: No route to host\n"
        portal = self.network.forwards.get(portal, portal)
        there = [t for t in self.network.targets if portal in t.portals]
        out = "".join(f"{where},1 {target.name}\n" for target in there for where in target.portals)
        return (0, out, "") if out else (21, "", "iscsiadm: No portals found\n")

    def _records(self) -> list[iscsiadm.Record]:
        found = []
        nodes = f"{self.folder}/nodes/"
        for path in sorted(self.files):
            if path.startswith(nodes):
                target, portal, *iface = path.removeprefix(nodes).split("/")
                address, port, *group = portal.split(",")
                name = iface[0] if iface else iscsiadm.setting(self.files[path][0], "iface.iscsi_ifacename")
                number = int(group[0]) if group else -1
                found.append(iscsiadm.Record(target, address, int(port), number, name or "default"))
        return found

    def _list_records(self) -> Ended:
        out = "".join(
            f"Target: {r.target}\n\tPortal: {r.portal},{r.group}\n\t\tIface Name: {r.iface}\n"
            for r in self._records()
        )
        return (0, out, "") if out else (21, "", "iscsiadm: No records found\n")

    def _log_in(self, record: iscsiadm.Record) -> Ended:
        text = self.files[record.path(self.folder)][0]
        target = next((t for t in self.network.targets if t.name == record.target), None)
        if target is None or self.network.down:
            return 8, "", "iscsiadm: initiator reported error (8 - connection timed out)\n"
        way = (target, record.portal, record.iface)
        if any((s.target, s.portal, s.iface) == way for s in self.sessions):
            return 15, "", "iscsiadm: session exists\n"
        account = tuple(
            iscsiadm.setting(text, f"node.session.auth.{key}") for key in ("username", "password")
        )
        if target.account and account != target.account:
            said = "initiator reported error (24 - iSCSI login failed due to authorization failure)"
            return 24, "", f"iscsiadm: {said}\n"
        self.log_in(target, record.portal, record.iface)
        return 0, "", ""

    def log_in(self, target: Target, portal: str, iface: str) -> None:
        """Have a session, and the disks that it gives."""
        names = []
        for lun in target.luns:
            name = f"sd{chr(ord('b') + len(self.disks))}"
            self.disks[name] = lun
            names.append(name)
        self.sessions.append(Session(len(self.sessions) + 1, target, portal, iface, tuple(names)))

    def _list_sessions(self) -> Ended:
        if not self.sessions:
            return 21, "", "iscsiadm: No active sessions.\n"
        out = "iSCSI Transport Class version 2.0-870\nversion 2.1.8\n"
        for one in self.sessions:
            out += f"Target: {one.target.name} (non-flash)\n\tCurrent Portal: {one.portal},1\n"
            out += f"\t\tIface Name: {one.iface}\n\t\tIface Netdev: {NIC}\n\t\tSID: {one.sid}\n"
            out += f"\t\tiSCSI Session State: {'FAILED' if self.network.down else 'LOGGED_IN'}\n"
            for disk in one.disks:
                out += f"\t\t\tAttached scsi disk {disk}\t\tState: running\n"
        return 0, out, ""

    def _start_logins(self) -> None:
        for record in self._records():
            if iscsiadm.setting(self.files[record.path(self.folder)][0], "node.startup") == "automatic":
                self._log_in(record)

    # -- systemd -------------------------------------------------------------------------------------

    def _systemctl(self, argv: list[str]) -> Ended | None:
        verb, names = argv[1], [word for word in argv[2:] if not word.startswith("-")]
        mine = ("iscsid", "open-iscsi", "o2cb", "ocfs2", "libvirt-guests")
        if verb == "daemon-reload":
            return 0, "", ""
        if not names or not any(names[-1].startswith(one) for one in mine):
            return None
        name = names[-1]
        if verb == "show":
            return 0, "no\n", ""
        if verb == "is-enabled":
            state = "masked" if name in self.masked else "enabled" if name in self.enabled else "disabled"
            return (0 if state == "enabled" else 1), f"{state}\n", ""
        if verb == "is-active":
            return (0, "active\n", "") if name in self.active else (3, "inactive\n", "")
        if verb == "enable":
            self.enabled.add(name)
        elif verb == "mask":
            self.masked.add(name)
        elif verb in ("start", "restart"):
            self.active.add(name)
            if name == "open-iscsi.service":
                self._start_logins()
            if name == "o2cb.service":
                self._start_cluster()
        return 0, "", ""

    # -- OCFS2 ---------------------------------------------------------------------------------------

    def _conf(self) -> clusterconf.Clusters:
        return clusterconf.parse(self.files.get(clusterconf.PATH, ("", 0))[0])

    def _start_cluster(self) -> None:
        defaults = neighbours.values(self.files[neighbours.DEFAULTS][0])
        nodes = self._conf().nodes.get(defaults.get("O2CB_BOOTCLUSTER", ""), ())
        if defaults.get("O2CB_ENABLED") == "true" and self.hostname.partition(".")[0] in {
            node.name for node in nodes
        }:
            self.threshold = int(defaults["O2CB_HEARTBEAT_THRESHOLD"])
            self.nodes = {node.name for node in nodes}

    def _o2cb(self, argv: list[str]) -> Ended:
        if argv[1] == "register-cluster" and self.nodes is not None:
            self.nodes |= {node.name for node in self._conf().nodes.get(argv[2], ())}
        return 0, "", ""

    def _ls(self, argv: list[str]) -> Ended:
        if self.nodes is None:
            return 2, "", f"ls: cannot access '{argv[1]}': No such file or directory\n"
        return 0, "".join(f"{name}\n" for name in sorted(self.nodes)), ""

    def _findmnt(self, argv: list[str]) -> Ended:
        entries = [
            {
                "target": mount,
                "source": device,
                "fstype": kind,
                "options": self.mount_options,
                "uuid": self.disks[posixpath.basename(device)].uuid,
            }
            for mount, (device, kind) in self.mounts.items()
        ]
        return (0, json.dumps({"filesystems": entries}), "") if entries else (1, "", "")

    def _blkid(self, argv: list[str]) -> Ended:
        if "-p" in argv:
            lun = self.disks[posixpath.basename(argv[-1])]
            return (0, f"DEVNAME={argv[-1]}\nTYPE={lun.kind}\n", "") if lun.kind else (2, "", "")
        label = argv[argv.index("-t") + 1].removeprefix("LABEL=")
        out = "\n".join(
            f"DEVNAME=/dev/{name}\nLABEL={lun.label}\nUUID={lun.uuid}\nTYPE={lun.kind}\n"
            for name, lun in self.disks.items()
            if lun.label == label
        )
        return (0, out, "") if out else (2, "", "")

    def _lsblk(self, argv: list[str]) -> Ended:
        name = posixpath.basename(argv[-1])
        if "--json" not in argv:
            return 0, "  4G\n", ""
        lun = self.disks[name]
        mount = next((m for m, (device, _) in self.mounts.items() if device == argv[-1]), None)
        disk = {"name": name, "type": "disk", "fstype": lun.kind or None, "mountpoint": mount}
        return 0, json.dumps({"blockdevices": [disk]}), ""

    def _signature(self, device: str) -> str:
        kind = self.disks[posixpath.basename(device)].kind
        return f"{kind} 0x400\n" if kind else ""

    def _find(self, argv: list[str]) -> Ended | None:
        if argv[1] in self.below:
            return 0, f"{self.below[argv[1]]}\n", ""
        if argv[1] != "/proc":
            return (0, "", "") if "-quit" in argv else None
        return 1, "".join(f"/proc/{pid}/fd/3\n" for pid, d in self.open.items() if d == argv[-1]), ""

    def _mount(self, argv: list[str]) -> Ended:
        for line in self.files[fstab.PATH][0].splitlines():
            words = line.split()
            if len(words) > 1 and words[1] == argv[1]:
                found = blockdevices.file_systems(self._blkid(["blkid", "-t", words[0]])[1])
                if not found:
                    return 1, "", f"mount: {argv[1]}: can't find {words[0]}.\n"
                if self.nodes is None:
                    return 1, "", "mount.ocfs2: Unable to access cluster service\n"
                if self.network.firewall and len(self.nodes) > 1:
                    return 1, "", "mount.ocfs2: Transport endpoint is not connected while mounting\n"
                self.mounts[argv[1]] = (found[0].device, found[0].kind)
                return 0, "", ""
        return 1, "", f"mount: {argv[1]}: can't find in /etc/fstab.\n"

    def _mkfs(self, argv: list[str]) -> Ended:
        if self.nodes is None:
            return 1, "", "mkfs.ocfs2: Unable to access cluster service\n"
        lun = self.disks[posixpath.basename(argv[-1])]
        lun.kind, lun.label = "ocfs2", argv[argv.index("-L") + 1]
        lun.uuid, lun.made_with = f"made-by-{self.host.name}", tuple(argv)
        return 0, "", ""

    def _load(self, argv: list[str]) -> Ended:
        for line in self.files[ocfs2.SYSCTL][0].splitlines():
            name, equals, value = line.partition(" = ")
            if equals:
                self.sysctl[name.replace(".", "/")] = value
        return 0, "", ""
