"""The operations of a host's agent, answered by a simulated host in exactly their wire forms."""

from __future__ import annotations

import hashlib
import itertools
import json
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tasks.cluster.setup import guard
from tasks.onhost import facts, images, runninglist, storefiles
from tasks.onhost.mirror import marked, merged
from tests.sim import hooks, process
from tests.sim.errors import AgentError, NoSuchDomain, VirshError
from tests.sim.files import Tree
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
STORE_SLOW = 6.0

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

_numbers = itertools.count(1)

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
        self._times = 1.0
        self._number = next(_numbers)
        self._ops: dict[str, Callable[..., Reply]] = {
            "ping": dict,
            "patience": self._be_patient,
            "observe": self._observe,
            "running": self._running,
            "dumpxml": self._dumpxml,
            "look": self._look,
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
            "file.read": self._file_read,
            "file.write": self._file_write,
            "file.remove": self._file_remove,
            "command": self._command,
            "clock": self._clock,
            "network": self._network,
            "netplan.check": self._netplan_check,
            "store.held": self._store_held,
            "store.images": self._store_images,
            "store.read": self._store_read,
            "store.list": self._store_list,
            "store.read_dir": self._store_read_dir,
            "store.init": self._store_init,
            "store.write": self._store_write,
            "store.append": self._store_append,
            "store.remove": self._store_remove,
            "store.makedirs": self._store_makedirs,
            "store.lock": self._store_lock,
            "store.unlock": self._store_unlock,
            "store.seize": self._store_seize,
            "store.holds": self._store_holds,
            "store.stat": self._store_stat,
            "store.swap": self._store_swap,
        }

    def perform(self, op: str, args: Mapping[str, Any], deadline: float, emit: Emit) -> Reply:
        """Carry out one request. Raises AgentError, and Gone when the host died of it."""
        if "uuid" in args and not _UUID.fullmatch(str(args["uuid"])):
            raise AgentError("bad-request", f"uuid is {args['uuid']!r}")
        self._for_change = max(1.0, deadline - 5.5)
        if op in ("wait_off", "work"):
            return (self._wait_off if op == "wait_off" else self._work)(emit=emit, **args)
        if op not in self._ops:
            raise AgentError("bad-request", f"there is no operation {op!r}")
        try:
            return self._ops[op](**args)
        except TypeError as error:
            raise AgentError("bad-request", f"{op}: {error}") from error

    # -- help ----------------------------------------------------------------------------------------

    def _be_patient(self, times: float) -> Reply:
        self._times = times
        return {}

    def _pause(self, seconds: float) -> None:
        """Take time on the host."""
        self._scheduler.sleep(seconds)
        self._alive()

    def _alive(self) -> None:
        if not self.host.powered or self.host.boot_id != self._boot:
            raise Gone

    def _libvirt(self, seconds: float = 0.0, *, change: bool = False) -> None:
        """Take the time of a virsh command. Raises AgentError when libvirtd does not answer."""
        problem = self._libvirt_problem(self._for_change if change else LIBVIRT_PATIENCE * self._times)
        if problem:
            raise AgentError("libvirt-silent", problem)
        self._pause(seconds)

    def _libvirt_problem(self, patience: float) -> str:
        if self.host.libvirt_stopped:
            return "libvirtd does not answer: failed to connect to the hypervisor"
        end = self._scheduler.time + patience
        while self.host.libvirt_frozen and (left := end - self._scheduler.time) > 0:
            self.host.cluster.wait_for_change(self.host, left)
            self._alive()
        return f"libvirtd does not answer within {patience:.0f} s" if self.host.libvirt_frozen else ""

    def _store(self, path: str, *, write: bool) -> str:
        """A path below .vmfab, if the store can be used. Raises AgentError otherwise."""
        for part in path.split("/"):
            if (
                part in ("", ".", "..")
                or "\0" in part
                or part.startswith(".tmp-")
                or len(part.encode()) > 255
            ):
                raise AgentError("bad-request", f"{path!r} is no path below .vmfab")
        if self.host.view.hanging:
            self._pause(STORE_SLOW * self._times)
        self.host.view.check(write=write)
        return path

    @property
    def _files(self) -> dict[str, str]:
        return self.host.view.store.files

    def _whole(self) -> dict[str, str]:
        """All files but the drafts of hosts that lost their power."""
        return {path: text for path, text in self._files.items() if "/.tmp-" not in path}

    def _put(self, path: str, text: str) -> None:
        self._files[path] = text
        self.host.view.store.written[path] = self.host.cluster.clock.now() + self.host.clock_skew

    # -- observing -----------------------------------------------------------------------------------

    def _observe(self, mount: str, plan: bool) -> Reply:
        host = self.host
        problem = self._libvirt_problem(LIBVIRT_PATIENCE * self._times)
        if host.view.hanging:
            self._pause(STORE_PATIENCE * self._times)
        self._pause(READ_TIME)
        now = host.cluster.clock.now()
        found: list[Reply] = []
        if not problem:
            found = [self._domain(uuid, xml=plan) for uuid in self._known()]
        store = self._store_facts()
        usable = store["mounted"] and not host.view.hanging
        cordons = sorted(p for p in self._files if posixpath.dirname(p) == "cordons")
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
            "operations": self._operations() if usable else [],
            "running_vms": None if host.running_vms is None else _names(host.running_vms),
            "bridges": sorted(host.bridges),
            "networks": sorted(host.networks),
            "machines": self._machines() if plan and not problem else [],
            "files": self._file_ids(found),
            "guarded": bool(self._guard_version()),
            "guard_version": self._guard_version(),
        }

    def _guard_version(self) -> str:
        text, _ = self.host.disk.files.get(hooks.FILE, ("", 0))
        return facts.version_in(text.encode())

    def _operations(self) -> list[Reply]:
        locks = self.host.view.store.locks
        return [
            {"id": path.removeprefix("locks/op-"), "holder": self._files[path], "held": path in locks}
            for path in sorted(self._files)
            if path.startswith("locks/op-")
        ]

    def _machines(self) -> list[str]:
        return [f"x86_64/{m}" for m in (*self.host.machines, "pc", "q35")]

    def _running(self, mount: str) -> Reply:
        self._libvirt(READ_TIME)
        if self.host.view.hanging:
            self._pause(STORE_PATIENCE * self._times)
        active = [self._domain(g.uuid, xml=True, inactive=False) for g in self.host.guests if g.listed]
        return {
            "at": self.host.cluster.clock.now() + self.host.clock_skew,
            "domains": active,
            "processes": self._processes(),
            "store": self._store_facts(full_counts=False),
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
            "last_ran": host.last_ran.get(definition.name),
            "xml": definition.xml if xml and inactive else "",
            "live_xml": "" if guest is None or not xml else guest.live.xml,
        }

    def _processes(self) -> list[Reply]:
        return [
            {
                "pid": g.pid,
                "uuid": g.uuid,
                "name": g.name,
                "files": [
                    {**self._file_id(path), "path": path, "exists": True, "ino": image.ino}
                    for path, image in zip(g.paths, g.images, strict=True)
                ],
            }
            for g in self.host.guests
        ]

    def _look(self, mount: str, paths: list[str]) -> Reply:
        self._pause(READ_TIME)
        return {"files": {path: self._file_id(path) for path in paths}}

    def _file_ids(self, found: list[Reply]) -> Reply:
        paths: dict[str, None] = {}
        for domain in found:
            for text in (domain["xml"], domain["live_xml"]):
                if text:
                    paths.update(dict.fromkeys(sorted(images.named(text))))
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
                "block": "",
            }
        image = self.host.local.get(path)
        return {
            "real": posixpath.normpath(path),
            "exists": image is not None,
            "on_store": False,
            "dev": 2049,
            "ino": 0 if image is None else image.ino,
            "block": f"wwid:{posixpath.basename(path)}" if path.startswith("/dev/") else "",
        }

    def _store_facts(self, *, full_counts: bool = True) -> Reply:
        view = self.host.view
        usable = view.mounted and not view.hanging
        return {
            "mount": MOUNT,
            "mounted": view.mounted,
            "problem": view.problem(full_counts=full_counts),
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

    def _define(self, xml: str, mirror: Mapping[str, str] | None = None) -> Reply:
        self._libvirt(DEFINE_TIME, change=True)
        new = self.host.define(xml)
        self._remember(new.uuid, mirror)
        return {}

    def _undefine(self, uuid: str, mirror: Mapping[str, str] | None = None) -> Reply:
        self._libvirt(DEFINE_TIME, change=True)
        self.host.undefine(uuid)
        self._remember(uuid, mirror)
        return {}

    def _remember(self, uuid: str, where: Mapping[str, str] | None) -> None:
        """Mirror how this host defines a VM now; a store that cannot take it is nobody's concern."""
        if where is None:
            return
        try:
            path = self._store(f"definitions/{uuid}.json", write=True)
        except AgentError:
            return
        before, at = self._files.get(path), self.host.cluster.clock.now() + self.host.clock_skew
        own = self.host.definitions.get(uuid)
        if own is None:
            after = marked(before, where["host"], at)
        else:
            after = merged(before, uuid, own.name, where["host"], own.xml, at=at)
        if after is not None:
            self._files[path] = after

    def _autostart(self, uuid: str, on: bool) -> Reply:
        self._libvirt(READ_TIME, change=True)
        self.host.autostart(uuid, on=on)
        return {}

    def _start(self, uuid: str, mirror: Mapping[str, str] | None = None) -> Reply:
        self._libvirt(change=True)
        if self.host.hook.known:
            self._let_the_hook_wait()
        elif self.host.view.hanging:
            # virsh waits for libvirtd, which waits for the file system.
            self._pause(self._for_change)
            raise AgentError("libvirt-silent", f"libvirtd does not answer within {self._for_change:.0f} s")
        guest = self.host.start(uuid, by="vmfab")
        self._remember(uuid, mirror)
        self._pause(START_TIME)
        if not guest.alive:
            raise VirshError(
                f"Failed to start domain '{guest.name}'\ninternal error: qemu unexpectedly closed the monitor"
            )
        return {"state": guest.state}

    def _let_the_hook_wait(self) -> None:
        """The hook itself takes no time here: wait before it for what it would wait for."""
        end = self._scheduler.time + guard.DEADLINE
        store = self.host.view.store
        while self.host.view.hanging or "locks/owners" in store.locks:
            if self._scheduler.time >= end:
                return
            self._pause(0.5)

    def _watch(self, uuid: str, seconds: float) -> Reply:
        self._libvirt(READ_TIME)
        end = self._scheduler.time + seconds
        state, reason = self._state_or_gone(uuid)
        while state != "shut off" and (left := end - self._scheduler.time) > 0:
            self.host.cluster.wait_for_change(self.host, left)
            self._alive()
            state, reason = self._state_or_gone(uuid)
        return {"state": state, "reason": reason}

    def _shutdown(self, uuid: str) -> Reply:
        self._libvirt(READ_TIME, change=True)
        self.host.shutdown(uuid)
        return {}

    def _reboot(self, uuid: str) -> Reply:
        self._libvirt(READ_TIME, change=True)
        self.host.reboot(uuid)
        return {}

    def _wait_off(self, uuid: str, timeout: float, ask_again: float | None, emit: Emit) -> Reply:
        self._libvirt(READ_TIME)
        begin = tick = asked_at = self._scheduler.time
        end = begin + timeout
        asked = 0
        seen = bool(self._stray(uuid))
        while True:
            self._libvirt()
            state, _ = self._state_or_gone(uuid)
            now = self._scheduler.time
            off = state == "shut off" and not self._stray(uuid)
            if off or now >= end or not self._link.carries:
                ended = self.host.cluster.clock.now() if off and seen else None
                return {"off": off, "state": state, "waited": now - begin, "ended_at": ended}
            if now - tick >= 1.0:
                tick = now
                emit({"waited": now - begin, "asked": asked})
            if ask_again is not None and now - asked_at >= ask_again:
                asked_at = now
                asked += self._ask_again(uuid)
            self.host.cluster.wait_for_change(self.host, min(1.0, end - now))
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
        self._libvirt(change=True)
        guest = self.host.guest(uuid)
        if guest is not None:
            stubborn = guest.behaviour.destroy == "fails" or (graceful and guest.behaviour.ignores_sigterm)
            slow = GRACEFUL_FAILS if graceful else HARD_FAILS
            self._pause(slow if stubborn else DESTROY_TIME)
        self.host.destroy(uuid, graceful=graceful)
        return {"state": self._state_or_gone(uuid)[0]}

    def _state_or_gone(self, uuid: str) -> tuple[str, str]:
        try:
            return self.host.state(uuid)
        except NoSuchDomain:
            # A transient domain disappears with its process.
            return ("no domain, but a qemu process" if self._stray(uuid) else "shut off"), "unknown"

    def _clock(self) -> Reply:
        return {"at": self.host.cluster.clock.now() + self.host.clock_skew}

    # -- /root/running_vms ---------------------------------------------------------------------------

    def _save_running(self, write: bool) -> Reply:
        self._libvirt(READ_TIME)
        before = self.host.running_vms
        running = [g.name for g in self.host.guests if g.listed]
        after = runninglist.in_order(_names(before or ""), running)
        if write:
            self.host.running_vms = "".join(f"{name}\n" for name in after)
        return {"before": None if before is None else _names(before), "after": after}

    def _note_running(self, add: list[str], remove: list[str]) -> Reply:
        self._pause(READ_TIME)
        before = self.host.running_vms
        for name in (*add, *remove):
            if not name.strip() or "\n" in name:
                raise AgentError("bad-request", f"{name!r} is no name")
        lines = [line for line in _lines(before or "") if _name(line) not in remove]
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        present = [_name(line) for line in lines]
        self.host.running_vms = "".join(lines + [f"{name}\n" for name in add if name not in present])
        return {"before": None if before is None else _names(before), "after": _names(self.host.running_vms)}

    # -- the host's own files and programs -----------------------------------------------------------

    def _file_read(self, path: str) -> Reply:
        self._pause(READ_TIME)
        text = self.host.storage.read(path) if self.host.storage is not None else None
        if text is not None:
            return {"text": text, "mode": 0o644, "sha256": ""}
        if path.startswith("/proc/"):
            text = Tree(self.host).read(path).decode()
            return {"text": text, "mode": 0o444, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        return self.host.disk.read(path)

    def _file_write(self, path: str, text: str, mode: int, expect: str | None) -> Reply:
        self._pause(READ_TIME)
        return self.host.disk.write(path, text, mode, expect)

    def _file_remove(self, path: str, expect: str) -> Reply:
        self._pause(READ_TIME)
        return self.host.disk.remove(path, expect)

    def _network(self) -> Reply:
        self._pause(READ_TIME)
        return self.host.lan.facts()

    def _netplan_check(self, files: dict[str, str]) -> Reply:
        self._pause(READ_TIME)
        return self.host.lan.check(files)

    def _command(self, argv: list[str], input: str, timeout: float) -> Reply:
        self._pause(READ_TIME)
        if argv[:3] == ["/usr/bin/python3", "-IS", "-c"]:
            ended = process.run(self.host, argv[3], ["-c", *argv[4:]], input)
            return {"rc": ended.rc, "out": ended.out, "err": ended.err}
        if self.host.storage is not None and (told := self.host.storage.run(argv)) is not None:
            return dict(zip(("rc", "out", "err"), told, strict=True))
        if argv[0] == "systemctl":
            rc, out, err = self.host.systemctl(argv[1:])
            return {"rc": rc, "out": out, "err": err}
        changed = self.host.lan.command(argv)
        return self.host.disk.run(argv, input) if changed is None else changed

    def _work(self, argv: list[str], timeout: float, log: str, env: dict[str, str], emit: Emit) -> Reply:
        """Three seconds of work; it is done to its end whatever becomes of the connection."""
        for second in (1.0, 2.0):
            self._pause(1.0)
            emit({"waited": second, "line": f"{argv[0]} is at it"})
        self._pause(1.0)
        storage = self.host.storage
        if storage is not None and (told := storage.run(argv)) is not None:
            return {"rc": told[0], "out": told[1] + told[2]}
        ended = self.host.disk.run(argv, "")
        return {"rc": ended["rc"], "out": ended["out"] + ended["err"]}

    # -- store ---------------------------------------------------------------------------------------

    def _store_read(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        return {"text": self._files.get(self._store(path, write=False))}

    def _store_list(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        folder = self._store(path, write=False)
        inside = [posixpath.relpath(p, folder) for p in self._whole() if p.startswith(folder + "/")]
        return {"names": sorted({p.split("/", 1)[0] for p in inside})}

    def _store_read_dir(self, mount: str, path: str, unless: str = "", after: str = "") -> Reply:
        self._pause(READ_TIME)
        folder = self._store(path, write=False)
        found = {
            posixpath.basename(p): t
            for p, t in self._whole().items()
            if posixpath.dirname(p) == folder
            and posixpath.basename(p) > after
            and not (unless and unless in t.rstrip("\n").rpartition("\n")[2])
        }
        page: dict[str, str] = {}
        size = 0
        for name, text in sorted(found.items()):
            if size > storefiles.PAGE:
                return {"files": page, "next": max(page)}
            page[name] = text
            size += len(text)
        return {"files": page, "next": ""}

    def _store_held(self, mount: str, paths: list[str]) -> Reply:
        self._pause(READ_TIME)
        asked = [self._store(path, write=False) for path in paths]
        locks = self.host.view.store.locks
        return {"held": {path: self._files.get(path, "") for path in asked if path in locks}}

    def _store_images(self, mount: str, seconds: float) -> Reply:
        self._pause(READ_TIME)
        self._store("store-id", write=False)
        images = [
            {
                "path": f"{MOUNT}/{image.path}",
                "ino": image.ino,
                "size": image.bytes,
                "allocated": image.bytes,
                "modified": self.host.booted_at,
                "format": "qcow2",
                "needs": [self.host.view.store.image(base).ino for base in image.bases],
            }
            for image in self.host.view.store.images.values()
            if not image.path.endswith(".iso")
        ]
        return {"images": sorted(images, key=lambda i: str(i["path"])), "complete": True, "why": ""}

    def _store_init(self, mount: str) -> Reply:
        self._pause(READ_TIME)
        self._store("store-id", write=True)
        return {"store_id": self.host.view.store.store_id}

    def _store_write(self, mount: str, path: str, text: str, exclusive: bool) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=True)
        if exclusive and where in self._files:
            raise AgentError("locked", self._files[where])
        self._put(where, text)
        return {}

    def _store_append(self, mount: str, path: str, text: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=True)
        self._put(where, self._files.get(where, "") + text)
        return {}

    def _store_makedirs(self, mount: str, path: str) -> Reply:
        # Folders exist by having files in them.
        self._store(path, write=True)
        return {}

    def _store_remove(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        if path.split("/")[0] == "locks" and not path.startswith("locks/op-"):
            raise AgentError("bad-request", "lock files are never removed")
        self._store(path, write=not self.host.view.store.full)
        self._files.pop(path, None)
        return {}

    def _store_lock(self, mount: str, path: str, holder: str) -> Reply:
        self._pause(READ_TIME)
        full = self.host.view.store.full
        where = self._store(path, write=not full)
        locks = self.host.view.store.locks
        if where in locks:
            raise AgentError("locked", self._files.get(where, ""))
        self._hold(where)
        signed = {**json.loads(holder), "host": self.host.name, "pid": 1000 + self._number}
        self._files[where] = "" if full else json.dumps(signed)
        return {}

    def _hold(self, path: str) -> None:
        if self._link.ended:
            raise Gone  # the agent ended while it was about to
        self.host.view.store.locks[path] = self._link

    def _store_unlock(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        locks = self.host.view.store.locks
        if locks.get(path) is not self._link:
            raise AgentError("bad-request", f"{path} is not locked here")
        del locks[path]
        return {}

    def _store_seize(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=not self.host.view.store.full)
        if where not in self._files:
            raise AgentError("file", f"there is no .vmfab/{where}")
        locks = self.host.view.store.locks
        if where in locks:
            raise AgentError("locked", self._files[where])
        self._hold(where)
        return {"text": self._files[where]}

    def _store_holds(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=False)
        return {"held": where in self._files and self.host.view.store.locks.get(where) is self._link}

    def _store_stat(self, mount: str, path: str) -> Reply:
        self._pause(READ_TIME)
        where = self._store(path, write=False)
        written = self.host.view.store.written.get(where)
        return {"mtime": written, "now": self.host.cluster.clock.now() + self.host.clock_skew}

    def _store_swap(self, mount: str, path: str, changes: list[list[str | None]]) -> Reply:
        self._pause(READ_TIME)
        self._store(path, write=True)
        wanted = [(self._store(str(name), write=True), before, after) for name, before, after in changes]
        for name, before, _ in wanted:
            if self._files.get(name) != before:
                raise AgentError("file", f".vmfab/{name} was changed by somebody else meanwhile")
        for name, _, after in wanted:
            if self.host.loses_power_now():
                raise Gone
            if after is None:
                self._files.pop(name, None)
            else:
                self._put(name, after)
        return {}


def _names(text: str) -> list[str]:
    """The names in a running_vms file: one a line; lines of blanks only do not count."""
    return [name for name in map(_name, _lines(text)) if name]


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _name(line: str) -> str:
    name = line.rstrip("\r\n")
    return name if name.strip() else ""
