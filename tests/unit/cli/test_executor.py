"""Real fab runs of a small fabfile: hosts, flags, ends and exit codes as an operator meets them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.cli import Operator, executor, vmtask

ROOT = Path(__file__).resolve().parents[3]
FABFILE = '''
import sys
import time
sys.path.insert(0, {root!r})
from invoke import Collection, task
from tasks.cli import Hosts, Operator, executor, vmtask
from tasks.cluster.errors import Failed, Refused, Unknown

executor.install()

def tell(op, **more):
    """Print what the body was given."""
    op.say(repr((op.hosts, more)))

@vmtask(Hosts.SEVERAL)
def several(op: Operator, parallel: int = 4, timeout: float | None = None, only: list | None = None) -> None:
    """Act on several."""
    tell(op, parallel=parallel, timeout=timeout, only=only)

@vmtask(Hosts.ONE)
def one(op: Operator) -> None:
    """Act on one."""
    tell(op, host=op.host)

@vmtask(Hosts.FILTER)
def some(op: Operator, json: bool = False) -> None:
    """Show some."""
    tell(op)
    if json:
        op.output.document([*op.hosts])

@vmtask()
def cluster(op: Operator, vm: str, yes: bool = False) -> int | None:
    """Act on the cluster."""
    ends = {{"refused": Refused("No.", "Try more."), "failed": Failed("No."), "unknown": Unknown("Maybe."),
            "ctrl-c": KeyboardInterrupt(), "bug": ValueError("oops")}}
    if vm in ends:
        raise ends[vm]
    if vm == "ask":
        op.confirm("Sure?")
    if vm == "wait":
        op.say("ready")
        time.sleep(50)
    if vm == "many":
        for number in range(100000):
            op.say(str(number))
    tell(op, vm=vm)
    return 1 if vm == "one" else None

@task
def plain(c):
    """Be one of Invoke's own."""
    print("plain")

