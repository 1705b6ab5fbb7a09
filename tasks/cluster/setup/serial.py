"""Consoles on a host's serial lines: one configuration of minicom per console in hosts.ini."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.model import Console, Inventory
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, NoFile, OwnFile, Step, run
from tasks.cluster.setup.templates import render

FOLDER = "/etc/minicom"
#: In every file that this writes; what lacks it is somebody else's.
MARK = "# vmfab console, written by fab host.serial"
_PARITY = {"none": "N", "even": "E", "odd": "O"}


def step(inventory: Inventory, host: str) -> Step:
    """What `host.serial` sets up on a host: the consoles that hosts.ini has on its lines, and no others."""
    here = consoles(inventory, host)
    files = tuple(OwnFile(path(console), text(console), 0o644, mark=MARK) for console in here)
    others = NoOthers(frozenset(file.path for file in files))
    return Step("serial", (*([Minicom()] if here else []), *files, others))


def consoles(inventory: Inventory, host: str) -> tuple[Console, ...]:
    """The consoles on serial lines of this host."""
    return tuple(console for console in inventory.consoles.values() if console.host == host)


def path(console: Console) -> str:
    """Where minicom looks for a configuration of this name."""
    return f"{FOLDER}/minirc.{console.name}"


def text(console: Console) -> str:
    """The text of a console's minirc file."""
    parity = _PARITY[console.parity]
    return render("minirc.j2", name=console.name, device=console.device, speed=console.speed, parity=parity)


@dataclass(frozen=True, slots=True)
class Minicom:
    """The program is there. It reads no file that could be checked: what it does not know it leaves out."""

    def look(self, ops: HostOps) -> Finding:
        run(ops, ["minicom", "--version"])
        return AlreadySo("minicom", "is there")


@dataclass(frozen=True, slots=True)
class NoOthers:
    """Consoles that were taken out of hosts.ini are not there any more. Somebody else's files stay."""

    paths: frozenset[str]

    def look(self, ops: HostOps) -> Finding:
        listed = run(ops, ["find", FOLDER, "-maxdepth", "1", "-type", "f", "-name", "minirc.*"])
        left = []
        for name in sorted(set(listed.out.splitlines()) - self.paths):
            if posixpath.dirname(name) == FOLDER and MARK in (ops.file_read(name).text or ""):
                left.append(NoFile(name, MARK).look(ops))
        changes = [found for found in left if isinstance(found, Change)]
        if not changes:
            number = len(self.paths)
            why = f"hosts.ini has {number or 'none'} on its lines, and so has it"
            return AlreadySo("consoles", why)

        def remove(ops: HostOps) -> str:
            return "; ".join(filter(None, (change.apply(ops) for change in changes)))

        names = ", ".join(change.what for change in changes)
        return Change(names, "removed: not in hosts.ini any more", remove, "".join(c.diff for c in changes))
