"""What a host answers about its own files and the programs run on it, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HostFile:
    """A file on a host's own disk. `text` and `sha256` are None when there is none, and `mode` is 0 then."""

    path: str
    text: str | None
    mode: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that has ended on a host: its exit code, standard output and standard error."""

    rc: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What it complained about, in one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return "; ".join(lines) or f"it ended with {self.rc}"
