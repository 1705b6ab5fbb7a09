"""Everything that can go wrong, as one family of exceptions that the operator's surface understands."""

from __future__ import annotations


class VmfabError(Exception):
    """One sentence for the operator, what to type next, and the exit code that goes with it."""

    code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class Refused(VmfabError):
    """Nothing was changed: bad usage, or a check said no."""

    code = 2


class Failed(VmfabError):
    """Tried and failed; where things stand is known and said."""

    code = 1


class Unknown(VmfabError):
    """The outcome could not be observed; the message says what to look at."""

    code = 3


class Interrupted(VmfabError):
    """The operator stopped it."""

    code = 130


class HostSilent(VmfabError):
    """A host could not be asked: no connection, or no answer within the deadline.

    Says nothing about what runs there. As a top-level outcome it is a refusal (nothing was changed);
    code that has already acted turns it into `Unknown`.
    """

    code = 2

    def __init__(self, host: str, reason: str, hint: str = "", *, alive: bool = False) -> None:
        """`alive`: something at its address did answer, so its power is not off."""
        super().__init__(f"{host} does not answer: {reason}.", hint)
        self.host = host
        self.reason = reason
        self.alive = alive


class LinkLost(HostSilent):
    """The connection broke after a request was sent: the host may or may not have carried it out."""

    code = 3


class HostError(VmfabError):
    """A host answered that the request failed.

    `kind` is one of: no-libvirt, libvirt-silent, virsh, store, file, locked, deadline, bad-request,
    bug.
    """

    code = 1

    def __init__(self, host: str, kind: str, detail: str) -> None:
        super().__init__(f"{host}: {detail}")
        self.host = host
        self.kind = kind
        self.detail = detail
