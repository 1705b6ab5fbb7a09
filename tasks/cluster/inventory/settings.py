"""The variables of hosts.ini that vmfab understands: each with its kind, its place and its meaning."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import ceil
from pathlib import PurePosixPath
from typing import Generic, TypeVar

from tasks.cluster.inventory.ansible_ini import literal

T_co = TypeVar("T_co", covariant=True)

#: Longest time-out that is not taken for a slip of the finger, seconds.
LONGEST = 24 * 3600.0

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*\.?")
_SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([kKMGT])(iB|B|)")
_SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(s|min|h|)")
_LOGIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,63}\$?")
_LINK = re.compile(r"(?!\.{1,2}$)[^\s/:%\x00-\x1f\x7f]{1,15}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9_.:/+-]{1,200}")
_SPEEDS = (300, 600, 1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)
_LABEL_OF_STORE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}")
_TARGET = re.compile(
    r"iqn\.[0-9]{4}-[0-9]{2}\.[A-Za-z0-9.-]+(?::[A-Za-z0-9.:_-]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32}"
)
_CLUSTER = re.compile(r"[A-Za-z0-9]{1,16}")
_POWER = {"k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Kind(Generic[T_co]):
    """A kind of value: what it is, how one is written, and how to read it (raises ValueError)."""

    what: str
    example: str
    read: Callable[[str], T_co]


class Scope(Enum):
    """Where in the inventory a variable has an effect; the value is how the place is called."""

    HOST = "a cluster host, or a group of them"
    CLUSTER = "[vmhosts:vars] or [all:vars]"
    STORE = "a store, or a group of them"
    CONSOLE = "a console, or a group of them"
    RULE = "[apart_NAME:vars]"


@dataclass(frozen=True)
class Variable:
    """A vmfab variable: its kind, where it has an effect, and what that is."""

    kind: Kind[object]
    scope: Scope
    help: str


def address(text: str) -> str:
    """Read an IP address, or a name that ssh or DNS knows."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not re.fullmatch(r"[0-9.]+", text):
            return text
        raise


def ip_address(text: str) -> str:
    """Read an IP address, in its usual spelling."""
    return str(ipaddress.ip_address(text))


def port(text: str) -> int:
    """Read a TCP port."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ValueError(text)
    return int(text)


def boolean(text: str) -> bool:
    """Read yes or no in any of Ansible's spellings."""
    word = text.strip().lower()
    if word in ("yes", "true", "on", "y", "t", "1", "1.0"):
        return True
    if word in ("no", "false", "off", "n", "f", "0", "0.0"):
        return False
    raise ValueError(text)


def kib(text: str) -> int:
    """Read a size, in KiB, rounded up. As in libvirt, G and GiB are powers of 1024, GB is one of 1000."""
    if text == "0":
        return 0
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(text)
    unit: int = (1000 if match[3] == "B" else 1024) ** _POWER[match[2]]
    return ceil(float(match[1]) * unit / 1024)


def seconds(text: str) -> float:
    """Read a time-out in seconds."""
    match = _SECONDS.fullmatch(text)
    if not match:
        raise ValueError(text)
    found = float(match[1]) * {"": 1, "s": 1, "min": 60, "h": 3600}[match[2]]
    if not 1 <= found <= LONGEST:
        raise ValueError(text)
    return found


def days(text: str) -> int:
    """Read a number of days."""
    match = re.fullmatch(r"([0-9]{1,5})\s*(?:d|days)?", text)
    if not match or not int(match[1]):
        raise ValueError(text)
    return int(match[1])


def vm_names(text: str) -> tuple[str, ...]:
    """Read VM names or glob patterns: separated by commas, or as a Python list for names with a comma."""
    if text[:1] in ("[", "(", '"', "'"):
        value = literal(text)
        if not isinstance(value, (list, tuple)):
            raise ValueError(text)
        names = list(value)
    else:
        names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(map(_vm_name, names)))


