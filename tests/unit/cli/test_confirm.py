"""Questions: who may be asked, and what counts as a yes."""

from __future__ import annotations

import io

import pytest

from tasks.cli.confirm import confirm, confirm_typed
from tasks.cluster.errors import Refused

from .streams import Terminal, captured


@pytest.mark.parametrize("answer", ["y\n", "Yes\n", " YES \n", "y"])
def test_yes_goes_on(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    output, out, _ = captured(terminal=True)
    confirm("Drain vmhost1?", False, output)
    assert out.getvalue().startswith("Drain vmhost1? [y/N] ")


@pytest.mark.parametrize("answer", ["\n", "n\n", "yep\n", "", "vmhost1\n"])
def test_everything_else_is_a_no(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    with pytest.raises(Refused, match="Nothing was changed"):
        confirm("Drain vmhost1?", False, captured(terminal=True)[0])


@pytest.mark.parametrize("stdin", [None, io.StringIO("y\n")])
def test_without_a_terminal_only_yes_goes_on(
    stdin: io.StringIO | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    output, out, _ = captured()
    with pytest.raises(Refused, match="--yes"):
        confirm("Drain vmhost1?", False, output)
    confirm("Drain vmhost1?", True, output)
    assert out.getvalue() == ""


def test_question_goes_to_the_terminal_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    output, out, err = captured()
    confirm("Go?", False, output)
    assert out.getvalue() == ""
    assert "Go?" in err.getvalue()


def test_a_word_has_to_be_typed_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("vmhost1\n"))
    confirm_typed("vmhost1 is dead.", "vmhost1", captured(terminal=True)[0])
    for answer in ("vmhost\n", "yes\n", ""):
        monkeypatch.setattr("sys.stdin", Terminal(answer))
        with pytest.raises(Refused):
            confirm_typed("vmhost1 is dead.", "vmhost1", captured(terminal=True)[0])
    monkeypatch.setattr("sys.stdin", io.StringIO("vmhost1\n"))
    with pytest.raises(Refused, match="There is no terminal") as refused:
        confirm_typed("vmhost1 is dead.", "vmhost1", captured()[0])
    assert refused.value.hint == "Add --confirm vmhost1."


def test_a_word_may_be_given_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    confirm_typed("vmhost1 is dead.", "vmhost1", captured()[0], given="vmhost1")
    with pytest.raises(Refused, match="--confirm says vmhost2"):
        confirm_typed("vmhost1 is dead.", "vmhost1", captured()[0], given="vmhost2")
