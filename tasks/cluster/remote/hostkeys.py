"""Which ssh host keys the operator trusts: reading and extending OpenSSH's known_hosts files."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from tasks.cluster.errors import HostSilent, Refused

#: Curve or algorithm by ssh's name of the key type, as ssh-keygen shows it.
_SHOWN = {
    "ssh-ed25519": (256, "ED25519"),
    "ecdsa-sha2-nistp256": (256, "ECDSA"),
    "ecdsa-sha2-nistp384": (384, "ECDSA"),
    "ecdsa-sha2-nistp521": (521, "ECDSA"),
}


class HostKeyRefused(HostSilent):
    """A machine on the way to a host shows a key that is not trusted; nothing was sent to it."""

    def __init__(self, host: str, machine: str, problem: str, hint: str) -> None:
        whose = "its ssh key" if machine == host else f"the ssh key of its jump host {machine}"
        super().__init__(host, f"{whose} {problem}", hint, alive=machine == host)
        self.machine = machine
        self.problem = problem

    def for_host(self, host: str) -> HostKeyRefused:
        """The same refusal, told about another host behind the same jump host."""
        return type(self)(host, self.machine, self.problem, self.hint)


class HostKeyUnknown(HostKeyRefused):
    """Nobody has accepted the key yet."""

    def __init__(self, host: str, machine: str, problem: str = "is not known yet", hint: str = "") -> None:
        super().__init__(host, machine, problem, f"Check and accept it: fab -H {host} host.trust")


class HostKeyChanged(HostKeyRefused):
    """It is another key than the one accepted before, or a revoked one.

    There is deliberately no flag and no task that accepts it: someone may be in between.
    """

    def __init__(self, host: str, machine: str, problem: str, hint: str) -> None:
        super().__init__(host, machine, problem, hint)
        self.message = f"DANGER: {host} was not contacted further: {self.reason}."
        self.args = (self.message,)


@dataclass(frozen=True, slots=True)
class HostKey:
    """A machine's public key: ssh's name of its type, and its wire form."""

    type: str
    blob: bytes

    @property
    def fingerprint(self) -> str:
        """SHA256:... as ssh and ssh-keygen show it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")
        return f"SHA256:{digest}"

    @property
    def kind(self) -> str:
        """ED25519, ECDSA or RSA."""
        return _SHOWN.get(self.type, (0, "RSA"))[1]

    @property
    def shown(self) -> str:
        """Bits, fingerprint and kind, as `ssh-keygen -lf` prints them (without the comment)."""
        bits = _SHOWN[self.type][0] if self.type in _SHOWN else _rsa_bits(self.blob)
        return f"{bits} {self.fingerprint} ({self.kind})"


def _rsa_bits(blob: bytes) -> int:
    """Length of the modulus, the last of the three fields of an RSA key."""
    field = b""
    while blob:
        length = int.from_bytes(blob[:4], "big")
        field, blob = blob[4 : 4 + length], blob[4 + length :]
    return int.from_bytes(field, "big").bit_length()


class Verdict(Enum):
    """What the known_hosts files say about a key that a machine shows."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a known_hosts file."""

    file: str
    number: int
    revoked: bool
    names: tuple[str, ...]
    key: HostKey

    def names_host(self, name: str) -> bool:
        """Tell whether the line is about `name` (host or [host]:port, lower case)."""
        found = False
        for pattern in self.names:
            if pattern.startswith("|1|"):
                found = found or _hash_matches(pattern, name)
            elif pattern.startswith("!"):
                if fnmatchcase(name, _glob(pattern[1:])):
                    return False
            else:
                found = found or fnmatchcase(name, _glob(pattern))
        return found


def _glob(pattern: str) -> str:
    """In known_hosts brackets are ordinary characters; only * and ? have a meaning."""
    return pattern.lower().replace("[", "[[]")


def _hash_matches(pattern: str, name: str) -> bool:
    try:
        salt, digest = (base64.b64decode(part) for part in pattern[3:].split("|"))
    except (ValueError, binascii.Error):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def hashed(name: str) -> str:
    """A host name as `HashKnownHosts yes` writes it: not readable, but recognisable."""
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()}"


