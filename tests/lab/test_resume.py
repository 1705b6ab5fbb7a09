"""Fault 9 with real parts: fab is killed at every line of its journal, another laptop resumes.

After each test the fixture proves that no guest ran twice and that none lost a write.
"""

from __future__ import annotations

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.cluster.moving.move import Step
from tasks.lab.lab import PROJECT
from tests.lab.fab import FOUR, ONE, THREE, TWO, Done, Fab

#: Every line that the journal of a move may get, from the list of its steps: a new one is covered by itself.
LINES = ("plan", *(step.value for step in Step), "outcome", "end")

#: Kills at the same time: more would only wait for each other on the machine's two processors.
AT_ONCE = 3


def kill(fab: Fab, when: str, line: str) -> int:
    """Move the VM that is named for this line, and kill fab at it; fab's exit code."""
    target = FOUR if line == Step.RETURN.value else TWO
    words = ["migrate", line, "--to", target, "--yes"]
    words += ["--timeout", "2" if line == Step.DESTROY.value else "200"]
    python = [sys.executable, "-m", "tests.lab.killed_fab", when, line]
    script = f'cd {PROJECT} && exec "$@"'
    moving = fab.begin_words(["sh", "-c", script, "sh", *python, *words])
    done = moving.done()
    assert done.code == -signal.SIGKILL, f"{line} is never written:\n{done.said}"
    return done.code


def resumed(fab: Fab) -> Done:
    """Resume until nothing is under way any more: what libvirt was asked for last keeps the locks."""
    for _ in range(10):
        done = fab("resume", "--yes", "--json")
        if done.code or not done.document["under_way"]:
            return done
        fab.lab.virsh(ONE, "list")
    raise AssertionError(done.said)


@pytest.mark.parametrize("when", ["before", "after"])
def test_9_killed_at_every_line_of_the_journal(fab: Fab, when: str) -> None:
    fab.add(ONE, *LINES, destroy="never")
    fab.lab.fail_next_start(FOUR, times=2)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda line: kill(fab, when, line), LINES))
    assert all(len(hosts) == 1 for hosts in fab.where().values())
    other = fab.other_laptop()
    told = other("status").out
    assert "was interrupted" in told
    assert "fab resume" in told

    done = resumed(other)
    assert done.code == 0, done.said
    where = fab.where()
    assert {line: len(where.get(line, ())) for line in LINES} == dict.fromkeys(LINES, 1), done.said
    moved = {line for line in LINES if where[line] != (ONE,)}
    assert {"start", "bookkeeping", "outcome", "end"} <= moved
    assert "plan" not in moved
    here = {host: {line for line in LINES if where[line] == (host,)} for host in (ONE, TWO, THREE, FOUR)}
    assert {host: set(fab.running_vms(host) or []) for host in (TWO, THREE, FOUR)} == {
        host: here[host] for host in (TWO, THREE, FOUR)
    }
    # What never left was never noted there: the practice cluster does not.
    assert set(fab.running_vms(ONE) or []) <= here[ONE]
    again = other("resume")
    assert again.code == 0, again.said
    assert "Nothing to resume." in again.out
    assert not list((fab.lab.store / ".vmfab/locks").glob("op-*"))
    assert "interrupted" not in other("status").out
    fab.counting(*LINES)
    # Who resumed stands in the history.
    entries = json.loads(other("history", "--json").out)["entries"]
    assert {entry["vm"] for entry in entries} >= set(LINES) - {"plan"}
    assert not {entry["result"] for entry in entries} & {"interrupted", "under-way", "unknown"}
