"""Lines, tables and JSON: where they go, and what happens when nobody reads them."""

from __future__ import annotations

import errno
import io
import json
import re

import pytest

from tasks.cli.output import Output, Stream
from tasks.cli.text import Table

from .streams import captured

TABLE = Table(("VM", "host"), [("[red]web", "vmhost1"), ("a" * 100, "vmhost2")], styles=("bold red",))


def test_messages_go_to_standard_output() -> None:
    output, out, err = captured()
    output.say("moved")
    output.error("fab: no")
    assert (out.getvalue(), err.getvalue()) == ("moved\n", "fab: no\n")


def test_with_json_only_the_document_is_on_standard_output() -> None:
    output, out, err = captured(json=True)
    output.say("moved")
    output.table(TABLE)
    output.document({"vm": "größe\u202e"})
    assert json.loads(out.getvalue()) == {"vm": "größe\u202e"}
    assert out.getvalue().isascii()
    assert "moved" in err.getvalue()
    assert "[red]web" in err.getvalue()


def test_a_pipe_gets_no_control_characters_and_whole_names() -> None:
    output, out, _ = captured()
    output.warn("careful \x1b[2J")
    output.table(TABLE)
    assert "\x1b" not in out.getvalue()
    assert "a" * 100 in out.getvalue()


def test_a_terminal_gets_colour_unless_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    output, out, _ = captured(terminal=True)
    output.warn("careful")
    output.table(TABLE)
    assert "\x1b[1;31mcareful" in out.getvalue()
    assert "[red]web" in out.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    output, out, _ = captured(terminal=True)
    output.warn("careful")
    assert out.getvalue() == "careful\n"


def test_a_table_on_a_terminal_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    output, out, _ = captured(terminal=True)
    output.table(Table(("VM", "host"), [("a" * 100, "vmhost2")], fixed=frozenset({"host"})))
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert max(map(len, text.split("\n"))) <= 80
    assert text.count("a") == 100
    assert "vmhost2" in text


class Broken(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "no")


@pytest.mark.parametrize(("number", "broken"), [(errno.EPIPE, True), (errno.ENOSPC, False)])
def test_work_goes_on_when_nobody_reads(number: int, broken: bool) -> None:
    output = Output(Stream(Broken(number)), Stream(io.StringIO()))
    output.say("one")
    output.say("two")
    assert output.out.lost is not None
    assert output.out.broken is broken


def test_messages_can_be_shown_elsewhere_for_a_while() -> None:
    output, out, _ = captured()
    seen: list[tuple[str, str]] = []
    with output.through(lambda text, style: seen.append((text, style))):
        output.say("above")
    output.say("below")
    assert seen == [("above", "")]
    assert out.getvalue() == "below\n"
