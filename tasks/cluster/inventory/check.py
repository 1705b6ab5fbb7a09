"""What is wrong with an inventory that can be read: values, places of variables, missing or doubled parts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.cluster.inventory import settings
from tasks.cluster.inventory.grouptree import ALL, Ini, IniGroup, IniHost, Value
from tasks.cluster.inventory.mistakes import Mistake, named, nearest, quoted
from tasks.cluster.inventory.settings import Kind, Scope
from tasks.cluster.model import Console

VMHOSTS = "vmhosts"
STORES = "stores"
CONSOLES = "consoles"
#: A group whose name begins so is a rule, and lists VMs in a variable.
APART = "apart_"

# A host's name becomes part of file names on the store and of what the operator types.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_PREFIX = re.compile(r"vmfab\b|vmfab_", re.IGNORECASE)


def mistakes_of(ini: Ini, folder: Path) -> list[Mistake]:
    """Find every mistake of meaning. `folder` is the inventory's, to which its paths are relative.

    While there are lines that could not be read, nothing is said about what may only be missing for it.
    """
    found = [*_own_variables(ini, folder), *_ansible_variables(ini)]
    if not ini.mistakes:
        found += [*_places(ini), *_parts(ini)]
        if not found:
            found += [*_same_twice(ini), *_stores(ini), *_consoles(ini), *_rules(ini)]
    return found


def members(ini: Ini, group: str) -> tuple[str, ...]:
    """The hosts of a group that need not exist."""
    return ini.members(group) if group in ini.groups else ()


def cluster_variables(ini: Ini) -> Mapping[str, Value]:
    """The variables that say something about the cluster as a whole."""
    vmhosts = ini.groups[VMHOSTS].variables if VMHOSTS in ini.groups else {}
    return {**ini.groups[ALL].variables, **vmhosts}


def rules(ini: Ini) -> Iterator[tuple[str, IniGroup]]:
    """The groups that are rules for VMs, with the rules' names."""
    for name, group in ini.groups.items():
        if name.startswith(APART):
            yield name[len(APART) :], group


def ansible_variable(variables: Mapping[str, Value], what: str) -> tuple[str, Value] | None:
    """The variable that says `what` (a key of settings.ANSIBLE), by name and value."""
    _, names = settings.ANSIBLE[what]
    return next(((name, variables[name]) for name in reversed(names) if name in variables), None)


def address_of(ini: Ini, name: str) -> str:
    """Where ssh is to connect to: ansible_host, else the alias itself."""
    found = ansible_variable(ini.variables(name), "address")
    return settings.address(found[1].text if found else name)


def path_from(folder: Path, text: str) -> Path:
    """The absolute path of a file that the inventory names."""
    try:
        return folder / Path(text).expanduser()
    except RuntimeError:  # there is no such user
        return folder / text


def _owners(ini: Ini) -> Iterator[IniGroup | IniHost]:
    yield from ini.groups.values()
    yield from ini.hosts.values()


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _wrong(name: str, value: Value, kind: Kind[object]) -> Mistake | None:
    try:
        kind.read(value.text)
    except ValueError:
        pass
    else:
        return None
    remedy = f"Write for example {name}={kind.example}"
    if "{{" in value.text:
        remedy = "vmfab does not fill in templates: write the value itself"
    elif "#" in value.text:
        remedy += "; a comment needs a line of its own"
    return Mistake(value.line, f"{name} is {quoted(value.text)}, not {kind.what}", remedy)


def _own_variables(ini: Ini, folder: Path) -> Iterator[Mistake]:
    """Check every variable that begins with vmfab, wherever it stands."""
    seen: set[tuple[str, int]] = set()
    for owner in _owners(ini):
        for name, value in owner.variables.items():
            if not _PREFIX.match(name) or (name, value.line) in seen:
                continue
            seen.add((name, value.line))
            if name not in settings.VARIABLES:
                # The beginning is alike in all of them and says nothing.
                endings = {known.removeprefix("vmfab_"): known for known in settings.VARIABLES}
                near = endings.get(nearest(name.lower()[len("vmfab_") :], endings))
                remedy = f"Did you mean {near}?" if near else "README.md lists all, under hosts.ini"
                yield Mistake(value.line, f"vmfab knows no variable {named(name)}", remedy)
            elif wrong := _wrong(name, value, settings.VARIABLES[name].kind):
                yield wrong
    ssh_config = cluster_variables(ini).get("vmfab_ssh_config")
    if ssh_config is None or _wrong("", ssh_config, settings.FILE):
        return
    if not _is_file(path_from(folder, ssh_config.text)):
        what = f"vmfab_ssh_config names {quoted(ssh_config.text)}, which is not there"
        yield Mistake(
            ssh_config.line, what, "Write a path relative to the inventory's folder, or an absolute one"
        )


