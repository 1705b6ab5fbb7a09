"""The inventory: hosts.ini as the cluster that it describes, and the hosts that an operator names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.cluster.errors import Refused
from tasks.cluster.inventory import ansible_ini, settings
from tasks.cluster.inventory.check import (
    CONSOLES,
    STORES,
    VMHOSTS,
    address_of,
    ansible_variable,
    cluster_variables,
    holds_vms,
    members,
    mistakes_of,
    path_from,
    rules,
)
from tasks.cluster.inventory.grouptree import Ini
from tasks.cluster.inventory.mistakes import Mistake, near, quoted, refusal
from tasks.cluster.model import Console, Host, Inventory, StoreHost

ENVIRONMENT = "VMFAB_INVENTORY"
#: Used when none is chosen: the file beside fabfile.py.
DEFAULT_PATH = Path(__file__).resolve().parents[3] / "hosts.ini"


def find(explicit: str | None, env: Mapping[str, str]) -> Path:
    """Choose the inventory: the one named, else $VMFAB_INVENTORY, else hosts.ini beside fabfile.py.

    Raises Refused when it is not there, saying who named it.
    """
    if explicit:
        chosen, source = explicit, "was asked for"
    elif env.get(ENVIRONMENT):
        chosen, source = env[ENVIRONMENT], f"is what ${ENVIRONMENT} names"
    else:
        chosen, source = str(DEFAULT_PATH), "is the default"
    try:
        path = Path(chosen).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError):
        pass  # too long, an unknown ~user: not there either
    raise Refused(
        f"There is no inventory {_shown(chosen)}, which {source}.",
        f"Name another with ./fab --inventory FILE, or in ${ENVIRONMENT}.",
    )


def load(path: str | Path) -> Inventory:
    """Read an inventory file. Raises Refused with every mistake in it, each with line and remedy."""
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Refused(
            f"The inventory {_shown(str(path))} cannot be read: {reason}.",
            f"Name another with ./fab --inventory FILE, or in ${ENVIRONMENT}.",
        ) from None
    text, mistakes = ansible_ini.decode(data)
    return understand(text, path, mistakes)


def understand(text: str, path: str | Path, mistakes: Sequence[Mistake] = ()) -> Inventory:
    """Turn the text of an inventory into the cluster; `path` is for messages and relative paths.

    `mistakes` are those found before. Raises Refused with all of them and of the text's own.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100  (.. is to go, links are to stay)
    ini = ansible_ini.read(text)
    ini.mistakes = [*mistakes, *ini.mistakes]
    if found := [*ini.mistakes, *mistakes_of(ini, absolute.parent)]:
        raise refusal(_label(absolute), found)
    return _build(ini, absolute)


def resolve(inventory: Inventory, names: Iterable[str]) -> tuple[Host, ...]:
    """Turn what was typed after -H into hosts: aliases, groups, addresses; in order, each host once.

    Raises Refused when a name is unknown or could mean several hosts, or when there is none: an empty
    answer would not mean "all hosts" to anyone.
    """
    chosen: dict[str, Host] = {}
    unknown: list[str] = []
    wanted = [name.strip() for item in names for name in item.split(",") if name.strip()]
    for name in wanted:
        if name in inventory.hosts:
            chosen[name] = inventory.hosts[name]
        elif name in inventory.groups:
            chosen.update({host: inventory.hosts[host] for host in inventory.groups[name]})
        else:
            at = [host for host in inventory.hosts.values() if host.address.lower() == name.lower()]
            if len(at) > 1:
                several = " or ".join(host.name for host in at)
                raise Refused(f"{quoted(name)} is the address of several hosts.", f"Name one: {several}.")
            if at:
                chosen[at[0].name] = at[0]
            else:
                unknown.append(name)
    if unknown or not chosen:
        raise _no_host(inventory, unknown)
    return tuple(chosen.values())


def _no_host(inventory: Inventory, unknown: Sequence[str]) -> Refused:
    known = f"Hosts: {_listed(inventory.hosts)}. Groups: {_listed(inventory.groups)}."
    if not unknown:
        return Refused("No host is named.", f"Name one with -H. {known}")
    for name in unknown:
        if name in inventory.stores:
            return Refused(f"{name} is a store, not a host that runs VMs.", known)
    what = (
        f"{' and '.join(map(quoted, unknown))} {'is' if len(unknown) == 1 else 'are'} not in the inventory."
    )
    alike = dict.fromkeys(n for name in unknown for n in near(name, inventory.hosts, 3))
    return Refused(what, f"Did you mean {' or '.join(alike)}? {known}" if alike else known)


