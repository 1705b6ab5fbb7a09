"""The INI grammar of Ansible's inventories: text in, hosts, groups and variables with their lines out.

The same file serves Ansible, so everything means here what it means to ansible-core 2.19: how a line is split
and quoted, what a range expands to, which value wins. Where Ansible would guess or silently take the later of
two contradicting lines, this is a mistake here. Every mistake of a file is found, not only the first.

Values stay text. Ansible turns some into numbers or lists; text written as a Python string loses its quotes,
as there, and everything else is kept as written.
"""

from __future__ import annotations

import ast
import re
import shlex
import warnings
from codecs import BOM_UTF8
from collections.abc import Iterable
from itertools import pairwise

from tasks.cluster.inventory.grouptree import ALL, UNGROUPED, Ini, IniGroup, IniHost, Value, find_circle
from tasks.cluster.inventory.hostpattern import expand
from tasks.cluster.inventory.mistakes import Mistake, Unreadable, named, nearest, quoted

_SECTION = re.compile(r"\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?")
_CHILD = re.compile(r"([^:\]\s]+)\s*(?:#.*)?")
_GROUP_NAME = re.compile(r"\w[\w.-]*")


def decode(data: bytes) -> tuple[str, list[Mistake]]:
    """Turn the bytes of a file into text. Comment lines need not be UTF-8, as for Ansible."""
    mistakes: list[Mistake] = []
    if data.startswith(BOM_UTF8):
        mistakes.append(Mistake(1, "the file begins with a byte order mark", "Save it as UTF-8 without BOM"))
        data = data.removeprefix(BOM_UTF8)
    try:
        return data.decode(), mistakes
    except UnicodeDecodeError:
        pass
    lines: list[str] = []
    for line in data.splitlines():
        try:
            lines.append("" if line[:1] in (b"#", b";") else line.decode())
        except UnicodeDecodeError:
            lines.append("")
            mistakes.append(Mistake(len(lines), "the line is not UTF-8", "Save the file as UTF-8"))
    return "\n".join(lines), mistakes


def read(text: str) -> Ini:
    """Read a whole file. Never raises; what could not be read is in `mistakes`."""
    reader = _Reader()
    for number, line in enumerate(text.splitlines(), 1):
        reader.line(number, line.strip())
    return reader.finish()


