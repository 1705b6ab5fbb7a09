"""Steps of long work, and commands that share the terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from tasks.cli.steps import HEARTBEAT, Steps, steps
from tasks.cluster.clock import Clock

from .streams import captured


class HandClock(Clock):
    """A clock that is moved by hand."""

    time = 100.0

    def monotonic(self) -> float:
        return self.time


def test_a_step_that_lasts_is_named_again() -> None:
    output, out, _ = captured()
    clock = HandClock()
    spoken = Steps(output, clock)
    spoken.beat()
    for second in range(30):
        if second in (3, 5):
            spoken.say(f"Step {second}")
        spoken.beat()
        clock.time += 1
    assert HEARTBEAT == 12
    assert out.getvalue().splitlines() == [
        "   3 s  Step 3",
        "   5 s  Step 5",
        "  17 s  still: Step 5",
        "  29 s  still: Step 5",
    ]


def test_steps_are_said_at_once() -> None:
    output, out, _ = captured()
    with steps(output) as say:
        say("Begin")
        assert out.getvalue() == "   0 s  Begin\n"


RUN = "import sys; from tasks.cli import subcommand; sys.exit(subcommand.run(sys.argv[1:], {'MARK': 'set'}))"


def test_a_subcommand_gives_its_exit_code_and_sees_its_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "sh", "-c", 'echo "$MARK"; cat; exit 7'],
        input=b"not for the subcommand",
        capture_output=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, b"set\n")


def test_an_interrupted_subcommand_is_waited_for() -> None:
    """The signal reaches only the parent: it passes it on, and ends after the child."""
    child = "trap 'sleep 0.3; echo tidy; exit 0' INT; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [sys.executable, "-c", RUN, "sh", "-c", child],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[3],
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "tidy\n"
    assert process.returncode == -signal.SIGINT
    assert time.monotonic() - begin < 10


CHILD = "trap 'echo tidy; exit' INT; while :; do sleep 0.1; done"
EARLY = """
import os, signal, subprocess
start = subprocess.Popen
def interrupted(*words, **options):
    child = start(*words, **options)
    os.kill(os.getpid(), signal.SIGINT)
    return child
subprocess.Popen = interrupted
"""


def test_a_subcommand_is_not_left_behind_by_a_signal_while_it_starts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY + RUN, "sh", "-c", CHILD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGINT, "tidy\n")
