"""README.md says what is so: tasks, flags, commands, variables, files, modules and exit codes that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import fabric.main
import pytest
from invoke.parser import Parser

import fabfile
from tasks.cli import executor
from tasks.cli.task import Hosts, VmTask
from tasks.cluster import errors
from tasks.cluster.inventory import inventory, settings
from tests.bench.__main__ import _parser as bench_parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def tasks() -> dict[str, VmTask]:
    """Give every task that can be typed, by the name that is typed."""
    found = {name: fabfile.ns[name] for name in fabfile.ns.task_names}
    assert all(isinstance(task, VmTask) for task in found.values())
    return found


def flags_of(task: VmTask) -> set[str]:
    """Give a task's flags as they are typed."""
    return {name for argument in task.get_arguments() for name in dashed(argument.names)}


def dashed(names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        yield ("--" if len(name) > 1 else "-") + name.replace("_", "-")


def part(heading: str) -> str:
    """Give the text below a heading, up to the next one of the same or a higher level."""
    level = len(heading) - len(heading.lstrip("#"))
    start = README.index(f"\n{heading}\n") + len(heading) + 2
    end = re.search(rf"^#{{1,{level}}} ", README[start:], re.MULTILINE)
    return README[start : start + end.start()] if end else README[start:]


def described() -> list[str]:
    """Give the tasks that have a heading of their own."""
    return re.findall(r"^### (\S+)$", part("## Tasks"), re.MULTILINE)


def rows(text: str) -> list[list[str]]:
    """Give the cells of a Markdown table's body."""
    lines = [line.strip().strip("|").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in cells] for cells in lines[2:]]


def blocks() -> list[str]:
    """Give the lines that are shown as code."""
    return [line[4:] for line in README.splitlines() if line.startswith("    ")]


def commands() -> list[str]:
    """Give every call of ./fab that README shows, in code blocks and between backquotes."""
    shown = [match[1] for line in blocks() if (match := re.match(r"(?:\$ )?(?:sudo )?(\./fab .*)", line))]
    shown += re.findall(r"`((?:VMFAB_\w+=\S+ )?\./fab [^`]+)`", README)
    return [re.sub(r" +(\||#).*", "", command) for command in shown]


def test_every_task_is_described_and_no_other() -> None:
    assert sorted(described()) == sorted(tasks())


@pytest.mark.parametrize("name", sorted(tasks()))
def test_a_task_names_its_flags_and_no_others(name: str) -> None:
    text = part(f"### {name}")
    line = re.search(r"^- Flags:(.*?)^- ", text, re.MULTILINE | re.DOTALL)
    assert line is not None
    assert set(re.findall(r"`(--?[\w-]+)`", line[1])) == flags_of(tasks()[name])
    assert re.search(r"^- Refuses: \S", text, re.MULTILINE)


def test_the_table_of_flags_has_all_and_no_others() -> None:
    table = part("## Tasks").partition("### ")[0]
    explained = [flag for row in rows(table) for flag in re.findall(r"`([^`]+)`", row[0])]
    assert len(explained) == len(set(explained))
    assert set(explained) == set().union(*map(flags_of, tasks().values()))


def test_every_flag_that_is_mentioned_exists() -> None:
    known = set().union(*map(flags_of, tasks().values()))
    known |= set(re.findall(r"--[a-z]+", (ROOT / "fab").read_text(encoding="utf-8")))
    known |= {flag for action in bench_parser()._actions for flag in action.option_strings}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", README))
    assert mentioned - known == set()


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_every_command_that_is_shown_can_be_typed(command: str) -> None:
    words = shlex.split(command)
    words = words[words.index("./fab") + 1 :]
    while words[0] in ("--lab", "--inventory"):
        words = words[2 if words[0] == "--inventory" else 1 :]
    if words[-1] == "TASK":
        return
    core = Parser(initial=fabric.main.program.initial_context, ignore_unknown=True).parse_argv(words)
    asked = core[0].args["help"].value
    if isinstance(asked, str):
        assert asked in tasks()
        return
    hosts = core[0].args["hosts"].value
    parsed = Parser(contexts=fabfile.ns.to_contexts()).parse_argv(
        executor.spelled_out(core.unparsed, tasks())
    )
    assert len(parsed) == (0 if core[0].args["list"].got_value else 1)
    for context in parsed:
        takes = tasks()[str(context.name)].takes
        assert takes is not Hosts.NONE or hosts is None
        assert takes not in (Hosts.ONE, Hosts.SEVERAL) or hosts