class _Reader:
    def __init__(self) -> None:
        self.hosts: dict[str, IniHost] = {}
        self.groups = {name: IniGroup(name, 0, declared=True) for name in (ALL, UNGROUPED)}
        self.mistakes: list[Mistake] = []
        self.group = self.groups[UNGROUPED]
        self.section = "hosts"

    def line(self, number: int, line: str) -> None:
        if not line or line[0] in "#;":
            return
        try:
            if line[0] == "[" and (header := _SECTION.fullmatch(line)):
                self.section = "skipped"  # until the header has proved good
                self._header(number, *header.groups())
            elif line[0] == "[" and line[-1] == "]":
                self.section = "skipped"
                raise Unreadable(
                    f"{quoted(line)} is not a section",
                    "Write [name], [name:vars] or [name:children], without spaces",
                )
            elif self.section == "hosts":
                self._hosts(number, line)
            elif self.section == "children":
                self._child(number, line)
            elif self.section == "vars":
                self._variable(number, line)
        except Unreadable as error:
            self.mistakes.append(Mistake(number, error.what, error.remedy))

    def _header(self, number: int, name: str, section: str | None) -> None:
        section = section or "hosts"
        if section not in ("hosts", "vars", "children"):
            near = nearest(section, ("vars", "children"))
            remedy = "Only [name], [name:vars] and [name:children] exist"
            if name == "apart":
                remedy = f"Write [apart_{section}], and vmfab_vms=... in [apart_{section}:vars]"
            elif near:
                remedy = f"Write [{named(name)}:{near}]"
            raise Unreadable(f"{quoted(f'[{name}:{section}]')} is of no known kind", remedy)
        if not _GROUP_NAME.fullmatch(name):
            raise Unreadable(
                f"the group name {quoted(name)} has odd characters", "Use letters, digits, _, - and . only"
            )
        self.group = self.groups.setdefault(name, IniGroup(name, number))
        if section != "vars" and not self.group.declared:
            self.group.declared = True
            self.group.line = number
        self.section = section

    def _hosts(self, number: int, line: str) -> None:
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise Unreadable(
                f"a quotation is not closed ({error})", 'Close it, or put quotes around: name="it\'s"'
            ) from None
        if "=" in words[0]:
            raise Unreadable(
                f"{quoted(words[0])} stands where a host should",
                f"Put the host before it, or move it to [{self.group.name}:vars]",
            )
        names, port = expand(words[0])
        given: list[tuple[str, Value]] = []
        for word in words[1:]:
            name, equals, text = word.partition("=")
            if not (name and equals):
                raise Unreadable(
                    f"{quoted(word)} is not a variable",
                    "After the host come name=value pairs without spaces around the =; comments begin with #",
                )
            given.append((name, Value(plain(text), number)))
        for name in names:
            self._host(number, name, port, given)

    def _host(self, number: int, name: str, port: str | None, given: Iterable[tuple[str, Value]]) -> None:
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = IniHost(name, number)
            if port is not None:
                host.variables["ansible_port"] = Value(port, number)
        elif port is not None and host.variables.get("ansible_port", Value("", 0)).text != port:
            # Ansible ignores it there.
            self._mistake(
                number, f"the port of {named(name)} has no effect here", f"Move it to line {host.line}"
            )
        self.group.hosts.setdefault(name, number)
        for variable, value in given:
            self._set(host.variables, named(name), variable, value)

    def _child(self, number: int, line: str) -> None:
        match = _CHILD.fullmatch(line)
        if not match:
            raise Unreadable(
                f"{quoted(line)} is not the name of a group", "Write one group name on each line"
            )
        self.group.children.setdefault(match[1], number)

    def _variable(self, number: int, line: str) -> None:
        name, equals, text = line.partition("=")
        name = name.strip()
        if not (name and equals):
            raise Unreadable(
                f"{quoted(line)} is not a variable",
                f"Write one name=value on each line of [{self.group.name}:vars]",
            )
        value = Value(plain(text.strip()), number)
        if name == "ansible_group_priority":
            try:
                self.group.priority = int(value.text)
            except ValueError:
                raise Unreadable(f"{name} is {quoted(value.text)}", "Write a whole number") from None
            return
        self._set(self.group.variables, f"[{self.group.name}]", name, value)

    def _set(self, variables: dict[str, Value], owner: str, name: str, value: Value) -> None:
        before = variables.get(name)
        if before and before.text != value.text and name.startswith(("ansible_", "vmfab_")):
            where = "on this line" if before.line == value.line else f"on line {before.line}"
            self._mistake(
                value.line, f"{owner} already has another {named(name)} {where}", "Keep one of the two"
            )
        variables[name] = value

    def _mistake(self, line: int, what: str, remedy: str) -> None:
        self.mistakes.append(Mistake(line, what, remedy))

    def finish(self) -> Ini:
        groups = {name: group for name, group in self.groups.items() if group.declared}
        for name, group in self.groups.items():
            if not group.declared:
                self._mistake(
                    group.line,
                    f"there are variables for the group {named(name)}, which does not exist",
                    _or_nearest(name, groups, f"Add the section [{named(name)}], empty if need be"),
                )
            for child, line in list(group.children.items()):
                if child not in groups:
                    remedy = _or_nearest(child, groups, f"Add the section [{named(child)}]")
                    self._mistake(line, f"there is no group {named(child)}", remedy)
                    del group.children[child]
        for name in groups.keys() & self.hosts.keys():
            self._mistake(
                self.hosts[name].line, f"{named(name)} is both a host and a group", "Rename one of them"
            )
        if circle := find_circle(groups):
            lines = [groups[a].children[b] for a, b in pairwise(circle) if b in groups[a].children]
            way = " > ".join(map(named, circle[:8]))
            self._mistake(max(lines), f"groups contain each other in a circle, {way}", "Take this line out")
            for group in groups.values():
                group.children.clear()
        return Ini(self.hosts, groups, sorted(self.mistakes, key=lambda mistake: mistake.line))


def plain(text: str) -> str:
    """Take the quotes off a value that is a Python string, and the comment off any other Python literal.

    Everything else, for Ansible too, is text to the end of the line, a # included.
    """
    value = literal(text)
    if isinstance(value, str):
        return value
    if value is not NO_LITERAL:
        for i, character in enumerate(text):
            if character == "#" and literal(text[:i]) == value:
                return text[:i].strip()
    return text


class _NoLiteral:
    """What `literal` gives for text that is none."""


NO_LITERAL = _NoLiteral()


def literal(text: str) -> object:
    """Evaluate a Python literal; NO_LITERAL if it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return NO_LITERAL
    return value


def _or_nearest(name: str, known: Iterable[str], remedy: str) -> str:
    near = nearest(name, known)
    return f"{remedy}, or was [{near}] meant?" if near else remedy
