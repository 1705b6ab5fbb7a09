"""The guard on simulated hosts: owner files at start and end, the lock and the beat, mirrored definitions.

What it writes is in the form of the real hook and the real liveness service.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.sim.errors import VirshError

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.domains import Definition
    from tests.sim.host import SimHost

BEAT = 5.0


class SimGuard:
    """Installed on hosts of a cluster (all of them unless named); VMs that run there are adopted."""

    def __init__(self, cluster: SimCluster, *names: str) -> None:
        self._cluster = cluster
        self._store = cluster.store
        self._stopped: set[str] = set()
        self._off_since: dict[str, float] = {}
        self.hosts = [cluster[name] for name in names or cluster.hosts]
        for host in self.hosts:
            host.hooks.append(self._hook)
            for guest in host.guests:
                self._claim(host, guest.definition)
            self._tick(host)

    # -- owners --------------------------------------------------------------------------------------

    def owners(self) -> dict[str, str]:
        """The owner of each VM that has one."""
        records = [json.loads(t) for p, t in self._store.files.items() if p.startswith("owners/")]
        return {record["vm"]: record["host"] for record in records}

    def _hook(self, host: SimHost, operation: str, definition: Definition) -> None:
        if operation == "prepare":
            self._claim(host, definition)
            return
        for path in self._images(host, definition):
            owner = self._owner(path)
            if owner and (owner["host"], owner["boot_id"]) == (host.name, host.boot_id):
                del self._store.files[path]

    def _claim(self, host: SimHost, definition: Definition) -> None:
        images = self._images(host, definition)
        for path, name in images.items():
            owner = self._owner(path)
            if owner and owner["host"] != host.name:
                raise VirshError(
                    f"Failed to start domain '{definition.name}'\nHook script execution failed: internal "
                    f"error: vmfab guard on {host.name}: {definition.name} is not started: its image {name} "
                    f"is owned by {owner['host']} (VM {owner['vm']}, UUID {owner['uuid']})"
                )
        for path, name in images.items():
            record = {"image": path[len("owners/") : -len(".json")], "path": name, "host": host.name}
            record |= {"vm": definition.name, "uuid": definition.uuid, "boot_id": host.boot_id}
            self._write(path, {**record, "time": self._cluster.clock.now()})
        inactive = host.definitions.get(definition.uuid, definition).xml
        version = {"at": self._cluster.clock.now(), "host": host.name, "xml": inactive}
        mirrored = {"uuid": definition.uuid, "name": definition.name, "versions": [version]}
        self._write(f"definitions/{definition.uuid}.json", mirrored)

    def _images(self, host: SimHost, definition: Definition) -> dict[str, str]:
        """Path of the owner file -> path of the image, for each that the VM writes."""
        found = {}
        for disk in definition.disks:
            image = host.view.file(disk.path) if disk.writable else None
            if image is not None:
                found[f"owners/store:{image.ino}.json"] = disk.path
        return found

    def _owner(self, path: str) -> dict[str, Any] | None:
        text = self._store.files.get(path)
        return None if text is None else json.loads(text)

    def _write(self, path: str, record: dict[str, Any]) -> None:
        self._store.files[path] = json.dumps(record) + "\n"

    # -- the service ---------------------------------------------------------------------------------

    def stop_service(self, name: str) -> None:
        """`systemctl stop vmfab-liveness`, typed on a host."""
        host = self._cluster[name]
        self._stopped.add(name)
        self._say(host, {"at": self._now(host), "running": len(host.guests), "shutting_down": False})
        del self._store.locks[f"hosts/{name}"]

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
        if host.name in self._stopped or host.view.hanging or not host.view.mounted:
            return
        self._store.files[f"{path}.beat"] = json.dumps({"host": host.name, "at": self._now(host)})
        self._store.written[f"{path}.beat"] = self._now(host)
        if path not in self._store.locks:
            self._store.locks[path] = host
            self._say(host, None)

    def _say(self, host: SimHost, released: dict[str, Any] | None) -> None:
        record = {"host": host.name, "boot_id": host.boot_id, "since": self._now(host), "released": released}
        self._write(f"hosts/{host.name}", record)

    def _now(self, host: SimHost) -> float:
        return self._cluster.clock.now() + host.clock_skew
