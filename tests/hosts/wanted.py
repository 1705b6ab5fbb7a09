"""What the inventory says about a host, read as Ansible reads it and without vmfab's own idea of a set-up.

Only the file's grammar is vmfab's; which variable means what, and what holds without it, is said here again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.cluster.inventory import ansible_ini
from tasks.cluster.inventory.grouptree import Ini


@dataclass(frozen=True)
class Store:
    """A file system that all hosts mount, and where its device comes from. An empty target: any."""

    name: str
    address: str
    port: int
    target: str
    label: str
    mount: str
    holds_vms: bool


@dataclass(frozen=True)
class Console:
    """A serial line of this host that an admin opens with minicom."""

    name: str
    device: str
    speed: str
    parity: str


@dataclass(frozen=True)
class Wanted:
    """One host as the inventory describes it. Empty texts: the inventory leaves it to the host."""

    name: str
    address: str
    user: str
    port: str
    key: str
    ssh_config: str
    nic: str
    bridge: str
    addresses: tuple[str, ...]
    vlan: str
    storage_address: str
    storage_nic: str
    storage_mtu: str
    ocfs2_cluster: str
    #: beats of 2 s without which a host is thrown out
    ocfs2_threshold: str
    #: of all hosts, this one too: name to address in the storage network
    nodes: dict[str, str]
    stores: tuple[Store, ...]
    consoles: tuple[Console, ...]

    @property
    def vm_store(self) -> Store:
        return next(store for store in self.stores if store.holds_vms)


def read(path: Path, names: list[str]) -> list[Wanted]:
    """Read what these hosts shall be; the name of a group means all its hosts. Raises ValueError."""
    ini = ansible_ini.read(path.read_text(encoding="utf-8"))
    if ini.mistakes:
        raise ValueError(f"{path} has mistakes: {ini.mistakes[0].what}")
    every = ini.members("vmhosts")
    hosts: dict[str, None] = {}
    for name in names:
        found = [name] if name in every else ini.members(name) if name in ini.groups else ()
        if not found or not set(found) <= set(every):
            raise ValueError(f"{name} is no host and no group of hosts of {path}: {', '.join(every)}")
        hosts.update(dict.fromkeys(found))
    return [_host(ini, name, path.parent) for name in hosts]


def _host(ini: Ini, name: str, folder: Path) -> Wanted:
    own = _variables(ini, name)
    ssh_config = own.get("vmfab_ssh_config", "")
    key = own.get("ansible_ssh_private_key_file") or own.get("ansible_private_key_file", "")
    consoles = [_variables(ini, one) | {"name": one} for one in _members(ini, "consoles")]
    return Wanted(
        name=name,
        address=own.get("ansible_host") or own.get("ansible_ssh_host", ""),
        user=own.get("ansible_user") or own.get("ansible_ssh_user", ""),
        port=own.get("ansible_port") or own.get("ansible_ssh_port", ""),
        key=str(folder / Path(key).expanduser()) if key else "",
        ssh_config=str(folder / Path(ssh_config).expanduser()) if ssh_config else "",
        nic=own.get("vmfab_nic", ""),
        bridge=own.get("vmfab_bridge", "br0"),
        addresses=tuple(own.get("vmfab_addresses", "").replace(",", " ").split()),
        vlan=own.get("vmfab_vlan", ""),
        storage_address=own.get("vmfab_storage_address", ""),
        storage_nic=own.get("vmfab_storage_nic", ""),
        storage_mtu=own.get("vmfab_storage_mtu", ""),
        ocfs2_cluster=own.get("vmfab_ocfs2_cluster", "vmfab"),
        ocfs2_threshold=own.get("vmfab_ocfs2_threshold", "31"),
        nodes={
            one: _variables(ini, one).get("vmfab_storage_address", "") for one in _members(ini, "vmhosts")
        },
        stores=tuple(_store(ini, one) for one in _members(ini, "stores")),
        consoles=tuple(
            Console(
                one["name"],
                one.get("vmfab_device", "/dev/ttyS0"),
                one.get("vmfab_speed", "115200"),
                one.get("vmfab_parity", "none"),
            )
            for one in consoles
            if one.get("vmfab_console_host") == name
        ),
    )


def _store(ini: Ini, name: str) -> Store:
    own = _variables(ini, name)
    return Store(
        name=name,
        address=own.get("ansible_host", name),
        port=int(own.get("vmfab_target_port", "3260")),
        target=own.get("vmfab_target", ""),
        label=own.get("vmfab_label", name),
        mount=own["vmfab_mount"],
        holds_vms=own.get("vmfab_holds_vms", "yes").lower() in ("yes", "true", "on", "y", "t", "1"),
    )


def _members(ini: Ini, group: str) -> tuple[str, ...]:
    return ini.members(group) if group in ini.groups else ()


def _variables(ini: Ini, name: str) -> dict[str, str]:
    return {variable: value.text for variable, value in ini.variables(name).items()}
