"""The guard's tender on a simulated host: its rendered text, one pass after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cluster.setup.templates import render
from tests.sim import hooks, process

if TYPE_CHECKING:
    from tests.sim.host import SimHost

_TEXT = render("vmfab-tend.py.j2", hook=hooks.FILE)


class Tender:
    """One run of the tender, from one boot of its host to the next."""

    def __init__(self, host: SimHost) -> None:
        self._host = host
        self._boot = host.boot_id
        self._seen: object = None
        self._process = process.Process(host, ["vmfab-tend"], "")
        self._tender: Any = None

    @property
    def over(self) -> bool:
        return not self._host.powered or self._host.boot_id != self._boot

    def tick(self) -> None:
        """One pass, unless there is nothing to do that was not there at the last one."""
        if not self._due():
            return
        try:
            if self._tender is None:
                scope = self._process.scope(_TEXT)
                scope["hook"].ask = self._process.in_halves(scope["hook"].ask)
                self._tender = scope["Tender"]()
            self._tender.tick()
        except process.PowerLost:
            pass
        finally:
            self._process.end()

    def _due(self) -> bool:
        host = self._host
        if hooks.FILE not in host.disk.files or host.view.hanging or not host.view.mounted:
            return False
        store = host.view.store
        moving = any(path.startswith("owners/") and '"to": ' in text for path, text in store.files.items())
        left = any(path.startswith("/run/vmfab/left/") for path in host.own_files)
        guests = [(g.number, g.state, g.listed) for g in host.guests]
        seen = (guests, [(d.uuid, d.xml) for d in host.definitions.values()])
        due = moving or left or seen != self._seen
        self._seen = seen
        return due
