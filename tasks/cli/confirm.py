"""Asking before something is changed."""

from __future__ import annotations

import sys

from tasks.cli.output import Output
from tasks.cli.text import clean
from tasks.cluster.errors import Refused


def _answer(question: str, choices: str, output: Output) -> str:
    """The line typed after a question; "" at the end of the input. Raises Refused without a terminal."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise Refused(
            f"There is no terminal to ask on: {clean(question)}", "Add --yes to go on without a question."
        )
    stream = output.main if output.main.isatty() else output.err
    stream.write(f"{clean(question)} {choices} ")
    stream.flush()
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        stream.write("\n")
    return line.strip()


def confirm(question: str, yes: bool, output: Output) -> None:
    """Go on only after "y" or "yes"; anything else, and the end of the input, is a no.

    Raises Refused on a no, and when there is nobody to ask and `yes` is not given.
    """
    if yes:
        return
    if _answer(question, "[y/N]", output).lower() not in ("y", "yes"):
        raise Refused("Nothing was changed.")


def confirm_typed(question: str, word: str, output: Output, *, given: str = "") -> None:
    """Go on only when `word` (the name of a host, say) is typed in full; there is no --yes for this.

    `given` is what was typed on the command line instead, after --confirm. Raises Refused on anything else,
    and without a terminal.
    """
    if given:
        if given != word:
            raise Refused(f"--confirm says {clean(given)}, but this is about {word}.", "Nothing was changed.")
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise Refused(f"There is no terminal to ask on: {clean(question)}", f"Add --confirm {clean(word)}.")
    if _answer(question, clean(f"Type {word} to go on:"), output) != word:
        raise Refused("Nothing was changed.")
