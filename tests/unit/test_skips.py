"""Where CI is set, every kind of skip is a failure (tests/conftest.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

SOME_SKIPS = """
import pytest

@pytest.mark.skip(reason="marked")
def test_marked(): pass

def test_called(): pytest.skip("called")

@pytest.fixture
def thing(): pytest.skip("in a fixture")

def test_fixture(thing): pass

@pytest.mark.xfail(strict=True)
def test_expected_to_fail(): assert False

def test_good(): pass
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeconftest((Path(__file__).parents[1] / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(
        test_some=SOME_SKIPS, test_whole="import pytest\npytest.importorskip('no_such_module')"
    )
    return pytester


@pytest.mark.parametrize("words", [(), ("-n", "2")], ids=["one process", "two"])
def test_skips_fail_in_ci(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    result = project.runpytest("--continue-on-collection-errors", *words)
    result.assert_outcomes(passed=1, failed=1, errors=3, xfailed=1)
    result.stdout.fnmatch_lines(["*nothing may be skipped (CI is set)*called*"])


def test_skips_are_skips_elsewhere(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    project.runpytest().assert_outcomes(passed=1, skipped=4, xfailed=1)
