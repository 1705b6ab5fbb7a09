"""What makes a machine the one that it is, and what the laptop must know: names, addresses, keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.lab.machines.qemu import NICS
from tasks.lab.machines.wires import ARCHIVE, lan, san

#: The stores, each a target of its own on the storage machine: one for VMs, one for other data.
VMSTORAGE, DATENGRAB = "vmstorage", "datengrab"
STORES = (VMSTORAGE, DATENGRAB)
#: MiB of the second one: formatting takes as long as its journals are large.
DATENGRAB_MIB = 256
#: Hosts that may mount the store at once: each makes formatting longer, where it is emulated.
SLOTS = 4
#: What emulated hosts need.
SLOWLY = "vmfab_patience=5\n"


@dataclass(frozen=True)
class Keys:
    """The texts of the lab's key pair and of one machine's own."""

    private: str
    public: str
    host_private: str
    host_public: str


def netplan(number: int) -> str:
    """Return the network of a bare server, as its installer writes it."""
    return (
        "# This is the network config written by 'subiquity'\n"
        "network:\n"
        "  version: 2\n"
        "  renderer: networkd\n"
        "  ethernets:\n"
        f"    {NICS[0]}:\n"
        "      addresses:\n"
        f"      - {lan(number)}/24\n"
        "      nameservers:\n"
        "        addresses:\n"
        f"        - {lan(1)}\n"
        "        search:\n"
        "        - lab.example\n"
        "      routes:\n"
        "      - to: default\n"
        f"        via: {lan(1)}\n"
        f"    {NICS[1]}:\n"
        "      addresses:\n"
        f"      - {san(number)}/24\n"
    )


def hosts(name: str, numbers: Mapping[str, int]) -> str:
    """Return the text of /etc/hosts."""
    others = "".join(f"{lan(number)} {other}\n" for other, number in numbers.items() if other != name)
    return f"127.0.0.1 localhost\n127.0.1.1 {name}.lab.example {name}\n{others}"


def common(
    name: str, numbers: Mapping[str, int], machine_id: str, keys: Keys, known: str
) -> dict[str, tuple[int, str]]:
    """Return the files of a bare machine by their path on its disk, each with its mode."""
    return {
        "etc/hostname": (0o644, f"{name}\n"),
        "etc/hosts": (0o644, hosts(name, numbers)),
        "etc/netplan/00-installer-config.yaml": (0o600, netplan(numbers[name])),
        "etc/apt/sources.list": (0o644, f"deb [trusted=yes] http://{lan(ARCHIVE)}/ ./\n"),
        "etc/ssh/ssh_host_ed25519_key": (0o600, keys.host_private),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, keys.host_public),
        "etc/ssh/ssh_known_hosts": (0o644, known),
        "root/.ssh/authorized_keys": (0o600, keys.public),
        "root/.ssh/id_ed25519": (0o600, keys.private),
        "root/.ssh/id_ed25519.pub": (0o644, keys.public),
        # Last: its presence says that all the rest was written.
        "etc/machine-id": (0o444, f"{machine_id}\n"),
    }


def target_name(store: str) -> str:
    """Return the name of a store's iSCSI target."""
    return f"iqn.2026-01.example.lab:{store}"


def target_file(store: str) -> str:
    """Return the path of a target's configuration on the storage machine."""
    return f"/etc/tgt/conf.d/{store}.conf"


def _lun(store: str) -> str:
    return f"/srv/{store}.img"


def target(store: str, user: str = "", secret: str = "") -> str:
    """Return the configuration of a store's target, open to all in its network or, with a user, by CHAP."""
    login = f"    incominguser {user} {secret}\n" if user else ""
    return f"<target {target_name(store)}>\n    backing-store {_lun(store)}\n{login}</target>\n"


def exports(store_mib: int) -> dict[str, tuple[int, str]]:
    """Return the files that make a machine the storage machine; `store_mib` is the size of the VMs' store."""
    sizes = {VMSTORAGE: store_mib, DATENGRAB: DATENGRAB_MIB}
    make = "".join(f"ExecStartPre=/usr/bin/truncate --size={sizes[one]}M {_lun(one)}\n" for one in STORES)
    return {
        "etc/systemd/system/tgt.service.d/luns.conf": (0o644, f"[Service]\n{make}"),
        **{target_file(store).lstrip("/"): (0o600, target(store)) for store in STORES},
    }


def inventory(numbers: Mapping[str, int], storage: int, *, kvm: bool) -> str:
    """Return hosts.ini; a device whose console is on it is at the other end of each host's serial line."""
    consoles = "".join(f"device{name.removeprefix('vmhost')} vmfab_console_host={name}\n" for name in numbers)
    lines = [
        f"{name} ansible_host={lan(number)} ansible_user=root vmfab_storage_address={san(number)}\n"
        for name, number in numbers.items()
    ]
    stores = [
        f"{store} ansible_host={san(storage)} vmfab_target={target_name(store)} vmfab_mount=/{store} "
        f"vmfab_holds_vms={'yes' if store == VMSTORAGE else 'no'}\n"
        for store in STORES
    ]
    return (
        f"[vmhosts]\n{''.join(lines)}\n[stores]\n{''.join(stores)}\n[stores:vars]\nvmfab_slots={SLOTS}\n\n"
        f"[consoles]\n{consoles}\n"
        f"[all:vars]\nvmfab_ssh_config=ssh_config\n{'' if kvm else SLOWLY}"
    )
