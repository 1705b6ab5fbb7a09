"""The one exception of the agent, and checks of arguments that raise it."""

from __future__ import annotations

import re

TYPE_CHECKING = False  # the typing module is too slow to load on a host
if TYPE_CHECKING:
    from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Problem(Exception):
    """Something to be told to the laptop.

    `kind` is one of: no-libvirt, libvirt-silent, virsh, store, file, locked, deadline, bad-request, bug.
    """

    def __init__(self, kind: str, message: str, rc: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.rc = rc

    def wire(self) -> dict[str, Any]:
        said: dict[str, Any] = {"kind": self.kind, "message": self.message}
        if self.rc is not None:
            said["rc"] = self.rc
        return said


def bad(message: str) -> Problem:
    return Problem("bad-request", message)


def uuid_of(args: dict[str, Any]) -> str:
    """The argument `uuid`, in libvirt's spelling: domains are addressed by nothing else."""
    value = args.get("uuid")
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise bad(f"uuid is {value!r}")
    return value


def text_of(args: dict[str, Any], key: str) -> str:
    value = args.get(key)
    if not isinstance(value, str):
        raise bad(f"{key} is {value!r}, not a text")
    return value


def flag_of(args: dict[str, Any], key: str) -> bool:
    value = args.get(key)
    if not isinstance(value, bool):
        raise bad(f"{key} is {value!r}, not true or false")
    return value


def seconds_of(args: dict[str, Any], key: str) -> float:
    value = args.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
        raise bad(f"{key} is {value!r}, not a number of seconds")
    return float(value)


def texts_of(args: dict[str, Any], key: str) -> list[str]:
    value = args.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise bad(f"{key} is {value!r}, not a list of texts")
    return value


def absolute_of(args: dict[str, Any], key: str, default: str | None = None) -> str:
    """An absolute path, without trailing slashes."""
    value = args.get(key, default)
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise bad(f"{key} is {value!r}, not an absolute path")
    return value.rstrip("/") or "/"