def _ansible_variables(ini: Ini) -> Iterator[Mistake]:
    """Check those of Ansible's variables that say how to reach the hosts and the stores."""
    seen: set[tuple[str, int]] = set()
    for host in dict.fromkeys((*members(ini, VMHOSTS), *members(ini, STORES))):
        line = ini.hosts[host].line
        if not _NAME.fullmatch(host):
            remedy = "Use letters, digits, _, - and . only; an address comes in ansible_host=ADDRESS"
            yield Mistake(line, f"the host name {quoted(host)} has odd characters", remedy)
            continue
        variables = ini.variables(host)
        for what, (kind, _) in settings.ANSIBLE.items():
            if found := ansible_variable(variables, what):
                name, value = found
                if (name, value.line) not in seen and (wrong := _wrong(name, value, kind)):
                    seen.add((name, value.line))
                    yield wrong
            elif what == "address" and _wrong("", Value(host, line), kind):
                yield Mistake(line, f"{named(host)} is not an address", f"Write {host} ansible_host=ADDRESS")


def _places(ini: Ini) -> Iterator[Mistake]:
    """Check that each of vmfab's variables stands where it has an effect."""
    inside = {
        Scope.HOST: set(members(ini, VMHOSTS)),
        Scope.STORE: set(members(ini, STORES)),
        Scope.CONSOLE: set(members(ini, CONSOLES)),
    }
    seen: set[tuple[str, int]] = set()
    for owner in _owners(ini):
        is_group = isinstance(owner, IniGroup)
        for name, value in owner.variables.items():
            if name not in settings.VARIABLES or (name, value.line) in seen:
                continue
            scope = settings.VARIABLES[name].scope
            if scope is Scope.CLUSTER:
                right = is_group and owner.name in (ALL, VMHOSTS)
            elif scope is Scope.RULE:
                right = is_group and owner.name.startswith(APART)
            else:
                concerned = ini.members(owner.name) if is_group else (owner.name,)
                # A group may be empty until a host comes.
                waiting = is_group and not concerned and not owner.name.startswith(APART)
                right = waiting or not inside[scope].isdisjoint(concerned)
            if not right:
                seen.add((name, value.line))
                yield Mistake(value.line, f"{name} has no effect here", f"Move it to {scope.value}")


def _parts(ini: Ini) -> Iterator[Mistake]:
    """Check that what a cluster consists of is there."""
    if VMHOSTS not in ini.groups:
        remedy = "List the cluster's hosts in the section [vmhosts]"
        if near := nearest(VMHOSTS, ini.groups):
            remedy += f"; was [{near}] meant?"
        yield Mistake(0, "there is no group [vmhosts]", remedy)
    elif not ini.members(VMHOSTS):
        yield Mistake(
            ini.groups[VMHOSTS].line, "the group [vmhosts] is empty", "List the cluster's hosts there"
        )
    if STORES in ini.groups and not ini.members(STORES):
        remedy = "List the machines that export the stores there, or take the section out"
        yield Mistake(ini.groups[STORES].line, "the group [stores] is empty", remedy)


def _same_twice(ini: Ini) -> Iterator[Mistake]:
    """Check that no two names stand for one host."""
    taken: dict[tuple[str, int], str] = {}
    storage: dict[str, str] = {}
    nodes: dict[int, str] = {}
    for host in ini.members(VMHOSTS):
        variables = ini.variables(host)
        line = ini.hosts[host].line
        port = ansible_variable(variables, "port")
        key = (address_of(ini, host).lower(), settings.port(port[1].text) if port else 22)
        first = taken.setdefault(key, host)
        if first != host:
            what = f"{host} has the same address and port as {first}, {key[0]} port {key[1]}"
            yield Mistake(line, what, "Correct one of them, or take one out")
        if own := variables.get("vmfab_storage_address"):
            first = storage.setdefault(settings.ip_address(own.text), host)
            if first != host:
                what = f"{host} has the same vmfab_storage_address as {first}, {own.text}"
                yield Mistake(own.line, what, "Correct one of them")
        if number := variables.get("vmfab_node"):
            first = nodes.setdefault(settings.NODE.read(number.text), host)
            if first != host:
                what = f"{host} has the same vmfab_node as {first}, {number.text}"
                yield Mistake(number.line, what, "Give each host a number of its own")


