"""The direction of imports: fabfile -> tasks -> tasks.cluster -> tasks.cluster.remote -> Fabric.

Read from the sources, so that an import inside a function counts like one at the top. The rules are tested
themselves on small sources at the end.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# These calculate only: neither they nor anything that they import reaches hosts, processes or sockets.
PURE = (
    "tasks.cluster.domainxml",
    "tasks.cluster.errors",
    "tasks.cluster.inventory",
    "tasks.cluster.model",
    "tasks.cluster.overview",
    "tasks.cluster.planning",
    "tasks.cluster.asking.wire",
    "tasks.cluster.asking.network",
    "tasks.cluster.setup.bridgeplan",
    "tasks.cluster.setup.crontab",
    "tasks.cluster.setup.layer3",
    "tasks.cluster.setup.links",
    "tasks.cluster.setup.netplan",
    "tasks.cluster.setup.releases",
    "tasks.cluster.setup.templates",
)
REACHES_OUT = ("fabric", "paramiko", "subprocess", "socket", "asyncio", "multiprocessing", "os.system")
PACKAGES = {"cluster", "cli", "lab", "onhost"}


def sources() -> dict[str, str]:
    """Give the source of every module of the project, by its dotted name; a package is named as itself."""
    files = [ROOT / "fabfile.py", *(ROOT / "tasks").rglob("*.py")]
    return {module_name(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in files}


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def packages(names: Iterable[str]) -> set[str]:
    """Give the names that have others beneath them (those whose relative imports start at themselves)."""
    names = set(names)
    return {name for name in names if any(other.startswith(name + ".") for other in names)} | {
        f"tasks.{name}" for name in PACKAGES
    }


def imports(module: str, source: str, is_package: bool) -> Iterator[tuple[int, str, bool]]:
    """Give (line, dotted name, relative or not) of all that a module imports, however it does.

    `from a import b` gives a.b: whether b is a module or a name in a does not matter to the rules.
    """
    here = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name, False
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [base, node.module]))
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}", node.level > 0
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            # A name that is computed cannot be judged, so it is a name that no rule allows.
            first = node.args[0] if node.args else None
            yield node.lineno, str(first.value) if isinstance(first, ast.Constant) else "?", False


def called(call: ast.Call) -> str:
    return getattr(call.func, "id", "") or getattr(call.func, "attr", "")


def within(name: str, *roots: str) -> bool:
    return any(name == root or name.startswith(root + ".") for root in roots)


def is_operator_module(name: str) -> bool:
    """Tell whether the name is one of tasks/*.py (or something in it)."""
    parts = name.split(".")
    return parts[0] == "tasks" and len(parts) > 1 and parts[1] not in PACKAGES


def is_remote(module: str) -> bool:
    return within(module, "tasks.cluster.remote")


def broken_rules(module: str, target: str, relative: bool) -> Iterator[str]:
    """Give the rules that this import breaks."""
    root = target.split(".")[0]
    if target == "?":
        yield "the name of an import must stand in the source"
    if module == "fabfile" and not within(target, "__future__", "tasks", "invoke"):
        yield "the fabfile imports only tasks and invoke"
    if within(module, *(f"tasks.{name}" for name in PACKAGES)) and is_operator_module(target):
        yield "only the fabfile and tasks/*.py import what an operator types"
    if within(module, "tasks.cluster"):
        if within(target, "invoke", "rich", "tasks.cli", "tasks.lab"):
            yield f"the domain does not know {root if root != 'tasks' else target}"
        if within(target, "fabric", "paramiko", "tasks.onhost") and not is_remote(module):
            yield "only tasks.cluster.remote knows ssh and what runs on the hosts"
    if within(module, "tasks.onhost"):
        if relative and not within(target, "tasks.onhost"):
            yield "on a host there is only tasks.onhost"
        if not relative and root not in sys.stdlib_module_names:
            yield "on a host there is only the standard library"


def violations(module: str, source: str, is_package: bool = False) -> list[str]:
    """List what a module does against the rules, one sentence each."""
    found = [
        f"{module}:{line} imports {target}: {rule}"
        for line, target, relative in imports(module, source, is_package)
        for rule in broken_rules(module, target, relative)
    ]
    if within(module, "tasks.cluster"):
        found += (
            f"{module}:{node.lineno} calls {node.func.id}: the domain neither prints nor asks"
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"print", "input"}
        )
    return found


def import_graph(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Give for each module those of the others that it imports."""
    known_packages = packages(modules)
    graph: dict[str, set[str]] = {}
    for module, source in modules.items():
        targets = (target for _, target, _ in imports(module, source, module in known_packages))
        resolved = (target if target in modules else target.rpartition(".")[0] for target in targets)
        graph[module] = {target for target in resolved if target in modules and target != module}
    return graph


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Give the modules that import each other in a ring, and those between two rings; [] if there is none."""
    left = dict(graph)
    while True:
        imported = set().union(*left.values())
        inner = {module: targets & left.keys() for module, targets in left.items() if module in imported}
        inner = {module: targets for module, targets in inner.items() if targets}
        if inner == left:
            return sorted(left)
        left = inner


def ways_out(start: str, modules: Mapping[str, str]) -> list[str]:
    """List what a module and all that it imports within the project import that reaches outside."""
    known_packages, graph = packages(modules), import_graph(modules)
    seen, waiting = {start}, [start]
    found = []
    while waiting:
        module = waiting.pop()
        for line, target, _ in imports(module, modules[module], module in known_packages):
            if within(target, *REACHES_OUT) or is_remote(module):
                found.append(f"{start} reaches outside: {module}:{line} imports {target}")
        waiting += graph[module] - seen
        seen |= graph[module]
    return found


@pytest.mark.parametrize("module", sorted(sources()))
def test_module_keeps_to_its_layer(module: str) -> None:
    modules = sources()
    assert violations(module, modules[module], module in packages(modules)) == []


@pytest.mark.parametrize("module", sorted(name for name in sources() if within(name, *PURE)))
def test_what_calculates_reaches_nothing_outside(module: str) -> None:
    assert ways_out(module, sources()) == []


def test_no_modules_import_each_other() -> None:
    assert cycle(import_graph(sources())) == []


def test_no_packages_of_the_domain_import_each_other() -> None:
    folders = {f"tasks.cluster.{path.name}" for path in (ROOT / "tasks/cluster").iterdir() if path.is_dir()}
    graph: dict[str, set[str]] = {folder: set() for folder in folders}
    for module, targets in import_graph(sources()).items():
        here = next((folder for folder in folders if within(module, folder)), "")
        if here:
            graph[here] |= {f for f in folders - {here} if any(within(target, f) for target in targets)}
    assert sum(map(len, graph.values())) > 10
    assert cycle(graph) == []


@pytest.mark.parametrize(
    ("module", "source", "rule"),
    [
        ("fabfile", "import rich", "fabfile imports only"),
        ("fabfile", "from tasks import check\nimport os", ":2 imports os"),
        ("tasks.cluster.drain", "def f():\n    from rich import print", "does not know rich"),
        ("tasks.cluster.drain", "import invoke.context", "does not know invoke"),
        ("tasks.cluster.drain", "from ..cli import tables", "does not know tasks.cli"),
        ("tasks.cluster.drain", "from tasks import lab", "does not know tasks.lab"),
        ("tasks.cluster.drain", "import importlib\nimportlib.import_module('tasks.lab.up')", "tasks.lab.up"),
        ("tasks.cluster.drain", "__import__(name)", "must stand in the source"),
        ("tasks.cluster.drain", "from tasks import status", "what an operator types"),
        ("tasks.cluster.drain", "from ..status import show", "what an operator types"),
        ("tasks.cluster.drain", "try:\n    import fabric\nexcept ImportError:\n    pass", "knows ssh"),
        ("tasks.cluster.drain", "from paramiko.client import SSHClient", "knows ssh"),
        ("tasks.cluster.remotely", "import fabric", "knows ssh"),
        ("tasks.cluster.drain", "from tasks.onhost import agent", "knows ssh"),
        ("tasks.cluster.drain", "print('moved')", "neither prints nor asks"),
        ("tasks.cluster.drain", "def f():\n    return input()", "neither prints nor asks"),
        ("tasks.cli.tables", "from tasks.status import x", "what an operator types"),
        ("tasks.lab.up", "import tasks.labtasks", "what an operator types"),
        ("tasks.onhost.agent", "import rich", "only the standard library"),
        ("tasks.onhost.agent", "import tasks.onhost.storefiles", "only the standard library"),
        ("tasks.onhost.agent", "from ..cluster import model", "only tasks.onhost"),
    ],
)
def test_violation_is_found(module: str, source: str, rule: str) -> None:
    found = violations(module, source)
    assert len(found) >= 1
    assert any(rule in sentence for sentence in found), found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "fabfile",
            "from __future__ import annotations\nfrom invoke import Collection\nfrom tasks import vm",
        ),
        ("tasks.status", "from tasks.cluster import session\nfrom tasks.cli import tables\nimport rich"),
        ("tasks.cluster.remote.links", "import fabric, paramiko, subprocess\nfrom tasks.onhost import agent"),
        ("tasks.cluster.remote.pool", "from fabric import Connection"),
        ("tasks.cluster.planning.placement", "from . import model\nfrom .model import Plan\nimport heapq"),
        ("tasks.cluster.planning.placement", "from tasks.cluster import model\nimport tasks.cluster.errors"),
        ("tasks.cluster.drain", "'''print(x)'''\nprinter.print('a')\nfrom .session import Session"),
        ("tasks.onhost.agent", "from __future__ import annotations\nimport json\nfrom . import storefiles"),
        ("tasks.onhost.agent", "from .storefiles import read"),
    ],
)
def test_what_is_allowed_is_left_alone(module: str, source: str) -> None:
    assert violations(module, source) == []


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess",
        "def f():\n    from socket import socket",
        "import asyncio.subprocess",
        "from os import system",
        "from . import remote",
    ],
)
def test_way_out_is_found_through_another_module(source: str) -> None:
    modules = {
        "tasks.cluster": "",
        "tasks.cluster.remote": "from fabric import Connection",
        "tasks.cluster.helper": "import os.path",
        "tasks.cluster.model": "from tasks.cluster.helper import x",
    }
    assert ways_out("tasks.cluster.model", modules) == []
    modules["tasks.cluster.helper"] = source
    assert ways_out("tasks.cluster.model", modules) != []


def test_ring_of_imports_is_found() -> None:
    modules = {
        "tasks": "",
        "tasks.cluster": "from . import a",
        "tasks.cluster.a": "from . import b",
        "tasks.cluster.b": "def f():\n    from tasks.cluster.c import x",
        "tasks.cluster.c": "import tasks.cluster.a",
        "tasks.cluster.d": "import json",
    }
    assert cycle(import_graph(modules)) == ["tasks.cluster.a", "tasks.cluster.b", "tasks.cluster.c"]
    modules["tasks.cluster.c"] = "from .d import x"
    assert cycle(import_graph(modules)) == []
