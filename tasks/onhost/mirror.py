"""Definitions of VMs, mirrored to the store: a dead host's VMs can be defined elsewhere without its disk.

MOUNT/.vmfab/definitions/UUID.json, for root only because definitions hold passwords:

    {"uuid", "name", "versions": [{"at", "host", "xml"}, ...], "undefined": {host: at}}

`versions` are inactive XML with security information, newest first, three at most; `at` is in seconds since
the epoch. A version that says the same as the newest is not added. What a host defines that does not run the
VM never comes before what the host defines that runs it, nor before something newer. `undefined` names the
hosts that have forgotten the definition since: nobody may bring the VM back for such a host, but the text
stays for the admin who did it by mistake. A definition or start there takes its name out again.

The guard's programs on the hosts contain this file (`tasks.cluster.setup.guard`): it imports nothing of
vmfab, and what is slow to load only where it is needed.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFINITIONS = "/etc/libvirt/qemu"
VERSIONS = 3


def mirror_defined(top: int, host: str, path: str, *, starting: bool = False) -> str:
    """Mirror a definition file of libvirt's; the VM's UUID, "" for what is no definition.

    `top` is the opened folder MOUNT/.vmfab. Without `starting` nothing is done while another host owns the
    VM. Raises OSError.
    """
    import time

    at = time.time()
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text, changed = file.read(), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return ""
    name, uuid = identity_of(text)
    # libvirt writes a warning above it.
    xml = text[text.find("<domain") :].strip()
    if uuid and (starting or not owned_elsewhere(top, host, uuid)):
        mirror_version(top, host, uuid, name, xml, at=at, changed=None if starting else changed)
    return uuid


def mirror_version(
    top: int, host: str, uuid: str, name: str, xml: str, *, at: float, changed: float | None = None
) -> None:
    """Mirror a text. `changed`: when it was written; left out when another host's newest version is newer."""
    with _Mirror(top) as mirror:
        after = merged(mirror.read(uuid), uuid, name, host, xml, at=at, changed=changed)
        if after is not None:
            mirror.write(uuid, after)


def mirror_undefined(top: int, host: str, uuid: str) -> None:
    """Note that a host has forgotten a definition; one that is not mirrored needs no note. Raises OSError."""
    import time

    with _Mirror(top) as mirror:
        after = marked(mirror.read(uuid), host, time.time())
        if after is not None:
            mirror.write(uuid, after)


def mirrored_by(top: int, host: str) -> set[str]:
    """UUIDs whose newest version is this host's and not marked as undefined there."""
    found = set()
    with _Mirror(top) as mirror:
        for entry in os.listdir(mirror.folder):
            uuid, dot, _ = entry.partition(".json")
            record = _record(mirror.read(uuid)) if uuid and dot else {}
            if record and record["versions"][0]["host"] == host and host not in record["undefined"]:
                found.add(uuid)
    return found


def merged(
    text: str | None, uuid: str, name: str, host: str, xml: str, *, at: float, changed: float | None = None
) -> str | None:
    """The mirror's text with a version more; None when nothing changes."""
    import json

    record = _record(text)
    versions = record.get("versions", [])
    undefined = {k: v for k, v in record.get("undefined", {}).items() if k != host}
    newest = versions[0] if versions else None
    older = newest and newest["host"] != host and changed is not None and changed < newest["at"]
    if newest and (older or same_definition(newest["xml"], xml)):
        if undefined == record["undefined"]:
            return None
    else:
        versions = [{"at": round(at, 3), "host": host, "xml": xml}, *versions][:VERSIONS]
        record["name"] = name
    record.update(uuid=uuid, versions=versions, undefined=undefined)
    return json.dumps(record) + "\n"


def marked(text: str | None, host: str, at: float) -> str | None:
    """The mirror's text with the host noted as one that has forgotten the VM; None when nothing changes."""
    import json

    record = _record(text)
    if not record or host in record["undefined"]:
        return None
    return json.dumps({**record, "undefined": {**record["undefined"], host: round(at, 3)}}) + "\n"


def _record(text: str | None) -> dict[str, Any]:
    """What is mirrored; {} for nothing, or for what is not understood and therefore of no use to anybody."""
    import json

    try:
        record = json.loads(text or "")
        if all(isinstance(v["host"] + v["xml"], str) and v["at"] >= 0 for v in record["versions"]):
            return {**record, "undefined": dict(record.get("undefined") or {})} if record["versions"] else {}
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    return {}


def same_definition(one: str, other: str) -> bool:
    """Whether two definitions say the same, however they are spelled."""
    from xml.etree import ElementTree

    if one == other:
        return True
    try:
        a, b = (ElementTree.canonicalize(xml, strip_text=True) for xml in (one, other))
    except ElementTree.ParseError:
        return False
    return a == b


def identity_of(xml: str) -> tuple[str, str]:
    """Name and UUID of a definition; both empty when it is none."""
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(xml.encode("utf-8", "surrogateescape"))
    except ElementTree.ParseError:
        return "", ""
    name, uuid = root.findtext("name") or "", (root.findtext("uuid") or "").strip().lower()
    good = root.tag == "domain" and name and uuid and uuid.replace("-", "").isalnum()
    return (name, uuid) if good else ("", "")


def owned_elsewhere(top: int, host: str, uuid: str) -> bool:
    """Whether an owner file says that another host runs the VM, or that it is on its way there."""
    import json

    try:
        owners = os.open("owners", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    except FileNotFoundError:
        return False
    try:
        for name in os.listdir(owners):
            text = _text(owners, name) or ""
            if uuid in text:
                try:
                    if json.loads(text)["host"] != host:
                        return True
                except (ValueError, TypeError, KeyError):
                    continue
    finally:
        os.close(owners)
    return False


class _Mirror:
    """The folder of definitions, with a lock held that all hosts share."""

    def __init__(self, top: int) -> None:
        self._top = top
        self.folder = self._lock = -1

    def __enter__(self) -> _Mirror:
        import fcntl

        self.folder = _made(self._top, "definitions")
        locks = _made(self._top, "locks")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._lock = os.open("definitions", flags, 0o600, dir_fd=locks)
        os.close(locks)
        # Waits; whoever called has a deadline and kills this process.
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)
        os.close(self.folder)

    def read(self, uuid: str) -> str | None:
        return _text(self.folder, f"{uuid}.json")

    def write(self, uuid: str, text: str) -> None:
        draft = f".tmp-{os.urandom(8).hex()}"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self.folder)
        try:
            with open(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            os.rename(draft, f"{uuid}.json", src_dir_fd=self.folder, dst_dir_fd=self.folder)
        except BaseException:
            os.unlink(draft, dir_fd=self.folder)
            raise
        os.fsync(self.folder)


def _made(parent: int, name: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
        os.fsync(parent)
    except FileExistsError:
        pass
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def _text(folder: int, name: str) -> str | None:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        return None
    with open(fd, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