def _listed(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    more = f", ... ({len(names)} in all)" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _build(ini: Ini, path: Path) -> Inventory:
    """Make the cluster from an inventory that has no mistakes."""
    cluster = cluster_variables(ini)
    hosts = {name: _host(ini, name, path.parent) for name in ini.members(VMHOSTS)}
    stores = {name: _store(ini, name, path.parent) for name in members(ini, STORES)}
    groups = {name: tuple(host for host in ini.members(name) if host in hosts) for name in ini.groups}
    inventory = Inventory(
        path=str(path),
        hosts=hosts,
        stores=stores,
        apart={rule: settings.vm_names(group.variables["vmfab_vms"].text) for rule, group in rules(ini)},
        consoles={name: _console(ini, name) for name in members(ini, CONSOLES)},
        groups={name: found for name, found in groups.items() if found},
    )
    for store in stores.values():
        if store.holds_vms:
            inventory = replace(inventory, mount=store.mount)
    if timeout := cluster.get("vmfab_shutdown_timeout"):
        inventory = replace(inventory, shutdown_timeout=settings.seconds(timeout.text))
    if timeouts := cluster.get("vmfab_shutdown_timeouts"):
        inventory = replace(inventory, shutdown_timeouts=settings.timeouts(timeouts.text))
    if patience := cluster.get("vmfab_patience"):
        inventory = replace(inventory, patience=float(settings.PATIENCE.read(patience.text)))
    if journal_days := cluster.get("vmfab_journal_days"):
        inventory = replace(inventory, journal_days=settings.days(journal_days.text))
    if ocfs2_cluster := cluster.get("vmfab_ocfs2_cluster"):
        inventory = replace(inventory, ocfs2_cluster=settings.cluster_name(ocfs2_cluster.text))
    if threshold := cluster.get("vmfab_ocfs2_threshold"):
        inventory = replace(inventory, ocfs2_threshold=settings.THRESHOLD.read(threshold.text))
    if ssh_config := cluster.get("vmfab_ssh_config"):
        inventory = replace(inventory, ssh_config=str(path_from(path.parent, ssh_config.text)))
    return inventory


def _host(ini: Ini, name: str, folder: Path) -> Host:
    variables = ini.variables(name)
    ansible = {what: ansible_variable(variables, what) for what in settings.ANSIBLE}
    given = {what: found[1].text for what, found in ansible.items() if found}
    user = given.get("user", "")
    reserve = variables.get("vmfab_reserve")
    storage = variables.get("vmfab_storage_address")
    node = variables.get("vmfab_node")
    return Host(
        name=name,
        address=address_of(ini, name),
        user=user,
        port=settings.port(given["port"]) if "port" in given else None,
        become=user not in ("", "root") or settings.boolean(given.get("become", "no")),
        identity=str(path_from(folder, given["identity"])) if "identity" in given else "",
        reserve_kib=settings.kib(reserve.text) if reserve else 0,
        storage_address=settings.ip_address(storage.text) if storage else "",
        node=settings.NODE.read(node.text) if node else None,
        variables={variable: value.text for variable, value in variables.items()},
    )


def _store(ini: Ini, name: str, folder: Path) -> StoreHost:
    variables = ini.variables(name)
    given = {variable: value.text for variable, value in variables.items()}
    secret_file = given.get("vmfab_chap_secret_file")
    return StoreHost(
        name,
        address_of(ini, name),
        given["vmfab_mount"],
        holds_vms(variables),
        label=given.get("vmfab_label", ""),
        target=given.get("vmfab_target", ""),
        port=settings.port(given.get("vmfab_target_port", "3260")),
        chap_user=given.get("vmfab_chap_user", ""),
        chap_secret_file=str(path_from(folder, secret_file)) if secret_file else "",
        slots=settings.SLOTS.read(given.get("vmfab_slots", "8")),
    )


def _console(ini: Ini, name: str) -> Console:
    variables = ini.variables(name)
    made = Console(name, variables["vmfab_console_host"].text)
    if device := variables.get("vmfab_device"):
        made = replace(made, device=device.text)
    if speed := variables.get("vmfab_speed"):
        made = replace(made, speed=settings.speed(speed.text))
    if parity := variables.get("vmfab_parity"):
        made = replace(made, parity=settings.parity(parity.text))
    return made


def _label(path: Path) -> str:
    """The path as an operator would write it here."""
    try:
        return _shown(str(path.relative_to(Path.cwd())))
    except (OSError, ValueError):
        return _shown(str(path))


def _shown(path: str) -> str:
    """Show a path in a message: as it is if it is an ordinary one."""
    return path if path.isprintable() and " " not in path else repr(path)
