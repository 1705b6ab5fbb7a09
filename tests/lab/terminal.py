"""A command on a terminal of its own: what it shows there, and what an operator types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

#: Rows and columns.
SIZE = (24, 80)
#: Seconds after which a key is pressed again.
AGAIN = 2.0


class Terminal:
    """Runs a command; `close` ends it."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str]) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
        self._process = subprocess.Popen(
            words, stdin=theirs, stdout=theirs, stderr=theirs, env=dict(env), start_new_session=True
        )
        os.close(theirs)
        self._said = ""

    def await_words(self, words: str, seconds: float = 120.0) -> str:
        """Wait until it shows this; gives all that it showed since the words before."""
        end = time.monotonic() + seconds
        while words not in self._said:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{words!r} did not come:\n{self._said}"
            self._said += self._read()
        before, _, self._said = self._said.partition(words)
        return before + words

    def _read(self) -> str:
        try:
            return os.read(self._ours, 4096).decode(errors="replace")
        except OSError:
            raise AssertionError(f"it ended:\n{self._said}") from None

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def end(self, seconds: float = 120.0, *, pressing: str = "") -> int:
        """Wait for its end; the exit code. What it shows meanwhile is read, and dropped.

        A key can be pressed every two seconds until then, as people do: a program that changes how its
        terminal takes keys drops those that came before, and virsh says which key ends its console before
        it does that.
        """
        pressed = time.monotonic()
        deadline = pressed + seconds
        if pressing:
            self.type(pressing)
        while self._process.poll() is None and time.monotonic() < deadline:
            if pressing and time.monotonic() > pressed + AGAIN:
                self.type(pressing)
                pressed = time.monotonic()
            ready, _, _ = select.select([self._ours], [], [], 0.1)
            if ready:
                try:
                    os.read(self._ours, 4096)
                except OSError:
                    break
        return self._process.wait(max(1.0, deadline - time.monotonic()))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._ours)
