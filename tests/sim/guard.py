"""The guard on simulated hosts: the real hook and tender, and a model of its service (lock and beat)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.sim import hooks, process
from tests.sim.tender import Tender

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.guests import Guest
    from tests.sim.host import SimHost

BEAT = 5.0


class SimGuard:
    """Installed on hosts of a cluster (all of them unless named); VMs that run there are adopted."""

    def __init__(self, cluster: SimCluster, *names: str) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._stopped: set[str] = set()
        self._off_since: dict[str, float] = {}
        #: the boot in which the service last wrote its host's file
        self._boots: dict[str, str] = {}
        self._tenders: dict[str, Tender] = {}
        cluster.guard(*names)
        for host in [cluster[name] for name in names or cluster.hosts]:
            for guest in host.guests:
                self._adopt(host, guest)
            self._tick(host)

    def owners(self) -> dict[str, str]:
        """The owner of each VM that has one."""
        records = [
            json.loads(t)
            for p, t in self._store.files.items()
            if p.startswith("owners/") and "/.tmp-" not in p
        ]
        return {record["vm"]: record["host"] for record in records}

    def _adopt(self, host: SimHost, guest: Guest) -> None:
        """As host.guard has it done for what runs already, and the service for its definition."""
        text, _ = host.disk.files[hooks.FILE]
        ended = process.run(host, text, [hooks.FILE, guest.name, "vmfab-claim", "{}"], guest.live.xml)
        assert ended.rc == 0, ended.err
        uuid = guest.live.uuid
        version = {
            "at": self._cluster.clock.now(),
            "host": host.name,
            "xml": host.definitions.get(uuid, guest.live).xml,
        }
        self._write(f"definitions/{uuid}.json", {"uuid": uuid, "name": guest.name, "versions": [version]})

    def _write(self, path: str, record: dict[str, Any]) -> None:
        self._store.files[path] = json.dumps(record) + "\n"

    # -- the service ---------------------------------------------------------------------------------

    def stop_service(self, name: str) -> None:
        """`systemctl stop vmfab-liveness`, typed on a host."""
        host = self._cluster[name]
        if name in self._stopped or not host.powered or self._store.locks.get(f"hosts/{name}") is not host:
            return
        self._stopped.add(name)
        self._say(host, {"at": self._now(host), "running": len(host.guests), "shutting_down": False})
        del self._store.locks[f"hosts/{name}"]

    def start_service(self, name: str) -> None:
        """`systemctl start vmfab-liveness`, typed on a host; a boot does that by itself."""
        self._stopped.discard(name)

    def lose_lock(self, name: str) -> None:
        """The lock is gone while the host lives and its service beats on: what should never be."""
        del self._store.locks[f"hosts/{name}"]

    def _tick(self, host: SimHost) -> None:
        path, now = f"hosts/{host.name}", self._cluster.scheduler.time
        self._cluster.after(BEAT, lambda: self._tick(host))
        if not host.powered:
            since = self._off_since.setdefault(host.name, now)
            if self._store.locks.get(path) is host and now - since >= self._cluster.eviction:
                del self._store.locks[path]
            return
        self._off_since.pop(host.name, None)
        if self._boots.setdefault(host.name, host.boot_id) != host.boot_id:
            # To mount the store again is to give back what the last boot had there.
            self._boots[host.name] = host.boot_id
            self._stopped.discard(host.name)
            if self._store.locks.get(path) is host:
                del self._store.locks[path]
        if host.name in self._stopped or host.view.hanging or not host.view.mounted:
            return
        self._store.files[f"{path}.beat"] = json.dumps({"host": host.name, "at": self._now(host)})
        self._store.written[f"{path}.beat"] = self._now(host)
        if path not in self._store.locks:
            self._store.locks[path] = host
            self._say(host, None)
        if self._store.locks[path] is host:
            self._tend(host)

    def _tend(self, host: SimHost) -> None:
        tender = self._tenders.get(host.name)
        if tender is None or tender.over:
            tender = self._tenders[host.name] = Tender(host)
        tender.tick()

    def _say(self, host: SimHost, released: dict[str, Any] | None) -> None:
        record = {"host": host.name, "boot_id": host.boot_id, "since": self._now(host), "released": released}
        self._write(f"hosts/{host.name}", record)

    def _now(self, host: SimHost) -> float:
        return self._cluster.clock.now() + host.clock_skew