def name_of(address: str, port: int) -> str:
    """How known_hosts files call a machine: the port only where it is not ssh's own."""
    address = address.lower()
    return address if port == 22 else f"[{address}]:{port}"


class KnownHosts:
    """The keys in a list of known_hosts files, as they were when it was made.

    A missing file is an empty one. Raises Refused when a file is there and cannot be read. Lines that
    name a certificate authority, and lines that are not understood, trust nothing.
    """

    def __init__(self, files: Sequence[str]) -> None:
        self._lines = tuple(line for file in files for line in _read(file))

    def about(self, name: str) -> tuple[Line, ...]:
        """The lines about a machine, revocations included, in the order of the files."""
        return tuple(line for line in self._lines if line.names_host(name))

    def types(self, name: str) -> tuple[str, ...]:
        """The types of the keys known of a machine: ask it for one of these."""
        return tuple(dict.fromkeys(line.key.type for line in self.about(name) if not line.revoked))

    def judge(self, name: str, key: HostKey) -> Verdict:
        """Compare a key that a machine shows with the known ones.

        A machine of which only keys of other types are known counts as changed, not as unknown: whoever
        sits in between could otherwise choose a type for which the operator is asked.
        """
        lines = self.about(name)
        if any(line.revoked and line.key == key for line in lines):
            return Verdict.REVOKED
        known = [line.key for line in lines if not line.revoked]
        if key in known:
            return Verdict.TRUSTED
        return Verdict.CHANGED if known else Verdict.UNKNOWN

    def check(self, host: str, machine: str, name: str, key: HostKey) -> None:
        """Raise HostKeyUnknown or HostKeyChanged unless the key is trusted.

        `host` is the vmhost being reached, `machine` the one on the way to it that shows `key`, and
        `name` what known_hosts calls that machine.
        """
        verdict = self.judge(name, key)
        if verdict is Verdict.UNKNOWN:
            raise HostKeyUnknown(host, machine)
        if verdict is Verdict.REVOKED:
            problem = f"{key.fingerprint} is marked as revoked in known_hosts"
            raise HostKeyChanged(host, machine, problem, "Find out who answers at its address.")
        if verdict is Verdict.CHANGED:
            raise HostKeyChanged(host, machine, f"has CHANGED (now {key.shown})", self._remedy(name))

    def _remedy(self, name: str) -> str:
        where = " and ".join(f"line {x.number} of {x.file}" for x in self.about(name) if not x.revoked)
        return (
            f"Someone may be in between, or it was installed anew. Compare with ssh-keygen -lf on its own"
            f" console; only then remove {where}: ssh-keygen -R '{name}'"
        )


def _read(file: str) -> Iterator[Line]:
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        hint = "Without it no host's key can be checked."
        raise Refused(f"Cannot read {file}: {error.strerror}.", hint) from None
    for number, raw in enumerate(text.splitlines(), 1):
        line = _parse(file, number, raw)
        if line is not None:
            yield line


def _parse(file: str, number: int, raw: str) -> Line | None:
    fields = raw.split()
    if not fields or fields[0].startswith("#"):
        return None
    marker = fields.pop(0) if fields[0].startswith("@") else ""
    if marker not in ("", "@revoked") or len(fields) < 3:
        return None
    names, kind, text = fields[:3]
    try:
        blob = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return Line(file, number, marker == "@revoked", tuple(names.split(",")), HostKey(kind, blob))


def append(file: str, name: str, key: HostKey) -> None:
    """Add a line to a known_hosts file, making it (0600) and its folder (0700) where needed.

    `name` is what `name_of` or `hashed` gave. Raises Refused when the file cannot be written.
    """
    line = f"{name} {key.type} {base64.b64encode(key.blob).decode()}\n"
    try:
        Path(file).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # One write in append mode: no other writer's line can land in the middle of it.
        descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = "\n" + line
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Refused(f"Cannot write {file}: {error.strerror}.") from None
