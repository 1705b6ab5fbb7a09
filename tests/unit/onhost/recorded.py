"""What virsh really printed (libvirt 9.0, Debian 12), kept as files."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[2] / "data" / "virsh"


def recorded(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")