def timeouts(text: str) -> Mapping[str, float]:
    """Read NAME=SECONDS pairs, separated by commas, or as a Python dict for names with a comma."""
    pairs: list[tuple[object, object]]
    if text[:1] == "{":
        value = literal(text)
        if not isinstance(value, dict):
            raise ValueError(text)
        pairs = list(value.items())
    else:
        pairs = [
            (name.strip(), value.strip()) for name, _, value in (p.rpartition("=") for p in text.split(","))
        ]
    found = {_vm_name(name): seconds(str(value)) for name, value in pairs}
    if len(found) != len(pairs):
        raise ValueError(text)
    return found


def _vm_name(name: object) -> str:
    """Check what libvirt would accept as a VM's name, or a pattern for one."""
    if not isinstance(name, str) or not name.strip() or "/" in name or _CONTROL.search(name):
        raise ValueError(name)
    return name


def number_between(least: int, most: int) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,6}", text) or not least <= int(text) <= most:
            raise ValueError(text)
        return int(text)

    return read


def file_system_label(text: str) -> str:
    """Read the label of a file system, as it may stand in fstab."""
    if not _LABEL_OF_STORE.fullmatch(text):
        raise ValueError(text)
    return text


def target_name(text: str) -> str:
    """Read the name of an iSCSI target. It becomes part of a path on the hosts."""
    if len(text) > 223 or not _TARGET.fullmatch(text):
        raise ValueError(text)
    return text


def chap_user(text: str) -> str:
    """Read the name of a CHAP account: printable, without spaces."""
    if not 1 <= len(text) <= 255 or not re.fullmatch(r"[!-~]+", text):
        raise ValueError(text)
    return text


def cluster_name(text: str) -> str:
    """Read the name of an o2cb cluster, in which its tools allow no special characters."""
    if not _CLUSTER.fullmatch(text):
        raise ValueError(text)
    return text


def mount_point(text: str) -> str:
    """Read the absolute path of a mount point."""
    path = PurePosixPath(text)
    if (
        str(path) != text
        or len(path.parts) < 2
        or path.root != "/"
        or ".." in path.parts
        or re.search(r"\s", text)
    ):
        raise ValueError(text)
    return file_name(text)


def file_name(text: str) -> str:
    """Read the path of a file on the laptop; ~ is the home folder, and relative is to the inventory."""
    if not text.strip() or _CONTROL.search(text):
        raise ValueError(text)
    return text


def alias(text: str) -> str:
    """Read the name of a host in the inventory."""
    if not _ALIAS.fullmatch(text):
        raise ValueError(text)
    return text


def device(text: str) -> str:
    """Read the path of a device."""
    if not _DEVICE.fullmatch(text) or ".." in text.split("/"):
        raise ValueError(text)
    return text


def speed(text: str) -> int:
    """Read the speed of a serial line, in bits per second."""
    if not re.fullmatch(r"[1-9][0-9]{2,5}", text) or int(text) not in _SPEEDS:
        raise ValueError(text)
    return int(text)


def parity(text: str) -> str:
    """Read the parity of a serial line."""
    if text.lower() not in ("none", "even", "odd"):
        raise ValueError(text)
    return text.lower()


def login(text: str) -> str:
    """Read a user's name."""
    if not _LOGIN.fullmatch(text):
        raise ValueError(text)
    return text


def link_name(text: str) -> str:
    """Read the name of a network interface, as Linux allows it."""
    if not _LINK.fullmatch(text):
        raise ValueError(text)
    return text


def _comma_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def interfaces(text: str) -> tuple[str, ...]:
    """Read addresses with the length of their network's prefix, separated by commas."""
    found = []
    for word in _comma_list(text):
        if "/" not in word:
            raise ValueError(word)
        found.append(str(ipaddress.ip_interface(word)))
    if len(set(found)) != len(found):
        raise ValueError(text)
    return tuple(found)


def ip_addresses(text: str) -> tuple[str, ...]:
    """Read IP addresses, separated by commas."""
    found = tuple(map(ip_address, _comma_list(text)))
    if len(set(found)) != len(found):
        raise ValueError(text)
    return found


def gateways(text: str) -> tuple[str, ...]:
    """Read an address, or one of IPv4 and one of IPv6."""
    found = ip_addresses(text)
    if len({":" in address for address in found}) != len(found):
        raise ValueError(text)
    return found


def domains(text: str) -> tuple[str, ...]:
    """Read domain names, separated by commas."""
    found = tuple(_comma_list(text))
    if not all(_HOST_NAME.fullmatch(name) for name in found):
        raise ValueError(text)
    return found


