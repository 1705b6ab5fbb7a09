"""Hosts and nested groups of an Ansible inventory: who is in which group, and whose variables win."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from tasks.cluster.inventory.mistakes import Mistake

#: Ansible's own groups: every host, and the hosts that are in no other.
ALL = "all"
UNGROUPED = "ungrouped"


@dataclass(frozen=True, slots=True)
class Value:
    """A variable's value and where it was given."""

    text: str
    line: int


@dataclass(slots=True)
class IniHost:
    """A host by its alias, with the variables of its own lines."""

    name: str
    line: int
    variables: dict[str, Value] = field(default_factory=dict)


@dataclass(slots=True)
class IniGroup:
    """A group: the hosts and groups listed in it, each with its line, and the variables of [NAME:vars]."""

    name: str
    line: int
    #: [NAME] or [NAME:children] was seen, not only [NAME:vars]
    declared: bool = False
    hosts: dict[str, int] = field(default_factory=dict)
    children: dict[str, int] = field(default_factory=dict)
    variables: dict[str, Value] = field(default_factory=dict)
    #: ansible_group_priority: among groups of one depth the higher wins
    priority: int = 1


class Ini:
    """A file as read: hosts and groups in file order, and the mistakes found on the way.

    `groups` contains every group that is named in it, and no circle.
    """

    def __init__(
        self, hosts: Mapping[str, IniHost], groups: Mapping[str, IniGroup], mistakes: Sequence[Mistake]
    ) -> None:
        self.hosts = hosts
        self.groups = groups
        self.mistakes = mistakes
        self._parents = _parents(groups)
        #: length of the longest way down from "all"
        self._depth: dict[str, int] = {}
        for name in TopologicalSorter(self._parents).static_order():
            self._depth[name] = 1 + max((self._depth[parent] for parent in self._parents[name]), default=-1)
        listed: dict[str, list[str]] = {name: [] for name in hosts}
        for group in groups.values():
            for host in group.hosts:
                listed[host].append(group.name)
        # "ungrouped" loses a host that is also listed elsewhere, and gains one listed only in "all".
        self._listed = {
            host: [name for name in names if name not in (ALL, UNGROUPED)] or [UNGROUPED]
            for host, names in listed.items()
        }

    def groups_of(self, host: str) -> list[str]:
        """Every group that a host is in, the one whose variables win last."""
        found = {ALL, *_reachable(self._listed[host], lambda name: self._parents[name])}
        return sorted(found, key=lambda name: (self._depth[name], self.groups[name].priority, name))

    def members(self, group: str) -> tuple[str, ...]:
        """The hosts of a group and of all groups below it, in file order."""
        if group == ALL:
            return tuple(self.hosts)
        below = _reachable([group], lambda name: self.groups[name].children)
        return tuple(host for host, names in self._listed.items() if not below.isdisjoint(names))

    def variables(self, host: str) -> dict[str, Value]:
        """What applies to a host: its own variables over its groups', a child group's over its parent's."""
        found: dict[str, Value] = {}
        for name in self.groups_of(host):
            found.update(self.groups[name].variables)
        found.update(self.hosts[host].variables)
        return found


def find_circle(groups: Mapping[str, IniGroup]) -> list[str]:
    """Groups that contain each other, the first also as the last; empty if there are none."""
    try:
        TopologicalSorter(_parents(groups)).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def _parents(groups: Mapping[str, IniGroup]) -> dict[str, list[str]]:
    """Name the groups that each group is directly in; every one is in "all" at last."""
    parents: dict[str, list[str]] = {name: [] for name in groups}
    for group in groups.values():
        for child in group.children:
            parents[child].append(group.name)
    for name, above in parents.items():
        if name != ALL and (name == UNGROUPED or not above):
            above.append(ALL)
    return parents


def _reachable(names: Iterable[str], step: Callable[[str], Iterable[str]]) -> set[str]:
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(step(name))
    return found
