"""How a simulated host says no."""

from __future__ import annotations


class AgentError(Exception):
    """The agent's answer to a request that failed; `kind` as in tasks.cluster.errors.HostError."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message


class VirshError(AgentError):
    """What virsh says when libvirt refuses; the agent makes one line of it."""

    def __init__(self, message: str) -> None:
        super().__init__("virsh", " ".join(message.split("\n")))


class NoSuchDomain(VirshError):
    """There is no domain of this UUID or name here."""

    def __init__(self, name: str) -> None:
        super().__init__(f"failed to get domain '{name}'")
