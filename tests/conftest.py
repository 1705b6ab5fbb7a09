"""What holds for every test: a skip is a failure with CI set, messages say `fab`, nothing stays behind.

Tests may run in several processes (pytest-xdist). Each of these is a pytest of its own, with a practice
cluster of its own; one more hands out the tests and puts the summary together.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import TypeVar

import hypothesis
import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests import leftovers

os.environ.pop("VMFAB_CALL", None)

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

# How long an example takes says something about the machine, not about vmfab.
hypothesis.settings.register_profile(
    "vmfab", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("vmfab")


def refuse_skip(report: Report) -> Report:
    """Turn the report of a skip into that of a failure; an expected failure (xfail) is no skip."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be skipped (CI is set): {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return refuse_skip((yield))


def pytest_configure(config: pytest.Config) -> None:
    """Let signals end a run as Ctrl-C does: what was begun is put away."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _ended_from_outside)
    config.stash[_MARK] = leftovers.begin()
    config.pluginmanager.register(Interruption(config))


class Scheduling(LoadScopeScheduling):
    """Hands out test by test, but those on machines as one: they build on each other."""

    def _split_scope(self, nodeid: str) -> str:
        return "machines" if nodeid.startswith("tests/machines/") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


class Interruption:
    """Passes on that a run is cut short to the processes that it has handed its tests to."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    def pytest_keyboard_interrupt(self) -> None:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is _ended_from_outside:
                signal.signal(number, signal.SIG_IGN)  # nothing may disturb the putting away
        if self._plugins.hasplugin("dsession"):
            leftovers.tell_children(signal.SIGTERM)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what a run that was cut short has left; workers have ended by now."""
    mark = config.stash.get(_MARK, "")
    if mark:
        folder = config._tmp_path_factory._basetemp or Path("/nonexistent")
        left = leftovers.end(mark, folder)
        os.environ.pop(leftovers.MARK)
        if left:
            print("Ended what the tests had left behind:", *left, sep="\n  ")


_MARK = pytest.StashKey[str]()


def _ended_from_outside(number: int, frame: FrameType | None) -> None:
    pytest.exit("ended from outside", returncode=128 + number)
