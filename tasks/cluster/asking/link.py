"""What the domain needs from a connection to a host; `remote` fulfils it with ssh, the simulation without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from tasks.cluster.model import Host

Progress = Callable[[Mapping[str, Any]], None]


class Link(Protocol):
    """One open connection to one host. Safe to use from several threads."""

    @property
    def host(self) -> str: ...

    def call(
        self, op: str, args: Mapping[str, Any], *, deadline: float, progress: Progress | None = None
    ) -> Mapping[str, Any]:
        """Ask the host's agent for `op` and wait at most `deadline` seconds for its reply.

        Raises HostError when the host answered that it failed, LinkLost when no answer came: then the
        request may or may not have been carried out, and the caller has to observe.
        """
        ...

    def close(self) -> None:
        """Close the connection; the agent on the host ends and gives its locks back."""
        ...


#: Opens a link within the given seconds, or raises HostSilent with the reason.
Connector = Callable[[Host, float], Link]
