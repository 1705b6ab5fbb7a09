"""/etc/fstab, edited as text: one line for a mount point, all else stays byte for byte. Pure."""

from __future__ import annotations

import re

PATH = "/etc/fstab"
#: No nofail: without it remote-fs.target, and with it libvirtd and cron, come after the mount was tried.
OPTIONS = "_netdev,noatime,x-systemd.requires=o2cb.service"


def line_for(label: str, mount: str) -> str:
    """The line that mounts a store."""
    return f"LABEL={label} {mount} ocfs2 {OPTIONS} 0 0"


def with_mount(text: str, mount: str, line: str) -> str:
    """Have this line, and no other, for a mount point. The first one is replaced in its place, more go."""
    kept: list[str] = []
    done = False
    for present in _lines(text):
        if _mount_point(present) != mount:
            kept.append(present)
        elif not done:
            same = present.split() == line.split()
            kept.append(present if same and present.endswith("\n") else f"{line}\n")
            done = True
    if not done:
        if kept and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        kept.append(f"{line}\n")
    return "".join(kept)


def mounted_at_boot(text: str) -> dict[str, str]:
    """File system types by mount point, of what is mounted at boot."""
    found = {}
    for line in _lines(text):
        mount = _mount_point(line)
        words = line.split()
        if mount is not None and len(words) > 2 and "noauto" not in "".join(words[3:4]).split(","):
            found[mount] = words[2]
    return found


def unescaped(path: str) -> str:
    """A path as it is, of how the kernel and fstab write it: with blanks and the like in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), path)


def _mount_point(line: str) -> str | None:
    words = line.split()
    if len(words) < 2 or words[0].startswith("#"):
        return None
    path = unescaped(words[1])
    return path.rstrip("/") or path


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
