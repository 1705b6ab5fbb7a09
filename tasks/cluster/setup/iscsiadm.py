"""What iscsiadm prints and keeps, understood; its node records edited as text. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

#: Where open-iscsi keeps its records: since 2.1.10 in the first, which its package makes; before in the 2nd.
FOLDER, OLD_FOLDER = "/var/lib/iscsi", "/etc/iscsi"
#: iscsiadm's exit code when there is nothing of the kind asked for.
NONE_FOUND = 21
#: and when the target did not accept the account.
NOT_AUTHORIZED = 24
#: A setting that is logged in again by nobody but iscsiadm, and in which a secret stands.
_SECRET = re.compile(r"(?m)^(\S*password\S* = ).*$")


@dataclass(frozen=True, slots=True, order=True)
class Record:
    """Which node record: a target, by which portal and through which iface record."""

    target: str
    address: str
    port: int
    group: int
    iface: str

    def path(self, folder: str) -> str:
        """Its file, on a host whose open-iscsi keeps its records in this folder."""
        where = f"{folder}/nodes/{self.target}/{self.address},{self.port}"
        # A record that was made without its portal group is a file in the place of its folder.
        return where if self.group < 0 else f"{where},{self.group}/{self.iface}"

    @property
    def portal(self) -> str:
        """As iscsiadm wants and prints it, without the portal group."""
        return portal(self.address, self.port)

    @property
    def words(self) -> tuple[str, ...]:
        """How it is named to iscsiadm."""
        where = self.portal if self.group < 0 else f"{self.portal},{self.group}"
        return ("-m", "node", "-T", self.target, "-p", where, "-I", self.iface)


@dataclass(frozen=True, slots=True)
class Login:
    """A session with a target that the kernel holds, and the disks that it gives."""

    target: str
    sid: str
    portal: str
    iface: str
    nic: str
    state: str
    disks: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        return self.state == "LOGGED_IN"


def iface_path(folder: str, iface: str) -> str:
    """The file of an iface record, on a host whose open-iscsi keeps its records in this folder."""
    return f"{folder}/ifaces/{iface}"


def portal(address: str, port: int) -> str:
    """An address and a port as iscsiadm writes them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def offered(text: str) -> tuple[tuple[str, int, int, str], ...]:
    """The targets that a discovery printed, as (address, port, portal group, name).

    Raises ValueError for a line of another form.
    """
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(r"(\S+):([0-9]+),(-?[0-9]+)\s+(\S+)", line)
        if not match:
            raise ValueError(line)
        found.append((match[1].strip("[]"), int(match[2]), int(match[3]), match[4]))
    return tuple(found)


def records(text: str) -> tuple[Record, ...]:
    """The node records that `iscsiadm -m node -P 1` lists. Raises ValueError for what it does not print."""
    found: list[Record] = []
    target, where = "", ("", 0, 0)
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, value = line.partition(": ")
        if name == "Target":
            target, where = value.split()[0], ("", 0, 0)
        elif name == "Portal":
            match = re.fullmatch(r"(\S+):([0-9]+),(-?[0-9]+)", value)
            if not match:
                raise ValueError(line)
            where = (match[1].strip("[]"), int(match[2]), int(match[3]))
        elif name == "Iface Name" and target and where[0]:
            found.append(Record(target, *where, value))
        else:
            raise ValueError(line)
    return tuple(found)


def logins(text: str) -> tuple[Login, ...]:
    """The sessions that `iscsiadm -m session -P 3` lists, with their disks."""
    found: list[Login] = []
    target = where = ""
    for line in map(str.strip, text.splitlines()):
        name, _, value = line.partition(": ")
        value = value.strip()
        if name == "Target":
            target = value.split()[0]
        elif name == "Current Portal":
            where = value.rpartition(",")[0]
        elif name == "Iface Name":
            found.append(Login(target, "", where, value, "", "unknown"))
        elif found and name == "Iface Netdev":
            found[-1] = replace(found[-1], nic=value)
        elif found and name == "SID":
            found[-1] = replace(found[-1], sid=value)
        elif found and name == "iSCSI Session State":
            found[-1] = replace(found[-1], state=value)
        elif found and (match := re.match(r"Attached scsi disk (\S+)", line)):
            found[-1] = replace(found[-1], disks=(*found[-1].disks, match[1]))
    return tuple(found)


def nic_with(address: str, addresses: str) -> str | None:
    """The NIC that has an address, from `ip -j addr`; None when no NIC has it."""
    for nic in json.loads(addresses):
        if any(entry.get("local") == address for entry in nic.get("addr_info", ())):
            return str(nic["ifname"])
    return None


def route_nic(route: str) -> str:
    """The NIC that a packet takes, from `ip -j route get`."""
    (taken,) = json.loads(route)
    return str(taken["dev"])


def nics(addresses: str) -> tuple[str, ...]:
    """The names of all NICs, from `ip -j addr`."""
    return tuple(str(nic["ifname"]) for nic in json.loads(addresses))


# -- node records as text ------------------------------------------------------------------------------------


def setting(record: str, name: str) -> str | None:
    """The value of a setting in a record; None when it is not there."""
    for key, value in _settings(record):
        if key == name:
            return value
    return None


def _settings(record: str) -> Iterator[tuple[str, str]]:
    for line in record.splitlines():
        key, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            yield key.strip(), value.strip()


def with_settings(record: str, wanted: Mapping[str, str]) -> str:
    """The record with these settings; all other lines stay as they are.

    Those that are not there come before its end, where iscsiadm reads them like any other.
    """
    left = dict(wanted)
    lines: list[str] = []
    for line in record.splitlines():
        key = line.partition("=")[0].strip()
        if not line.startswith("#") and key in wanted:
            if key in left:
                lines.append(f"{key} = {left.pop(key)}")
            continue
        if line.startswith("# END RECORD"):
            lines += [f"{key} = {value}" for key, value in left.items()]
            left.clear()
        lines.append(line)
    lines += [f"{key} = {value}" for key, value in left.items()]
    return "".join(f"{line}\n" for line in lines)


def masked(before: str, after: str) -> tuple[str, str]:
    """Both texts of a record without their secrets; one that changes can be told from one that does not."""
    hidden = _SECRET.sub(r"\1********", before)
    told = _SECRET.sub(r"\1********", after)
    if _SECRET.findall(before) and _secrets(before) != _secrets(after):
        told = _SECRET.sub(r"\1******** (another)", after)
    return hidden, told


def _secrets(record: str) -> Sequence[str]:
    return [match[0] for match in _SECRET.finditer(record)]