def variables_table() -> str:
    """Make README's table of vmfab's own variables."""
    lines = ["| variable | stands in | is | means |", "|---|---|---|---|"]
    for name, variable in settings.VARIABLES.items():
        kind = f"{variable.kind.what}: `{variable.kind.example}`"
        lines.append(f"| `{name}` | {variable.scope.value} | {kind} | {variable.help} |")
    return "\n".join(lines)


def test_the_table_of_variables_is_that_of_the_program() -> None:
    shown = [line for line in part("## hosts.ini").splitlines() if line.startswith("|")]
    assert "\n".join(shown) == variables_table()


def test_the_example_of_an_inventory_can_be_read() -> None:
    above = part("## hosts.ini").partition("A mistake is")[0]
    lines = [line[4:] for line in above.splitlines() if line.startswith("    ")]
    found = inventory.understand("\n".join(lines), ROOT / "example.ini")
    assert list(found.hosts) == ["vmhost1", "vmhost2", "vmhost3"]
    assert found.mount == "/vmstorage"
    assert found.apart == {"dns": ("ns1", "ns2")}


def test_every_variable_that_is_mentioned_exists() -> None:
    known = {*settings.VARIABLES, *(name for _, names in settings.ANSIBLE.values() for name in names)}
    assert set(re.findall(r"\b(?:vmfab|ansible)_[a-z_]+\b", README)) - known == set()


def test_every_file_that_is_named_exists() -> None:
    text = "\n".join(line for line in README.splitlines() if not line.startswith("    "))
    named = set(re.findall(r"`((?:tasks|tests|templates|\.ci)/[^`\s]*|[\w.-]+\.(?:py|ini|lock|toml))`", text))
    named |= set(re.findall(r"\]\((?!http|#)([^)]+)\)", text))
    assert len(named) > 20
    folders = (ROOT, ROOT / "tasks/cluster", ROOT / "tasks/onhost")
    lost = {path for path in named if not any(any(folder.glob(path.rstrip("/"))) for folder in folders)}
    assert lost == set()


def test_the_picture_of_the_layers_shows_what_is_there() -> None:
    picture = part("## How it works").partition("Imports go one way")[0]
    shown: list[Path] = []
    folder = ROOT
    for line in filter(None, picture.splitlines()):
        head = line.split()[0]
        if head.startswith("tasks/"):
            folder = ROOT / head.removesuffix("*.py")
            shown.append(folder)
        shown += [folder / name for name in re.findall(r"(?<![*\w])\w+\.py", line)]
    assert len(shown) > 30
    assert [str(path) for path in shown if not path.exists()] == []


def test_the_table_of_exit_codes_is_complete() -> None:
    family: list[type[errors.VmfabError]] = [errors.VmfabError, *errors.VmfabError.__subclasses__()]
    codes = {0, *(error.code for error in family)}
    assert {int(row[0]) for row in rows(part("## Exit codes"))} == codes


def test_faults_that_are_called_tested_have_tests_of_their_number() -> None:
    table = rows(part("### Faults to survive"))
    assert [int(row[0]) for row in table] == [*range(1, 21)]
    folders = {"real": ("tests/lab", "tests/machines"), "simulated": ("tests/domain",)}
    names = {"real": r"def test_fault_(?:\d\d_and_)*{:02}_", "simulated": r"def test_{}_"}
    lost = []
    for number, *_, status in table:
        for word, found in folders.items():
            paths = [path for folder in found for path in (ROOT / folder).rglob("test_*.py")]
            tests = "".join(path.read_text(encoding="utf-8") for path in paths)
            if word in status and not re.search(names[word].format(int(number)), tests):
                lost.append((number, word))
    assert lost == []


def test_every_link_within_the_page_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) - anchors == set()


def test_nothing_of_one_machine_is_in_it() -> None:
    assert re.findall(r"/(?:work|home|tmp)/\S*|root@\w+", README) == []
    assert "@@" not in README


def test_the_table_of_an_audits_findings_has_all_kinds() -> None:
    folder = ROOT / "tasks/cluster/audit"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.py")))
    made = set(re.findall(r'Finding\(\s*(?:"\w+"|[^,"]+(?:"[^,]+)*?),\s*"([a-z-]+)"', text))
    made |= {"running-vms", *re.findall(r'"([a-z-]+)": "(?:unknown|drift|danger)"', text)}
    shown = {kind for row in rows(part("## Audit")) for kind in re.findall(r"`([a-z-]+)`", row[0])}
    assert shown == made
