"""A virsh that answers from files, and processes that look like QEMU's in /proc."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.onhost import virsh

#: Plays one domain. Its folder holds: state (absent: libvirt does not know it), delay and calls.
SCRIPT = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >> "$here/calls"
[ -e "$here/delay" ] && sleep "$(cat "$here/delay")"
if [ -e "$here/broken" ]; then
    echo "error: Disconnected from qemu:///system due to end of file" >&2; exit 1
fi
shift 3
case $1 in
    list) [ -e "$here/state" ] && cat "$here/uuid"; exit 0;;
esac
if [ ! -e "$here/state" ]; then echo "error: failed to get domain '$2'" >&2; exit 1; fi
case $1 in
    domstate) cat "$here/state";;
    start) [ -e "$here/slow" ] && sleep "$(cat "$here/slow")"; echo "running (booted)" > "$here/state";;
    destroy) echo "shut off (destroyed)" > "$here/state";;
    undefine)
        case "$*" in
            *--keep-tpm*) echo "error: command 'undefine' doesn't support option --keep-tpm" >&2; exit 1;;
        esac
        rm "$here/state";;
esac
"""


class FakeVirsh:
    def __init__(self, folder: Path, uuid: str) -> None:
        self.folder = folder
        script = folder / "virsh"
        script.write_text(SCRIPT)
        script.chmod(0o755)
        self.put("uuid", uuid)
        self.put("state", "running (booted)")

    def put(self, name: str, text: str) -> None:
        # Renamed into place: virsh may be reading it.
        draft = self.folder / f"{name}.draft"
        draft.write_text(text + "\n")
        draft.rename(self.folder / name)

    def forget(self) -> None:
        (self.folder / "state").unlink()

    def calls(self, command: str) -> list[str]:
        lines = (self.folder / "calls").read_text().splitlines()
        return [line for line in lines if line.split()[3] == command]

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(virsh._ENV, "PATH", f"{self.folder}:/usr/bin:/bin")


def fake_qemu(
    uuid: str, name: str = "guest=web,debug-threads=on", files: tuple[Path, ...] = ()
) -> subprocess.Popen[bytes]:
    """A process whose command line is that of a guest's QEMU and that holds files open for writing."""
    code = "import sys, time; held = [open(p, 'r+b') for p in sys.argv[sys.argv.index('--') + 1:]]"
    code += "; print(flush=True); time.sleep(60)"
    process = subprocess.Popen(
        [
            *("qemu-system-x86_64", "-I", "-c", code, "-name", name, "-machine", "pc,accel=tcg"),
            *("-uuid", uuid, "--", *map(str, files)),
        ],
        executable=sys.executable,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process
