"""/etc/ocfs2/cluster.conf: read as o2cb does, and one for all hosts made of what they have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.cluster.errors import Refused
from tasks.cluster.setup import templates

PATH = "/etc/ocfs2/cluster.conf"
PORT = 7777
#: o2cb's highest node number
_HIGHEST = 254


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a cluster: its name is the short host name of the machine."""

    name: str
    address: str
    number: int
    port: int = PORT

    @property
    def shown(self) -> str:
        return f"{self.name} with number {self.number} at {self.address} port {self.port}"


@dataclass(frozen=True, slots=True)
class Clusters:
    """A cluster.conf: the nodes by cluster, and the clusters that are not of the simple kind."""

    nodes: Mapping[str, tuple[Node, ...]]
    #: clusters with global heartbeat
    odd: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A host that is to be a node.

    `name` is its short host name as it says itself, or as hosts.ini calls it when it did not answer;
    `number` is the one that hosts.ini gives it, None without.
    """

    host: str
    name: str
    address: str
    number: int | None
    answered: bool = True


def parse(text: str) -> Clusters:
    """Read a cluster.conf. Raises ValueError with the line that o2cb would not understand either."""
    stanzas: list[tuple[str, dict[str, str]]] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not line[0].isspace():
            kind = line.rstrip()
            if kind not in ("node:", "cluster:", "heartbeat:"):
                raise ValueError(line.strip())
            stanzas.append((kind, {}))
            continue
        key, equals, value = line.partition("=")
        if not equals or not stanzas:
            raise ValueError(line.strip())
        stanzas[-1][1][key.strip()] = value.strip()
    nodes: dict[str, list[Node]] = {}
    odd: list[str] = []
    for kind, values in stanzas:
        if kind == "cluster:":
            nodes.setdefault(_of(values, "name"), [])
            if values.get("heartbeat_mode", "local") != "local":
                odd.append(values["name"])
    for kind, values in stanzas:
        if kind == "node:":
            node = Node(
                _of(values, "name"),
                _of(values, "ip_address"),
                _number(values, "number"),
                _number(values, "ip_port"),
            )
            nodes.setdefault(_of(values, "cluster"), []).append(node)
    return Clusters({name: tuple(found) for name, found in nodes.items()}, tuple(odd))


def _of(values: Mapping[str, str], key: str) -> str:
    if not values.get(key):
        raise ValueError(f"a stanza without {key}")
    return values[key]


def _number(values: Mapping[str, str], key: str) -> int:
    text = _of(values, key)
    if not text.isdigit():
        raise ValueError(f"{key} = {text}")
    return int(text)


def render(cluster: str, nodes: Sequence[Node]) -> str:
    """The text of cluster.conf, the same on every host."""
    return templates.render("ocfs2-cluster.conf.j2", cluster=cluster, nodes=nodes)


def merged(cluster: str, found: Mapping[str, str], members: Iterable[Member]) -> tuple[Node, ...]:
    """The nodes of the cluster, by number: those that the hosts' files name, and the members not yet in them.

    `found` is the text of cluster.conf by host. What a file says stays: a running cluster takes no other
    number or address for a node. Raises Refused, showing both, when two say different things.
    """
    known: dict[str, tuple[Node, str]] = {}
    for host, text in found.items():
        for node in _nodes_in(cluster, host, text):
            _admit(known, node, f"{PATH} on {host}")
    members = list(members)
    wanted: list[Member] = []
    for member in members:
        named = known.get(member.name)
        there = next((one for one in known.values() if one[0].address == member.address), None)
        # The name of a host that did not answer is a guess, its address is not.
        present = (named or there) if member.answered else (there or named)
        if present is None:
            wanted.append(member)
        else:
            _compare(member, *present)
    taken = {node.number for node, _ in known.values()}
    for member in wanted:
        if member.number is not None:
            where = f"vmfab_node of {member.host} in hosts.ini"
            _admit(known, Node(member.name, member.address, member.number), where)
            taken.add(member.number)
    for position, member in enumerate(members, 1):
        if member in wanted and member.number is None:
            free = (n for n in (position, *range(1, _HIGHEST + 1), 0) if n not in taken)
            number = next(free, None)
            if number is None:
                raise Refused("The OCFS2 cluster has 255 nodes already.", "Take one out of cluster.conf.")
            taken.add(number)
            node = Node(member.name, member.address, number)
            _admit(known, node, f"{member.host} in hosts.ini")
    return tuple(sorted((node for node, _ in known.values()), key=lambda node: node.number))


def _nodes_in(cluster: str, host: str, text: str) -> tuple[Node, ...]:
    try:
        clusters = parse(text)
    except ValueError as error:
        raise Refused(
            f"{PATH} on {host} is not understood: {error}.",
            "Correct it there, or move it away if no OCFS2 is mounted.",
        ) from None
    if clusters.odd:
        raise Refused(
            f"{PATH} on {host} has a cluster with global heartbeat, {clusters.odd[0]}.",
            "vmfab sets up local heartbeat only; it leaves this host's cluster alone.",
        )
    others = [name for name in clusters.nodes if name != cluster]
    if others:
        raise Refused(
            f"{PATH} on {host} is about the cluster {others[0]}, not {cluster}.",
            f"If the stores belong to it, write vmfab_ocfs2_cluster={others[0]} in [vmhosts:vars].",
        )
    return clusters.nodes.get(cluster, ())


def _admit(known: dict[str, tuple[Node, str]], node: Node, where: str) -> None:
    """Take a node in, unless it contradicts one that is known."""
    for other, there in known.values():
        if other == node:
            return
        alike = (other.name == node.name, other.number == node.number, other.address == node.address)
        if any(alike):
            raise Refused(
                f"{there} has {other.shown}; {where} has {node.shown}.",
                "Find out which is right, correct the other one, and type the same again. A running cluster"
                " takes a change of a node only when that node is down.",
            )
    if not 0 <= node.number <= _HIGHEST:
        raise Refused(f"{where} has {node.shown}.", f"Numbers go from 0 to {_HIGHEST}.")
    known[node.name] = (node, where)


def _compare(member: Member, present: Node, where: str) -> None:
    """Raise Refused when hosts.ini, or the host itself, says something else than the file."""
    if present.name != member.name and member.answered:
        raise Refused(
            f"{member.host} calls itself {member.name}, but {where} has {present.shown}.",
            f"The names have to be the same. Type on {member.host}: hostnamectl set-hostname {present.name}",
        )
    if present.address != member.address:
        raise Refused(
            f"hosts.ini gives {member.host} the storage address {member.address}, but {where} has "
            f"{present.shown}.",
            f"Write vmfab_storage_address={present.address} at {member.host}, if that is where it is.",
        )
    if member.number is not None and member.number != present.number:
        raise Refused(
            f"hosts.ini gives {member.host} vmfab_node={member.number}, but {where} has {present.shown}.",
            f"Write vmfab_node={present.number} at {member.host}, or leave it out.",
        )
