"""A package archive of a few hundred files, for machines that have no way out.

The packages are unpacked and put together again without compression: under software emulation a host would
spend more time on decompressing than on all else. So their checksums are new, and the archive is trusted
because it is the lab's own.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

MAGIC = b"!<arch>\n"
HEADER = 60


def make(debs: list[Path], folder: Path) -> None:
    """Write the packages and the lists that apt reads into a new folder."""
    folder.mkdir()
    stanzas = []
    for deb in sorted(debs):
        data = plain(deb.read_bytes())
        # Names with a colon of an epoch are escaped in apt's cache; here the name only has to be unique.
        name = deb.name.replace("%3a", "-")
        (folder / name).write_bytes(data)
        control = control_of(data).rstrip("\n")
        sum_ = hashlib.sha256(data).hexdigest()
        stanzas.append(f"{control}\nFilename: ./{name}\nSize: {len(data)}\nSHA256: {sum_}\n")
    packages = "\n".join(stanzas).encode()
    (folder / "Packages").write_bytes(packages)
    listed = f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    date = formatdate(usegmt=True)
    (folder / "Release").write_text(f"Date: {date}\n{listed}", encoding="ascii")


def members(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Give the parts of an ar file, as a .deb is one; raises ValueError."""
    if not data.startswith(MAGIC):
        raise ValueError("not a Debian package")
    at = len(MAGIC)
    while at < len(data):
        head = data[at : at + HEADER]
        size = int(head[48:58])
        at += HEADER
        yield head[:16].decode("ascii").strip().rstrip("/"), data[at : at + size]
        at += size + size % 2


def plain(deb: bytes) -> bytes:
    """Return a package with the same content and no compression."""
    out = [MAGIC]
    for name, content in members(deb):
        base, _, how = name.rpartition(".")
        if base.endswith(".tar"):
            name, content = base, _expand(content, how)
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
        out += [head.encode("ascii"), content, b"\n" * (len(content) % 2)]
    return b"".join(out)


def _expand(content: bytes, how: str) -> bytes:
    if how == "xz":
        return lzma.decompress(content)
    if how == "gz":
        return zlib.decompress(content, 31)
    if how == "zst":
        return subprocess.run(["zstd", "-dc"], input=content, capture_output=True, check=True).stdout
    raise ValueError(f"compression unknown: {how}")


def control_of(deb: bytes) -> str:
    """Return the control file of a package made by `plain`."""
    control = dict(members(deb))["control.tar"]
    with tarfile.open(fileobj=io.BytesIO(control)) as tar:
        for name in ("./control", "control"):
            if name in tar.getnames():
                file = tar.extractfile(name)
                if file:
                    return file.read().decode("utf-8")
    raise ValueError("a package without control file")
