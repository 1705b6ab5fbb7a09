"""Netplan's files as data: what is in force of them, which entry means which link, and how one is written.

All scalars are text, as netplan reads them: PyYAML would take a MAC of digits for a number in base 60.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import TypeGuard

import yaml

from tasks.cluster.asking.network import Link
from tasks.cluster.errors import Refused

#: A mapping, a list, or a text; None for what is left empty.
Value = object
Body = dict[str, Value]

#: Sections of a file that hold entries by name; what else is beside them says something about all.
_GLOBAL = ("version", "renderer")
#: Of files of the same name, the one in the later folder counts.
FOLDERS = ("/lib/netplan", "/usr/lib/netplan", "/etc/netplan", "/run/netplan")
_PLAIN = re.compile(r"[A-Za-z0-9_/]([A-Za-z0-9_./*-]*[A-Za-z0-9_*])?")


@dataclass(frozen=True, slots=True)
class Entry:
    """What netplan knows of one link, merged from all files that say something about it."""

    section: str
    name: str
    body: Body
    paths: tuple[str, ...]

    def means(self, link: Link) -> bool:
        """Whether it is about this link."""
        if self.section != "ethernets":
            return self.name == link.name
        match = self.body.get("match")
        if match is None:
            return self.name == link.name
        if not link.nic:
            return False
        if self.body.get("set-name") == link.name:
            return True
        return is_mapping(match) and bool(match) and all(_matches(link, *one) for one in match.items())


def _matches(link: Link, key: str, wanted: Value) -> bool:
    patterns = [str(one) for one in wanted] if isinstance(wanted, list) else [str(wanted)]
    if key == "macaddress":
        return patterns[0].lower() == (link.permanent_mac or link.mac).lower()
    has = {"name": link.name, "driver": link.driver}.get(key)
    return has is not None and any(fnmatchcase(has, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Everything that is in force, by file and as a whole."""

    #: those in force, path -> text
    texts: Mapping[str, str]
    #: path -> its part below `network`
    files: Mapping[str, Body]
    entries: tuple[Entry, ...]
    renderer: str = ""

    def entry(self, link: Link) -> Entry | None:
        """What is known about a link; the exact name counts before a pattern."""
        means = [entry for entry in self.entries if entry.means(link)]
        return next((e for e in means if e.name == link.name), means[0] if means else None)

    def named(self, section: str, name: str) -> Entry | None:
        return next((e for e in self.entries if (e.section, e.name) == (section, name)), None)


def read(host: str, texts: Mapping[str, str]) -> Configuration:
    """Understand the files of a host, by path. Raises Refused for what is no netplan file."""
    chosen: dict[str, str] = {}
    for path in sorted(texts, key=lambda path: FOLDERS.index(str(PurePosixPath(path).parent))):
        chosen[PurePosixPath(path).name] = path
    files = {chosen[name]: _network(host, chosen[name], texts[chosen[name]]) for name in sorted(chosen)}
    entries: dict[tuple[str, str], Entry] = {}
    renderer = ""
    for path, network in files.items():
        renderer = str(network.get("renderer") or renderer)
        for section, found in network.items():
            if section in _GLOBAL or not is_mapping(found):
                continue
            for name, body in found.items():
                before = entries.get((section, name), Entry(section, name, {}, ()))
                whole = _merged(before.body, body if is_mapping(body) else {})
                entries[section, name] = Entry(section, name, whole, (*before.paths, path))
    return Configuration({p: texts[p] for p in files}, files, tuple(entries.values()), renderer)


def _network(host: str, path: str, text: str) -> Body:
    try:
        # Texts, lists and mappings only: nothing is constructed from tags.
        found = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or "it is no YAML"
        raise Refused(f"{host}: {path}{line} cannot be read: {what}.", "Correct it on the host.") from None
    network = (found or {}).get("network", {}) if is_mapping(found or {}) else None
    if network in ("", None):
        network = {}
    if not is_mapping(network):
        raise Refused(f"{host}: {path} has no mapping 'network'.", "Correct it on the host.")
    return network


def is_mapping(value: Value) -> TypeGuard[Body]:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _merged(before: Body, after: Body) -> Body:
    """As netplan does it over several files: mappings are joined, lists appended, the later text counts."""
    whole = dict(before)
    for key, value in after.items():
        old = whole.get(key)
        if is_mapping(old) and is_mapping(value):
            whole[key] = _merged(old, value)
        elif isinstance(old, list) and isinstance(value, list):
            whole[key] = [*old, *(one for one in value if one not in old)]
        else:
            whole[key] = value
    return whole


def truth(value: Value) -> bool:
    """Whether a text means yes, for netplan."""
    return str(value).lower() in ("true", "on", "yes", "y")


def listed(value: Value) -> list[Value]:
    """The elements of a list that may have been left out."""
    return list(value) if isinstance(value, list) else []


def block(value: Value, indent: int = 0) -> str:
    """Write YAML in block style, `indent` spaces in; no line end at the end. The one place that quotes."""
    margin = " " * indent
    if is_mapping(value):
        return "\n".join(
            f"{margin}{scalar(key)}:{_behind(inner, indent + 2)}" for key, inner in value.items()
        )
    if isinstance(value, list):
        return "\n".join(_item(inner, indent) for inner in value)
    return margin + scalar(value)


def _behind(value: Value, indent: int) -> str:
    """What stands behind a key's colon."""
    if value is None:
        return ""
    if value in ({}, []):
        return f" {value}"
    if isinstance(value, (dict, list)):
        if isinstance(value, list) and all(_short(one) for one in value):
            return f" [{', '.join(map(scalar, value))}]"
        return "\n" + block(value, indent)
    return f" {scalar(value)}"


def _item(value: Value, indent: int) -> str:
    inner = block(value, indent + 2)
    return f"{' ' * indent}- {inner[indent + 2 :]}" if value not in ({}, []) else f"{' ' * indent}- {value}"


def _short(value: Value) -> bool:
    """Whether it may stand in a line with others."""
    return not isinstance(value, (dict, list)) and bool(_PLAIN.fullmatch(str(value)))


def scalar(value: Value) -> str:
    """One text, quoted unless it is harmless."""
    if value is True or value is False:
        return str(value).lower()
    text = str(value)
    if _PLAIN.fullmatch(text) and not text.endswith("."):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[^\x20-\x7e]", lambda m: _escape(m[0]), escaped) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
