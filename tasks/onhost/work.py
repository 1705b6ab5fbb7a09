"""Long work: a program that is not cut off when the laptop is gone, and tells what it is at meanwhile."""

from __future__ import annotations

import os
import subprocess
import time

from .problem import Problem, bad

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

#: Bytes of what the program printed that are sent back.
_KEPT = 32768
#: Where the programs of packages and system are; a login over ssh may lack the half of it.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def run(
    argv: Sequence[str],
    timeout: float,
    log: str,
    env: Mapping[str, str],
    event: Callable[[dict[str, Any]], object],
) -> dict[str, Any]:
    """Run a program to its end, with both outputs appended to `log`: its exit code and the end of them.

    Neither the end of the agent nor the time-out (seconds) kills it: a package manager that is killed leaves
    half a package. Raises Problem "deadline" when it still runs then, and for one that cannot be run.
    """
    os.makedirs(os.path.dirname(log), exist_ok=True)
    fd = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        start = os.lseek(fd, 0, os.SEEK_END)
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=fd,
            stderr=fd,
            cwd="/",
            env={**os.environ, "PATH": _PATH, "LC_ALL": "C", **env},
            start_new_session=True,
        )
        begun = time.monotonic()
        while True:
            waited = time.monotonic() - begun
            try:
                rc = process.wait(min(1.0, max(0.01, timeout - waited)))
                return {"rc": rc, "out": _end(fd, start)}
            except subprocess.TimeoutExpired:
                waited = time.monotonic() - begun
            if waited >= timeout:
                what = f"{argv[0]} still runs after {timeout:g} s and goes on; it writes to {log}"
                raise Problem("deadline", what)
            event({"waited": round(waited, 1), "line": _last_line(_end(fd, start))})
    except (FileNotFoundError, PermissionError) as error:
        raise bad(f"{argv[0]}: {error.strerror}") from None
    finally:
        os.close(fd)


def _end(fd: int, start: int) -> str:
    """The end of what was written from byte `start` on."""
    size = os.fstat(fd).st_size
    begin = max(start, size - _KEPT)
    return os.pread(fd, size - begin, begin).decode("utf-8", "replace")


def _last_line(text: str) -> str:
    """What a terminal would show in its last line; progress bars go back to the line's beginning."""
    lines = [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]
    return lines[-1] if lines else ""
