"""What stands in a machine's process list while something else happens."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import threading
from collections.abc import Iterator

from tasks.lab.machines.machines import Machines

LOOK = "while sleep 0.3; do cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '; done"

#: A connection over which nothing comes for so long is broken: the host's network was changed.
KEEPALIVE = ("-o", "ServerAliveInterval=3", "-o", "ServerAliveCountMax=2")


@contextlib.contextmanager
def command_lines(machines: Machines, name: str) -> Iterator[list[str]]:
    """Collect the command lines and environments on a host, seen several times a second until the end."""
    there = [*machines.ssh(name)[:-1], *KEEPALIVE, name]
    words = [*there, shlex.join(["timeout", "20", "sh", "-c", LOOK])]
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():  # again when its time is over, or its connection breaks
            looker = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            seen.append(looker.stdout.decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
