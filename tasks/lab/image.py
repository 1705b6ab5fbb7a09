"""The layout of a practice guest's disk, and an empty one of it (files/guest-init writes the rest)."""

from __future__ import annotations

import os
from pathlib import Path

RECORD = 64  # bytes per line
BOOTS_AT = 4096
BOOTS = 960
PAGES_AT = 65536
PAGES = 256
PAGE = 4096
RING_AT = 2 * 1024 * 1024
RING = 4096
END = RING_AT + RING * RECORD
MAGIC = b"vmfab practice guest\n"


def create(path: Path, mib: int = 8) -> None:
    """Write an empty guest disk of `mib` MiB; raises FileExistsError.

    The space is allocated, so that a full store never stops a guest's writes.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.posix_fallocate(fd, 0, mib * 1024 * 1024)
        os.pwrite(fd, MAGIC, 0)
    finally:
        os.close(fd)