def _stores(ini: Ini) -> Iterator[Mistake]:
    """Check that each store has a mount point of its own, and that one of them holds the VMs."""
    mounts: dict[str, str] = {}
    labels: dict[str, str] = {}
    holders: list[str] = []
    for store in members(ini, STORES):
        variables = ini.variables(store)
        line = ini.hosts[store].line
        if mount := variables.get("vmfab_mount"):
            first = mounts.setdefault(mount.text, store)
            if first != store:
                yield Mistake(
                    line, f"{store} is mounted where {first} is, on {mount.text}", "Correct one of them"
                )
        else:
            yield Mistake(line, f"{store} has no vmfab_mount", f"Write {store} vmfab_mount=/{store}")
        label = variables["vmfab_label"].text if "vmfab_label" in variables else store
        first = labels.setdefault(label, store)
        if first != store:
            what = f"{store} has the same label as {first}, {label}"
            yield Mistake(line, what, "Give each a vmfab_label of its own")
        yield from _account(store, variables)
        if holds_vms(variables):
            holders.append(store)
            if len(holders) > 1:
                what = f"{holders[0]} and {store} both hold the VMs' images"
                yield Mistake(line, what, "Write vmfab_holds_vms=no at all stores but one")
    if mounts and not holders:
        line = ini.groups[STORES].line
        yield Mistake(line, "no store holds the VMs' images", "Write vmfab_holds_vms=yes at one of them")


def _consoles(ini: Ini) -> Iterator[Mistake]:
    """Check that each console has a serial line of its own at a cluster host."""
    lines: dict[tuple[str, str], str] = {}
    hosts = members(ini, VMHOSTS)
    usual = Console("", "").device
    for name in members(ini, CONSOLES):
        line = ini.hosts[name].line
        variables = ini.variables(name)
        host = variables.get("vmfab_console_host")
        if not re.fullmatch(_NAME, name):
            what = f"the name of the console {quoted(name)} has odd characters"
            yield Mistake(line, what, "Use letters, digits, _, - and . only")
        elif host is None:
            remedy = f"Write {name} vmfab_console_host={hosts[0]}"
            yield Mistake(line, f"{name} has no vmfab_console_host", remedy)
        elif host.text not in hosts:
            near = nearest(host.text, hosts)
            remedy = f"Did you mean {near}?" if near else f"There are {', '.join(hosts)}"
            yield Mistake(host.line, f"{quoted(host.text)} is not in [{VMHOSTS}]", remedy)
        else:
            device = variables["vmfab_device"].text if "vmfab_device" in variables else usual
            first = lines.setdefault((host.text, device), name)
            if first != name:
                what = f"{name} is on the same line as {first}, {device} of {host.text}"
                yield Mistake(line, what, "Correct one of them")


def _account(store: str, variables: Mapping[str, Value]) -> Iterator[Mistake]:
    """Check that a CHAP account has both a user and a secret."""
    user, secret = variables.get("vmfab_chap_user"), variables.get("vmfab_chap_secret_file")
    if user and not secret:
        what = f"{store} has a vmfab_chap_user and no vmfab_chap_secret_file"
        yield Mistake(user.line, what, "Write vmfab_chap_secret_file=FILE, a file of mode 0600")
    elif secret and not user:
        what = f"{store} has a vmfab_chap_secret_file and no vmfab_chap_user"
        yield Mistake(secret.line, what, "Write vmfab_chap_user=NAME")


def holds_vms(variables: Mapping[str, Value]) -> bool:
    """Whether a store with these variables holds the VMs' images."""
    return settings.boolean(variables["vmfab_holds_vms"].text) if "vmfab_holds_vms" in variables else True


def _rules(ini: Ini) -> Iterator[Mistake]:
    """Check that each rule names VMs, and nothing else."""
    for rule, group in rules(ini):
        example = f"[{group.name}:vars] with the line vmfab_vms=ns1, ns2"
        vms = group.variables.get("vmfab_vms")
        if not rule:
            yield Mistake(group.line, f"the rule [{group.name}] has no name", "Write for example [apart_dns]")
        elif group.hosts or group.children:
            lines = (*group.hosts.values(), *group.children.values())
            yield Mistake(
                min(lines), f"[{group.name}] is a rule for VMs and contains no hosts", f"Write {example}"
            )
        elif vms is None:
            yield Mistake(group.line, f"the rule [{group.name}] names no VMs", f"Add {example}")
        else:
            names = settings.vm_names(vms.text)
            if len(names) == 1 and not re.search(r"[*?\[]", names[0]):
                what = f"the rule [{group.name}] names a single VM"
                yield Mistake(vms.line, what, "Name at least two, or a pattern such as ns*")
