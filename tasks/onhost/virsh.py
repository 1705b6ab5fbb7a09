"""Run virsh, several commands in one process where possible, and understand what it prints.

Everything that is parsed was recorded from virsh; text that is not understood raises, it is never "nothing".
"""

from __future__ import annotations

import os
import re

from . import children
from .problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

#: Seconds after which a libvirtd that has not answered a read counts as silent.
READ = 4.0
OFF = "shut off"

_ENV = {
    "LC_ALL": "C",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin",
    "HOME": "/root",
}
_NO_CONNECTION = (
    "failed to connect to the hypervisor",
    "Disconnected from qemu",
    "client socket is closed",
    "Cannot recv data",
    "Cannot write data",
    "End of file while reading data",
    "End of file from",
    "connection to the hypervisor",
    "internal error: client",
)
_GONE = re.compile(r"failed to get domain|Domain not found|no domain with matching")
_UUID_LINE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def run(
    *argv: str,
    timeout: float = READ,
    stdin: str | None = None,
    change: bool = False,
    keep: Sequence[int] = (),
) -> str:
    """Standard output of one virsh. `change`: it survives the agent, with the descriptors `keep` open.

    Raises Problem no-libvirt, libvirt-silent, or virsh (it said no; its own words).
    """
    rc, out, err = _virsh(argv, timeout, stdin, change, keep)
    if rc != 0:
        raise refusal(err, rc)
    return out


def script(commands: Sequence[str], *, timeout: float = READ) -> tuple[list[str], str, int]:
    """Outputs of several commands run by one virsh, what it wrote to standard error, and the last one's rc.

    virsh goes on after a command that fails: its output is then empty, and the caller has to notice. Only
    of the last command the rc tells "nothing" from "failed".
    Commands hold no quotes or semicolons; domains are named by UUID only.
    """
    mark = f"==={os.urandom(12).hex()}==="
    text = "".join(f"echo {mark}; {command}; " for command in commands)
    rc, out, err = _virsh((text,), timeout, None, False, ())
    parts = sections(out, mark)
    if len(parts) != len(commands):
        raise refusal(err or f"virsh answered {len(parts)} of {len(commands)} commands", rc)
    if _lost(err):
        raise refusal(err, rc)
    return parts, err, rc


def _virsh(
    argv: Sequence[str], timeout: float, stdin: str | None, change: bool, keep: Sequence[int]
) -> tuple[int, str, str]:
    try:
        return children.run(
            ("virsh", "-q", "-c", "qemu:///system", *argv),
            timeout=timeout,
            stdin=stdin,
            env=_ENV,
            survives=change,
            keep=keep,
        )
    except FileNotFoundError:
        raise Problem("no-libvirt", "virsh is not installed") from None
    except Problem as problem:
        if problem.kind == "deadline":
            given = timeout if change else children.extended(timeout)
            raise Problem("libvirt-silent", f"libvirtd does not answer within {given:.1f} s") from None
        raise


def _lost(err: str) -> bool:
    return any(words in err for words in _NO_CONNECTION)


def refusal(err: str, rc: int) -> Problem:
    said = ": ".join(line.replace("error: ", "", 1).strip() for line in err.splitlines() if line.strip())
    if _lost(err):
        return Problem("libvirt-silent", f"libvirtd does not answer: {said}")
    return Problem("virsh", said or f"virsh ended with {rc}", rc)


def gone(text: str) -> bool:
    """Whether virsh complains about nothing but domains that do not exist."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(_GONE.search(line) for line in lines)


def sections(out: str, mark: str) -> list[str]:
    """Outputs of the commands of a `script`: each follows a mark (quiet virsh adds no line end to it)."""
    before, *parts = out.split(mark)
    if before.strip():
        raise Problem("bug", "virsh printed more than it was asked for")
    return [part[1:] if part.startswith("\n") else part for part in parts]


def uuids(text: str) -> list[str]:
    """From `list --uuid`."""
    found = [line for line in text.splitlines() if line]
    for line in found:
        if not _UUID_LINE.fullmatch(line):
            raise Problem("bug", f"virsh lists a UUID as {line!r}")
    return found


def names(text: str) -> list[str]:
    """From `list --name` and `net-list --name`: one a line, with whatever blanks belong to them."""
    return [line for line in text.split("\n") if line]


def state(text: str) -> tuple[str, str]:
    """(state, reason) from `domstate --reason`; words that are not known stay as they are."""
    line = text.strip("\n")
    if not line or "\n" in line:
        raise Problem("bug", f"virsh prints a state as {text!r}")
    match = re.fullmatch(r"(.+?) \((.*)\)", line)
    return (match.group(1), match.group(2)) if match else (line, "")


def daemon_version(text: str) -> str:
    """Of libvirtd, from `version --daemon`."""
    match = re.search(r"^Running against daemon: (\S+)$", text, re.MULTILINE)
    if not match:
        raise Problem("bug", f"virsh prints versions as {text!r}")
    return match.group(1)


def info(text: str) -> dict[str, Any]:
    """The parts of `dominfo` that a domain's facts need: name, uuid, memory_kib, vcpus and flags."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        key, colon, _ = line.partition(":")
        # Values stand in column 16, so that a name keeps its own blanks and colons.
        if colon and not line.startswith(" "):
            fields.setdefault(key, line[16:])
    try:
        memory, unit = fields["Max memory"].split()
        if unit != "KiB":
            raise ValueError(f"memory in {unit}")
        return {
            "uuid": fields["UUID"],
            "name": fields["Name"],
            "memory_kib": int(memory),
            "vcpus": int(fields["CPU(s)"]),
            "persistent": _choice(fields["Persistent"], "yes", "no"),
            "autostart": _choice(fields["Autostart"], "enable", "disable"),
            "managed_save": _choice(fields["Managed save"], "yes", "no"),
        }
    except (KeyError, ValueError) as error:
        raise Problem("bug", f"virsh prints a domain's facts as {text!r} ({error})") from None


def _choice(value: str, yes: str, no: str) -> bool:
    if value not in (yes, no):
        raise ValueError(f"{value!r} is neither {yes} nor {no}")
    return value == yes


def machines(text: str) -> list[str]:
    """Machine types that this host's QEMU offers, as "arch/machine", from `capabilities`."""
    import xml.etree.ElementTree as ElementTree

    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise Problem("bug", f"virsh prints capabilities that are not XML ({error})") from None
    found = set()
    for arch in root.iterfind("./guest/arch"):
        for machine in arch.iter("machine"):
            found.add(f"{arch.get('name')}/{machine.text}")
            if machine.get("canonical"):
                found.add(f"{arch.get('name')}/{machine.get('canonical')}")
    return sorted(found)
