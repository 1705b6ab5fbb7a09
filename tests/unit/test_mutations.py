"""The mutation check itself: its breakages fit the source, and it tells a caught one from a survivor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.mutations.breakage import Breakage, NotApplicable, unfit
from tests.mutations.breakages import ALL
from tests.mutations.workbench import PROJECT, Workbench

CHEAP = next(one for one in ALL if one.name == "host-tells-only-running")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(tmp_path_factory.mktemp("mutations"))


def test_every_breakage_fits_the_source() -> None:
    assert not list(unfit(ALL, PROJECT))
    assert len({one.name for one in ALL}) == len(ALL)
    assert f"`--list` shows all {len(ALL)} " in (PROJECT / "README.md").read_text(encoding="utf-8")


def test_a_breakage_is_caught_and_mended(bench: Workbench) -> None:
    before = (bench.root / CHEAP.file).read_text(encoding="utf-8")
    verdict = bench.judge(CHEAP)
    assert verdict.caught_by.startswith("tests/unit/onhost/test_onhost_domains.py::test_"), verdict.problem
    assert (bench.root / CHEAP.file).read_text(encoding="utf-8") == before


def test_what_nobody_notices_survives(bench: Workbench) -> None:
    verdict = bench.judge(replace(CHEAP, tests=("tests/unit/test_crontab.py",)))
    assert (verdict.caught_by, verdict.problem) == ("", "")


def test_a_test_that_fails_anyway_catches_nothing(bench: Workbench) -> None:
    bad = bench.root / "tests/unit/test_bad.py"
    bad.write_text("def test_bad() -> None:\n    raise AssertionError\n", encoding="utf-8")
    verdict = bench.judge(replace(CHEAP, tests=("tests/unit/test_bad.py",)))
    assert verdict.caught_by == ""
    assert verdict.problem == "fails without the breakage, too: tests/unit/test_bad.py::test_bad"


def test_tests_that_cannot_run_catch_nothing(bench: Workbench) -> None:
    verdict = bench.judge(replace(CHEAP, tests=("tests/unit/test_none.py",)))
    assert verdict.caught_by == ""
    assert verdict.problem.startswith("the tests could not be run:")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("two\n", "has this 2 times"), ("three\n", "has this 0 times")],
)
def test_a_text_that_is_not_there_once_does_not_fit(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "file").write_text("one\ntwo\ntwo\n", encoding="utf-8")
    with pytest.raises(NotApplicable, match=problem):
        Breakage("x", "y", "file", ((text, ""),), ()).broken(tmp_path)
    with pytest.raises(NotApplicable, match="gone is not there"):
        Breakage("x", "y", "gone", ((text, ""),), ()).broken(tmp_path)