ADDRESS = Kind("an IP address or host name", "192.168.0.21", address)
IP_ADDRESS = Kind("an IP address", "192.168.0.21", ip_address)
PORT = Kind("a port number from 1 to 65535", "2222", port)
BOOLEAN = Kind("yes or no", "yes", boolean)
SIZE = Kind("a size with its unit", "4GiB", kib)
SECONDS = Kind("a number of seconds from 1 to a day", "180", seconds)
DAYS = Kind("a number of days from 1 on", "400", days)
VM_NAMES = Kind("a list of VM names or patterns", "ns1, ns2", vm_names)
TIMEOUTS = Kind("a list of NAME=SECONDS, each name once", "mail=600, win*=900", timeouts)
MOUNT_POINT = Kind("an absolute path without spaces", "/vmstorage", mount_point)
FILE = Kind("the path of a file", "~/.ssh/config", file_name)
LOGIN = Kind("a user name", "root", login)
LINK = Kind("the name of a network interface", "eno1", link_name)
INTERFACES = Kind("a list of addresses with their prefix", "10.0.0.11/24, 2001:db8::11/64", interfaces)
IP_ADDRESSES = Kind("a list of IP addresses", "10.0.0.2, 10.0.0.3", ip_addresses)
GATEWAYS = Kind("an IP address, or one of IPv4 and one of IPv6", "10.0.0.1", gateways)
DOMAINS = Kind("a list of domain names", "example.org", domains)
VLAN = Kind("the number of a VLAN from 1 to 4094", "100", number_between(1, 4094))
PREFIX = Kind("the length of a prefix from 1 to 128", "24", number_between(1, 128))
MTU = Kind("a number of bytes from 1280 to 9216", "9000", number_between(1280, 9216))
ALIAS = Kind("the name of a cluster host", "vmhost1", alias)
DEVICE = Kind("the path of a device", "/dev/ttyS0", device)
SPEED = Kind("a usual speed in bits per second", "115200", speed)
PARITY = Kind("none, even or odd", "none", parity)
NODE = Kind("a number from 0 to 254", "3", number_between(0, 254))
SLOTS = Kind("a number from 1 to 255", "8", number_between(1, 255))
PATIENCE = Kind("a number from 1 to 10", "4", number_between(1, 10))
THRESHOLD = Kind("a number from 7 on", "31", number_between(7, 9999))
STORE_LABEL = Kind("a label of letters, digits, _, - and ., at most 63", "vmstorage", file_system_label)
TARGET = Kind("the name of an iSCSI target", "iqn.2010-04.org.example:vmstorage", target_name)
CHAP_USER = Kind("a user name without spaces", "vmhosts", chap_user)
CLUSTER_NAME = Kind("up to 16 letters and digits", "vmfab", cluster_name)

