"""libvirt's hook on a simulated host: the file that is installed there, called when libvirt calls it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sim import process
from tests.sim.domains import Definition
from tests.sim.errors import VirshError

if TYPE_CHECKING:
    from tests.sim.host import SimHost

FILE = "/etc/libvirt/hooks/qemu"
#: the second word of each call
_WHEN = {"release": "end", "stopped": "end"}


class Hook:
    """The hook of one host. libvirtd looks for it only when it starts, and calls what lies there then."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self.known = False
        #: libvirtd's thread that calls it: one thread serves one request
        self.thread = 1401

    def look(self) -> None:
        """libvirtd starts: is there one? It is told of every VM that runs."""
        self.known = FILE in self._host.disk.files
        for guest in list(self._host.guests):
            if guest.listed:
                self._call("reconnect", guest.live)

    def prepare(self, definition: Definition, failed: str) -> None:
        """Raise VirshError when the hook refuses the start, in libvirt's words."""
        said = self._call("prepare", definition)
        if said is not None:
            self.release(definition)
            raise VirshError(
                f"{failed}Hook script execution failed: internal error: Child process (LC_ALL=C "
                f"PATH=/usr/bin:/bin {FILE} {definition.name} prepare begin -) unexpected exit status 1: "
                f"{said}"
            )

    def arrives(self, definition: Definition, failed: str) -> None:
        """libvirt announces a VM that is migrated here, and prepares it. Raises VirshError."""
        said = self._call("migrate", definition)
        if said is None:
            said = self._call("prepare", definition, same_thread=True)
        if said is not None:
            self.release(definition)
            raise VirshError(f"{failed}Hook script execution failed: {said}")

    def started(self, definition: Definition) -> None:
        self._call("started", definition)

    def release(self, definition: Definition) -> None:
        self._call("release", definition)

    def _call(self, operation: str, definition: Definition, *, same_thread: bool = False) -> str | None:
        """Call it; what it said if it failed, else None."""
        self.thread += not same_thread
        if not self.known or not self._host.powered or FILE not in self._host.disk.files:
            return None
        text, _ = self._host.disk.files[FILE]
        argv = [FILE, definition.name, operation, _WHEN.get(operation, "begin"), "-"]
        ended = process.run(self._host, text, argv, definition.xml)
        return ended.err if ended.rc else None