ns = Collection(several, one, some, cluster, plain)
'''

Fab = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fab(tmp_path: Path) -> Fab:
    (tmp_path / "fabfile.py").write_text(FABFILE.format(root=str(ROOT)))
    (tmp_path / "hosts.ini").write_text(
        "[vmhosts]\na ansible_host=127.0.0.1 ansible_port=1\nb ansible_host=127.0.0.1 ansible_port=2\n"
    )
    environment = os.environ | {"VMFAB_INVENTORY": str(tmp_path / "hosts.ini"), "HOME": str(tmp_path)}

    def run(*words: str, shell: str = "", before: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.prefix) / "bin" / "fab"), *words]
        if shell:
            command = ["bash", "-c", f'{before} "$@" {shell}', "bash", *command]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        (["-H", "a, b,a", "several"], "(('a', 'b'), {'parallel': 4, 'timeout': None, 'only': []})"),
        (["-H", "vmhosts", "several"], "(('a', 'b'), {'parallel': 4, 'timeout': None, 'only': []})"),
        (
            ["-H", "b", "several", "--parallel=2", "--timeout", "1.5", "--only=x", "--only", "y"],
            "(('b',), {'parallel': 2, 'timeout': 1.5, 'only': ['x', 'y']})",
        ),
        (["-H", "b", "one"], "(('b',), {'host': 'b'})"),
        (["some"], "((), {})"),
        (["cluster", "--vm=-ü $x"], "((), {'vm': '-ü $x'})"),
    ],
)
def test_a_task_is_called_once_with_what_was_typed(fab: Fab, words: list[str], seen: str) -> None:
    done = fab(*words)
    assert (done.stdout, done.stderr, done.returncode) == (seen + "\n", "", 0)


def test_hosts_without_a_task_are_refused(fab: Fab) -> None:
    done = fab("-H", "a", VMFAB_CALL="./fab --lab")
    assert (done.stdout, done.returncode) == ("", 2)
    assert done.stderr.startswith("fab: No task is given.\n./fab --lab --list shows the tasks, ")


@pytest.mark.parametrize("words", [["--list"], ["--help", "several"]])
def test_a_list_whose_reader_ends_early_is_no_fault(fab: Fab, words: list[str]) -> None:
    done = fab(*words, shell="| true; exit ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["-H", "c", "several"], "'c' is not in the inventory"),
        (["-H", "a,c", "several"], "'c' is not in the inventory"),
        (["-H", "", "several"], "No host is named"),
        (["-H", ",", "some"], "No host is named"),
        (["-H", "a:x", "one"], "'a:x' is not in the inventory"),
        (["several"], "several needs to know the host"),
        (["one"], "Example: fab -H"),
        (["-H", "a,b", "one"], "one acts on one host at a time"),
        (["-H", "a", "cluster", "x"], "cluster does not act on a host"),
        (["-H", "a", "plain"], "plain does not act on a host"),
        (["-R", "cluster", "x"], "--dry-run"),
        (["cluster", "x", "--dry"], "--dry-run"),
        (["-i", "key", "cluster", "x"], "-i has no effect"),
        (["cluster", "x", "--", "y"], "--vm=NAME"),
        (["-H", "a", "several", "--parallel=0"], "--parallel wants a whole number"),
        (["-H", "a", "several", "--timeout=soon"], "--timeout wants a number of seconds"),
        (["-H", "a", "several", "--only"], "--only needs a value."),
        (["-H", "a", "several", "--only", "--parallel", "2"], "--only needs a value."),
        (["-H", "a", "several", "--parallel"], "--parallel needs a value."),
        (["cluster"], "'vm'"),
        (["no-such-task"], "no-such-task"),
        (["cluster", "x", "--no-such-flag"], "no-such-flag"),
        (["--help", "no-such-task"], "no-such-task"),
        (["cluster", "refused"], "fab: No.\nTry more.\n"),
        (["cluster", "ask"], "--yes"),
        (["some", "-H", "c", "several"], "'c' is not in the inventory"),
    ],
)
def test_bad_usage_is_told_in_a_sentence_and_nothing_runs(fab: Fab, words: list[str], sentence: str) -> None:
    done = fab(*words)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.returncode) == ("", 2)


@pytest.mark.parametrize(
    ("vm", "code"),
    [("ok", 0), ("one", 1), ("failed", 1), ("refused", 2), ("unknown", 3), ("bug", 3), ("ctrl-c", 130)],
)
def test_exit_codes(fab: Fab, vm: str, code: int) -> None:
    done = fab("cluster", vm)
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == (vm == "bug")
    assert ("Please report" in done.stderr) == (vm == "bug")


def test_ctrl_c_ends_with_a_sentence(fab: Fab) -> None:
    # Without `set -m` a shell makes what it puts into the background deaf to Ctrl-C.
    shell = ">out & while ! grep -qs ready out; do sleep 0.1; done; kill -INT $!; wait $!"
    done = fab("cluster", "wait", shell=shell, before="set -m;")
    assert done.stderr.startswith("fab: interrupted.\n")
    assert "Traceback" not in done.stderr
    assert done.returncode == 130


def test_the_first_bad_end_stops_the_line(fab: Fab) -> None:
    done = fab("cluster", "x", "cluster", "failed", "cluster", "y")
    assert "'vm': 'x'" in done.stdout
    assert "'y'" not in done.stdout
    assert done.returncode == 1


def test_the_same_task_may_be_typed_twice(fab: Fab) -> None:
    done = fab("some", "cluster", "x", "some", "plain")
    assert done.stdout.count("((), {})") == 2
    assert done.stdout.endswith("plain\n")


def test_json_is_all_there_is_on_standard_output(fab: Fab) -> None:
    done = fab("-H", "a", "some", "--json")
    assert json.loads(done.stdout) == ["a"]
    assert done.stderr == "(('a',), {})\n"


def test_yes_answers(fab: Fab) -> None:
    assert fab("cluster", "ask", "--yes").returncode == 0


def test_closed_standard_output_is_refused(fab: Fab) -> None:
    done = fab("cluster", "x", shell=">&-")
    assert "Standard output is closed" in done.stderr
    assert done.returncode == 2


def test_closed_standard_input_is_no_terminal(fab: Fab) -> None:
    done = fab("cluster", "ask", shell="<&-")
    assert "--yes" in done.stderr
    assert done.returncode == 2


def test_a_reader_that_leaves_early_changes_nothing(fab: Fab) -> None:
    done = fab("cluster", "many", shell="| head -1; exit ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_a_report_that_could_not_be_written_is_a_failure(fab: Fab) -> None:
    done = fab("cluster", "x", shell=">/dev/full")
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


def test_help_tells_flags_alike_and_no_one_letter_ones(fab: Fab) -> None:
    done = fab("--help", "several")
    assert "At most so many VMs at once" in done.stdout
    assert "--parallel=STRING" in done.stdout
    assert "--only=STRING" in done.stdout
    assert "-p" not in done.stdout.replace("--parallel", "")


def test_a_terminal_that_lacks_a_letter_gets_an_escape(fab: Fab) -> None:
    done = fab("cluster", "日", LC_ALL="C", PYTHONIOENCODING="latin-1")
    assert done.stdout == "((), {'vm': '\\u65e5'})\n"
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("listed", "listed"),
        ("listed web", "listed --vm=web"),
        ("listed --limit 5 web --json other", "listed --limit 5 --vm=web --json other"),
        ("listed --json web", "listed --json --vm=web"),
        ("listed --limit=5 'web 1,db'", "listed --limit=5 '--vm=web 1,db'"),
        ("listed other listed x", "listed other listed --vm=x"),
        ("other web", "other web"),
        ("listed --vm web other", "listed --vm web other"),
    ],
)
def test_a_word_alone_is_the_flag_that_it_may_name(typed: str, meant: str) -> None:
    @vmtask(may_name="vm")
    def listed(op: Operator, vm: str = "", limit: int = 5, json: bool = False) -> None:
        """List."""

    @vmtask()
    def other(op: Operator) -> None:
        """Do something else."""

    assert executor.spelled_out(shlex.split(typed), {"listed": listed, "other": other}) == shlex.split(meant)
