"""What the operator sees: lines, tables and JSON, on a terminal and in a pipe.

Nothing is imported from rich before a table is drawn on a terminal: `fab --list` must not pay for it.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from tasks.cli.commandline import as_typed_here
from tasks.cli.text import Table, block, plain


class Stream:
    """Standard output or standard error, which may go away while work is under way.

    A reader that ends early (`| head`) or a full disk must not stop a move half-way: from then on what is
    written is dropped, and `lost` says why. An early end of the reader is not a fault (`broken`).
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        # rich asks for encoding, fileno ...
        return getattr(self._stream, name)

    @property
    def broken(self) -> bool:
        """Whether the reader went away."""
        return isinstance(self.lost, BrokenPipeError)

    def write(self, text: str) -> int:
        if self.lost is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._drop(error)
        return len(text)

    def flush(self) -> None:
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._drop(error)

    def isatty(self) -> bool:
        return self.lost is None and self._stream.isatty()

    def _drop(self, error: OSError) -> None:
        self.lost = error
        try:
            # Python flushes what is buffered once more at its end, and would complain.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
        except (OSError, ValueError):
            return


class Output:
    """Where a task writes. With `json`, standard output carries nothing but the one document."""

    def __init__(self, out: Stream, err: Stream, *, json: bool = False) -> None:
        self.json = json
        self.out = out
        self.err = err
        self._elsewhere: Callable[[str, str], None] | None = None

    @classmethod
    def of_process(cls) -> Output:
        """Standard output and standard error; one that is closed swallows what is written."""
        return cls(Stream(sys.stdout or io.StringIO()), Stream(sys.stderr or io.StringIO()))

    def with_json(self, json: bool) -> Output:
        """The same streams, used as --json wants it."""
        return Output(self.out, self.err, json=json)

    @property
    def main(self) -> Stream:
        """Where messages and tables go."""
        return self.err if self.json else self.out

    @property
    def live(self) -> bool:
        """Whether messages go to a terminal that can redraw lines."""
        return self.main.isatty() and os.environ.get("TERM", "") not in ("", "dumb")

    @property
    def colour(self) -> bool:
        return self.live and not os.environ.get("NO_COLOR")

    @contextmanager
    def through(self, show: Callable[[str, str], None]) -> Iterator[None]:
        """Hand messages (text, style) to `show` instead of writing them, while live lines are drawn."""
        self._elsewhere = show
        try:
            yield
        finally:
            self._elsewhere = None

    def say(self, text: str = "", style: str = "", *, as_is: bool = False) -> None:
        """A line (or several) for the operator: what was seen, was done, or is to be typed next.

        Commands in it are written `fab ...` and shown as they have to be typed here; `as_is` leaves them,
        for the contents of files.
        """
        text = block(text if as_is else as_typed_here(text))
        if self._elsewhere is not None:
            self._elsewhere(text, style)
        else:
            self._write(self.main, text, style)

    def warn(self, text: str) -> None:
        """Something that is not as it should be; goes with the report it belongs to."""
        self.say(text, "bold red")

    def error(self, text: str) -> None:
        """The reason why the command ends, on standard error; what it advises can be typed as it stands."""
        self.out.flush()
        self._write(self.err, block(as_typed_here(text)), "")

    def document(self, value: Any) -> None:
        """Print the JSON document of `--json`."""
        self.out.write(json.dumps(value, ensure_ascii=True, indent=2) + "\n")
        self.out.flush()

    def table(self, table: Table) -> None:
        """A table: with rules and colour on a terminal, else aligned plain lines that are never wrapped."""
        if self.live:
            from tasks.cli import richtable

            richtable.draw(table, self.console())
        else:
            self._write(self.main, plain(table), "")

    def console(self) -> Any:
        """A rich console (rich.console.Console) on the stream for messages; for tables and progress."""
        from rich.console import Console

        return Console(
            file=self.main,  # type: ignore[arg-type]
            no_color=not self.colour,
            highlight=False,
            markup=False,
            emoji=False,
            soft_wrap=not self.live,
        )

    def _write(self, stream: Stream, text: str, style: str) -> None:
        codes = {"bold red": "\033[1;31m", "bold": "\033[1m", "green": "\033[32m", "dim": "\033[2m"}
        if style in codes and self.colour:
            text = f"{codes[style]}{text}\033[0m"
        stream.write(text + "\n")
        stream.flush()
