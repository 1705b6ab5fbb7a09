"""The operations of a host's agent, answered by a simulated host in exactly their wire forms."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tests.sim import domains
from tests.sim.errors import AgentError, NoSuchDomain, VirshError
from tests.sim.guests import Guest
from tests.sim.host import SimHost
from tests.sim.store import MOUNT

if TYPE_CHECKING:
    from tests.sim.link import SimLink

#: Seconds that virsh takes on the host.
READ_TIME = 0.01
DEFINE_TIME = 0.05
START_TIME = 0.3
DESTROY_TIME = 0.1
#: libvirt waits so long for a process that does not die
GRACEFUL_FAILS = 15.0
HARD_FAILS = 40.0
#: after which the agent gives up on a libvirtd, a store, that does not answer
LIBVIRT_PATIENCE = 4.0
STORE_PATIENCE = 3.0

Emit = Callable[[Mapping[str, Any]], None]
Reply = dict[str, Any]


class Gone(Exception):
    """The host lost its power while the agent was at work."""


class Agent:
    """One connection's agent on one host; its locks live as long as it does."""

    def __init__(self, host: SimHost, link: SimLink) -> None:
        self.host = host
        self._link = link
        self._scheduler = host.cluster.scheduler
        self._boot = host.boot_id
        self._ops: dict[str, Callable[..., Reply]] = {
            "ping": dict,
            "observe": self._observe,
            "running": self._running,
            "dumpxml": self._dumpxml,
            "define": self._define,
            "undefine": self._undefine,
            "autostart": self._autostart,
            "start": self._start,
            "watch": self._watch,
            "shutdown": self._shutdown,
            "destroy": self._destroy,
            "reboot": self._reboot,
            "save_running": self._save_running,
            "note_running": self._note_running,
            "store.read": self._store_read,
            "store.list": self._store_list,
            "store.write": self._store_write,
            "store.append": self._store_append,
            "store.remove": self._store_remove,
            "store.makedirs": self._store_makedirs,
            "store.lock": self._store_lock,
            "store.unlock": self._store_unlock,
        }

    def perform(self, op: str, args: Mapping[str, Any], emit: Emit) -> Reply:
        """Carry out one request. Raises AgentError, and Gone when the host died of it."""
        if op == "wait_off":
            return self._wait_off(emit=emit, **args)
        if op not in self._ops:
            raise AgentError("bad-request", f"no such operation: {op!r}")
        try:
            return self._ops[op](**args)
        except TypeError as error:
            raise AgentError("bad-request", f"{op}: {error}") from error

    # -- help ----------------------------------------------------------------------------------------

    def _pause(self, seconds: float) -> None:
        """Take time on the host."""
        self._scheduler.sleep(seconds)
        self._alive()

    def _alive(self) -> None:
        if not self.host.powered or self.host.boot_id != self._boot:
            raise Gone

    def _libvirt(self, seconds: float = 0.0) -> None:
        """Take the time of a virsh command. Raises AgentError when libvirtd does not answer."""
        problem = self._libvirt_problem()
        if problem:
            raise AgentError("libvirt-silent", problem)
        self._pause(seconds)

    def _libvirt_problem(self) -> str:
        if self.host.libvirt_stopped:
            return "libvirtd does not answer: failed to connect to the hypervisor"
        if self.host.libvirt_frozen:
            self._pause(LIBVIRT_PATIENCE)
            return f"libvirtd does not answer within {LIBVIRT_PATIENCE:.0f} s"
        return ""

    def _store(self, path: str, *, write: bool) -> str:
        """A path below .vmfab, if the store can be used. Raises AgentError otherwise."""
        clean = posixpath.normpath(path)
        if not path or path.startswith("/") or ".." in clean.split("/") or clean == "." or "\0" in path:
            raise AgentError("bad-request", f"not a path below {MOUNT}/.vmfab: {path!r}")
        if self.host.view.hanging:
            self._pause(STORE_PATIENCE)
        self.host.view.check(write=write)
        return clean

    @property
    def _files(self) -> dict[str, str]:
        return self.host.view.store.files

    # -- observing -----------------------------------------------------------------------------------

    def _observe(self, mount: str, plan: bool = False) -> Reply:
        host = self.host
        problem = self._libvirt_problem()
        if host.view.hanging:
            self._pause(STORE_PATIENCE)
        self._pause(READ_TIME)
        now = host.cluster.clock.now()
        found: list[Reply] = []
        if not problem:
            found = [self._domain(uuid, xml=plan) for uuid in self._known()]
        store = self._store_facts()
        usable = store["mounted"] and not host.view.hanging
        cordons = sorted(p for p in self._files if posixpath.dirname(p) == "cordons" and p.endswith(".json"))
        return {
            "at": now + host.clock_skew,
            "boot_id": host.boot_id,
            "uptime": now - host.booted_at,
            "cpus": host.cpus,
            "load1": 0.1 * len(host.guests),
            "memory_total_kib": host.memory_total_kib,
            "memory_available_kib": host.memory_available_kib(),
            "libvirt_version": "" if problem else host.libvirt_version,
            "libvirt_problem": problem,
            "store": store,
            "domains": found,
            "processes": self._processes(),
            "cordons": [self._files[p] for p in cordons] if usable else [],
            "running_vms": None if host.running_vms is None else _names(host.running_vms),
            "bridges": sorted(host.bridges),
            "networks": sorted(host.networks),
            "machines": [f"x86_64/{m}" for m in host.machines] if plan and not problem else [],
            "files": self._file_ids(found),
        }

    def _running(self, mount: str) -> Reply:
        self._libvirt(READ_TIME)
        if self.host.view.hanging:
            self._pause(STORE_PATIENCE)
        active = [self._domain(g.uuid, xml=True, inactive=False) for g in self.host.guests if g.listed]
        return {
            "at": self.host.cluster.clock.now() + self.host.clock_skew,
            "domains": active,
            "processes": self._processes(),
            "store": self._store_facts(),
            "files": self._file_ids(active),
        }

    def _known(self) -> list[str]:
        running = [g.uuid for g in self.host.guests if g.listed]
        return list(dict.fromkeys([*self.host.definitions, *running]))

    def _domain(self, uuid: str, *, xml: bool, inactive: bool = True) -> Reply:
        host = self.host
        definition, guest = host.find(uuid), host.guest(uuid)
        state, reason = host.state(uuid)
        size = definition if guest is None else guest.live
        return {
            "uuid": uuid,
            "name": definition.name,
            "state": state,
            "reason": reason,
            "persistent": uuid in host.definitions,
            "autostart": definition.autostart and uuid in host.definitions,
            "managed_save": definition.managed_save is not None,
            "memory_kib": size.memory_kib,
            "vcpus": size.vcpus,
            "pid": None if guest is None else guest.pid,
            "since": None if guest is None else guest.since,
            "xml": definition.xml if xml and inactive else "",
            "live_xml": "" if guest is None or not xml else guest.live.xml,
        }

    def _processes(self) -> list[Reply]:
        return [
            {
                "pid": g.pid,
                "uuid": g.uuid,
                "name": g.name,
                "files": [{"path": path, **self._file_id(path)} for path in g.paths],
            }
            for g in self.host.guests
        ]

    def _file_ids(self, found: list[Reply]) -> Reply:
        paths: dict[str, None] = {}
        for domain in found:
            for text in (domain["xml"], domain["live_xml"]):
                if text:
                    paths.update({d.path: None for d in domains.read(text).disks if d.path})
        return {path: self._file_id(path) for path in paths}

    def _file_id(self, path: str) -> Reply:
        view = self.host.view
        inside = view.inside(path)
        if inside is not None:
            image = None if view.hanging else view.store.images.get(inside)
            return {
                "real": f"{MOUNT}/{inside}",
                "exists": image is not None,
                "on_store": True,
                "dev": 64768,
                "ino": 0 if image is None else image.ino,
                "block": None,
            }
        image = self.host.local.get(path)
        return {
            "real": posixpath.normpath(path),
            "exists": image is not None,
            "on_store": False,
            "dev": 2049,
            "ino": 0 if image is None else image.ino,
            "block": path if path.startswith("/dev/") else None,
        }

    def _store_facts(self) -> Reply:
        view = self.host.view
        usable = view.mounted and not view.hanging
        return {
            "mount": MOUNT,
            "mounted": view.mounted,
            "problem": view.problem(),
            "store_id": view.store.store_id if usable else "",
            "fstype": "ocfs2" if view.mounted else "",
            "source": "/dev/sdb" if view.mounted else "",
            "total_bytes": view.store.total_bytes if usable else 0,
            "free_bytes": (0 if view.store.full else view.store.total_bytes // 2) if usable else 0,
        }

    # -- libvirt -------------------------------------------------------------------------------------

    def _dumpxml(self, uuid: str, inactive: bool, security: bool) -> Reply:
        self._libvirt(READ_TIME)
        return {"xml": self.host.dumpxml(uuid, inactive=inactive, security=security)}

    def _define(self, xml: str) -> Reply:
        self._libvirt(DEFINE_TIME)
        self.host.define(xml)
        return {}

    def _undefine(self, uuid: str) -> Reply:
        self._libvirt(DEFINE_TIME)
        self.host.undefine(uuid)
        return {}

    def _autostart(self, uuid: str, on: bool) -> Reply:
        self._libvirt(READ_TIME)
        self.host.autostart(uuid, on=on)
        return {}

    def _start(self, uuid: str) -> Reply:
        self._libvirt()
        if self.host.view.hanging:
            # virsh waits for libvirtd, which waits for the file system.
            self._pause(HARD_FAILS)
            raise AgentError("libvirt-silent", f"virsh start gave no answer within {HARD_FAILS:.0f} s")
        guest = self.host.start(uuid, by="vmfab")
        self._pause(START_TIME)
        if not guest.alive:
            raise VirshError(
                f"Failed to start domain '{guest.name}'\ninternal error: qemu unexpectedly closed the monitor"
            )
        return {"state": guest.state}

    def _watch(self, uuid: str, seconds: float) -> Reply:
        self._libvirt(READ_TIME)
        end = self._scheduler.time + seconds
        state, reason = self.host.state(uuid)
        while state != "shut off" and (left := end - self._scheduler.time) > 0:
            self.host.cluster.wait_for_change(self.host, left)
            self._alive()
            state, reason = self.host.state(uuid)
        return {"state": state, "reason": reason}

    def _shutdown(self, uuid: str) -> Reply:
        self._libvirt(READ_TIME)
        self.host.shutdown(uuid)
        return {}

    def _reboot(self, uuid: str) -> Reply:
        self._libvirt(READ_TIME)
        self.host.reboot(uuid)
        return {}

    def _wait_off(self, uuid: str, timeout: float, ask_again: float | None, emit: Emit) -> Reply:
        self._libvirt(READ_TIME)
        begin = tick = asked_at = self._scheduler.time
        asked = 0
        while True:
            self._libvirt()
            state, _ = self.host.state(uuid)
            now = self._scheduler.time
            off = state == "shut off" and not self._stray(uuid)
            if off or now - begin >= timeout or not self._link.carries:
                ended = self.host.cluster.clock.now() if off else None
                return {"off": off, "state": state, "waited": now - begin, "ended_at": ended}
            if now - tick >= 1.0:
                tick = now
                emit({"waited": now - begin, "state": state, "asked": asked})
            if ask_again is not None and now - asked_at >= ask_again:
                asked_at = now
                asked += self._ask_again(uuid)
            self.host.cluster.wait_for_change(self.host, min(1.0, timeout - (now - begin)))
            self._alive()

    def _ask_again(self, uuid: str) -> int:
        try:
            self.host.shutdown(uuid)
        except VirshError:
            return 0
        return 1

    def _stray(self, uuid: str) -> list[Guest]:
        return [g for g in self.host.guests if g.uuid == uuid]

    def _destroy(self, uuid: str, graceful: bool) -> Reply:
        self._libvirt()
        guest = self.host.guest(uuid)
        if guest is not None:
            stubborn = guest.behaviour.destroy == "fails" or (graceful and guest.behaviour.ignores_sigterm)
            slow = GRACEFUL_FAILS if graceful else HARD_FAILS
            self._pause(slow if stubborn else DESTROY_TIME)
        self.host.destroy(uuid, graceful=graceful)
        return {"state": self._state_or_gone(uuid)}

    def _state_or_gone(self, uuid: str) -> str:
        try:
            return self.host.state(uuid)[0]
        except NoSuchDomain:
            # A transient domain disappears with its process.
            return "shut off"

    # -- /root/running_vms ---------------------------------------------------------------------------

    def _save_running(self, write: bool) -> Reply:
        self._libvirt(READ_TIME)
        before = self.host.running_vms
        after = sorted(g.name for g in self.host.guests if g.listed)
        if write:
            self.host.running_vms = "".join(f"{name}\n" for name in after)
        return {"before": None if before is None else _names(before), "after": after}

    def _note_running(self, add: list[str], remove: list[str]) -> Reply:
        self._pause(READ_TIME)
        before = self.host.running_vms
        lines = (before or "").splitlines()
        after = [line for line in lines if line.strip() not in remove]
        after += [name for name in add if name not in [line.strip() for line in after]]
        self.host.running_vms = "".join(f"{line.rstrip()}\n" for line in after)
        return {"before": None if before is None else _names(before), "after": _names(self.host.running_vms)}

    # -- store ---------------------------------------------------------------------------------------

    def _store_read(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        return {"text": self._files.get(self._store(path, write=False))}

    def _store_list(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        folder = self._store(path, write=False)
        inside = [posixpath.relpath(p, folder) for p in self._files if p.startswith(folder + "/")]
        return {"names": sorted({p.split("/", 1)[0] for p in inside})}

    def _store_write(self, mount: str, path: str, text: str, exclusive: bool) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=True)
        if exclusive and where in self._files:
            raise AgentError("locked", self._files[where])
        self._files[where] = text
        return {}

    def _store_append(self, mount: str, path: str, text: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=True)
        self._files[where] = self._files.get(where, "") + text
        return {}

    def _store_makedirs(self, mount: str, path: str) -> Reply:
        # Folders exist by having files in them.
        self._store(path, write=True)
        return {}

    def _store_remove(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        self._files.pop(self._store(path, write=True), None)
        return {}

    def _store_lock(self, mount: str, path: str, holder: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=True)
        locks = self.host.view.store.locks
        if locks.get(where, self._link) is not self._link:
            raise AgentError("locked", self._files.get(where, ""))
        locks[where] = self._link
        self._files[where] = holder
        return {}

    def _store_unlock(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        locks = self.host.view.store.locks
        where = posixpath.normpath(path)
        if locks.get(where) is self._link:
            del locks[where]
        return {}


def _names(text: str) -> list[str]:
    """The names in a running_vms file: one a line, spaces around it and empty lines do not count."""
    return [line.strip() for line in text.splitlines() if line.strip()]
