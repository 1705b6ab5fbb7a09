"""Who is doing what: the identity that locks, cordons and journals carry."""

from __future__ import annotations

import getpass
import secrets
import socket
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Operation:
    """One command of one operator. `id` names its journal; `at` is seconds since the epoch."""

    id: str
    command: str
    by: str
    at: float

    def holder(self) -> dict[str, str | float]:
        """What a lock that this operation holds tells others."""
        return {"operation": self.id, "command": self.command, "by": self.by, "at": self.at}


def begin(command: str, *, at: float) -> Operation:
    """A new operation of the person at this laptop."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    return Operation(f"{stamp}-{secrets.token_hex(3)}", command, f"{_user()}@{socket.gethostname()}", at)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
