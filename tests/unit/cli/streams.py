"""Streams for the tests of the operator's surface."""

from __future__ import annotations

import io

from tasks.cli.output import Output, Stream


class Terminal(io.StringIO):
    """Text that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def captured(*, json: bool = False, terminal: bool = False) -> tuple[Output, io.StringIO, io.StringIO]:
    """An Output, and what it wrote to standard output and standard error."""
    kind = Terminal if terminal else io.StringIO
    out, err = kind(), kind()
    return Output(Stream(out), Stream(err), json=json), out, err