#: vmfab's own variables. A new one is a line here; README's table is made from it.
VARIABLES: Mapping[str, Variable] = {
    "vmfab_reserve": Variable(SIZE, Scope.HOST, "memory that no VM is planned into; default 0"),
    "vmfab_storage_address": Variable(IP_ADDRESS, Scope.HOST, "the host's address in the storage network"),
    "vmfab_storage_nic": Variable(
        LINK, Scope.HOST, "the NIC of the storage network; default the one that has `vmfab_storage_address`"
    ),
    "vmfab_storage_prefix": Variable(
        PREFIX, Scope.HOST, "prefix of the storage network, where the address is new; default 24"
    ),
    "vmfab_storage_mtu": Variable(MTU, Scope.HOST, "MTU of the storage NIC; default what it has"),
    "vmfab_nic": Variable(
        LINK, Scope.HOST, "the NIC below the bridge; default the one that has the host's address"
    ),
    "vmfab_bridge": Variable(LINK, Scope.HOST, "name of the bridge; default br0"),
    "vmfab_addresses": Variable(
        INTERFACES, Scope.HOST, "addresses of the bridge; default those that the host has"
    ),
    "vmfab_gateway": Variable(GATEWAYS, Scope.HOST, "its default gateway; default as it is"),
    "vmfab_dns": Variable(IP_ADDRESSES, Scope.HOST, "its name servers; default as they are"),
    "vmfab_search": Variable(DOMAINS, Scope.HOST, "its search domains; default as they are"),
    "vmfab_vlan": Variable(
        VLAN,
        Scope.HOST,
        "VLAN on the NIC that the bridge is for; default as the host's address is",
    ),
    "vmfab_node": Variable(
        NODE,
        Scope.HOST,
        "its number in the OCFS2 cluster; default the one in the hosts' cluster.conf, else its place here",
    ),
    "vmfab_shutdown_timeout": Variable(
        SECONDS, Scope.CLUSTER, "how long a VM may take to shut down before it is destroyed; default 180"
    ),
    "vmfab_shutdown_timeouts": Variable(
        TIMEOUTS, Scope.CLUSTER, "the same for single VMs: the exact name first, then the first pattern"
    ),
    "vmfab_patience": Variable(
        PATIENCE,
        Scope.CLUSTER,
        "how many times longer than usual hosts may take for a login (5 s), for an answer (9 s), and to come"
        " back in the middle of a move (30 s); default 1",
    ),
    "vmfab_journal_days": Variable(
        DAYS, Scope.CLUSTER, "how long the journals of ended operations are kept, for history; default 400"
    ),
    "vmfab_ssh_config": Variable(
        FILE, Scope.CLUSTER, "used instead of ~/.ssh/config; a relative path starts at the inventory's folder"
    ),
    "vmfab_ocfs2_cluster": Variable(
        CLUSTER_NAME, Scope.CLUSTER, "the name of the OCFS2 cluster that the hosts make up; default vmfab"
    ),
    "vmfab_ocfs2_threshold": Variable(
        THRESHOLD,
        Scope.CLUSTER,
        "o2cb's heartbeat threshold, the same on all hosts: 31 is 60 s, 61 is 120 s; default 31",
    ),
    "vmfab_mount": Variable(
        MOUNT_POINT, Scope.STORE, "where the hosts mount the store; every store needs it"
    ),
    "vmfab_holds_vms": Variable(BOOLEAN, Scope.STORE, "whether the VMs' images lie there; default yes"),
    "vmfab_console_host": Variable(
        ALIAS, Scope.CONSOLE, "the host to whose serial line the console is connected; every console needs it"
    ),
    "vmfab_device": Variable(DEVICE, Scope.CONSOLE, "the serial line there; default /dev/ttyS0"),
    "vmfab_speed": Variable(SPEED, Scope.CONSOLE, "its speed; default 115200"),
    "vmfab_parity": Variable(PARITY, Scope.CONSOLE, "its parity; default none"),
    "vmfab_label": Variable(
        STORE_LABEL, Scope.STORE, "the label of its file system; default the store's name"
    ),
    "vmfab_target": Variable(
        TARGET, Scope.STORE, "its iSCSI target; default the only one that its machine offers"
    ),
    "vmfab_target_port": Variable(PORT, Scope.STORE, "where its machine serves iSCSI; default 3260"),
    "vmfab_chap_user": Variable(CHAP_USER, Scope.STORE, "as whom the hosts log in to its target, with CHAP"),
    "vmfab_chap_secret_file": Variable(
        FILE,
        Scope.STORE,
        "a file of this computer, of mode 0600, that holds the CHAP secret as its only line; a relative path"
        " starts at the inventory's folder",
    ),
    "vmfab_slots": Variable(
        SLOTS, Scope.STORE, "how many hosts may mount it at once, when it is formatted; default 8"
    ),
    "vmfab_vms": Variable(VM_NAMES, Scope.RULE, "VMs, by name or pattern, of which no two may share a host"),
}

#: What vmfab takes from Ansible's own variables; of several spellings the last wins, as for Ansible.
ANSIBLE: Mapping[str, tuple[Kind[object], tuple[str, ...]]] = {
    "address": (ADDRESS, ("ansible_host", "ansible_ssh_host")),
    "user": (LOGIN, ("ansible_user", "ansible_ssh_user")),
    "port": (PORT, ("ansible_port", "ansible_ssh_port")),
    "become": (BOOLEAN, ("ansible_become",)),
    "identity": (FILE, ("ansible_private_key_file", "ansible_ssh_private_key_file")),
}
