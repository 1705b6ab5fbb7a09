"""A simulated host: power, network, memory, libvirt, qemu processes, /root/running_vms."""

from __future__ import annotations

import random
import uuid as uuids
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.sim import domains, migration, restart
from tests.sim.domains import Definition
from tests.sim.errors import NoSuchDomain, VirshError
from tests.sim.guests import Behaviour, Guest
from tests.sim.hooks import Hook
from tests.sim.lan import SimLan
from tests.sim.programs import OwnDisk
from tests.sim.store import Image, View

if TYPE_CHECKING:
    from tests.sim.cluster import SimCluster
    from tests.sim.storage import Storage

MACHINES = ("pc-i440fx-6.2", "pc-i440fx-8.2", "pc-q35-6.2", "pc-q35-8.2")
GIB = 1 << 20

#: Seconds: qemu's last moments after the guest has powered off, when libvirt says "in shutdown".
LINGER = 0.05


class SimHost:
    """One vmhost. Its methods act at once and take no time; the agent adds the time that virsh takes.

    `by` says who acts: "vmfab", "hand" or "boot"; it ends up in the history and in the law's reports.
    """

    def __init__(self, cluster: SimCluster, name: str, memory_gib: int, cpus: int, number: int = 1) -> None:
        self.cluster = cluster
        self.name = name
        self.cpus = cpus
        self.memory_total_kib = memory_gib * GIB
        self.view = View(cluster.store)
        self.bridges = {"br0"}
        self.networks: set[str] = set()
        self.machines: tuple[str, ...] = MACHINES
        self.libvirt_version = "10.0.0"
        #: text of /root/running_vms, None when there is no such file
        self.running_vms: str | None = None
        self.disk = OwnDisk()
        #: its part of the storage network, for tests about that
        self.storage: Storage | None = None
        self.definitions: dict[str, Definition] = {}
        self.guests: list[Guest] = []
        #: when a VM of this name last started or ended here, by this host's clock
        self.last_ran: dict[str, float] = {}
        #: images that lie on this host's own disks, by path
        self.local: dict[str, Image] = {}
        #: message by VM name with which this host refuses its start, for tests of a bad target
        self.refusals: dict[str, str] = {}
        self.hook = Hook(self)
        #: files of its programs, by path, besides those that vmfab writes; /run ends with each boot
        self.own_files: dict[str, bytes] = {}
        self.syslog: list[str] = []
        #: systemd's units that are enabled, and that run
        self.enabled: set[str] = set()
        self.active: set[str] = set()
        #: seconds that a reboot takes; None: it says yes and does nothing
        self.reboot_takes: float | None = 30.0
        #: whether the institute's own script starts the VMs in running_vms after a boot
        self.restarts_vms = True
        self.powered = True
        self.reachable = True
        self.lan = SimLan(self, number)
        #: sshd's listener hangs: open connections go on, new ones get no answer
        self.sshd_frozen = False
        self.libvirt_frozen = False
        self.libvirt_stopped = False
        self.clock_skew = 0.0
        #: its power goes at the so-manieth change of the store by a hook or an agent here, for so long
        self.power_goes: tuple[int, float] | None = None
        self.booted_at = cluster.clock.now() - 86400.0
        self.boot_log: list[str] = []
        self._random = random.Random(f"{cluster.seed}/{name}")
        self.boot_id = self._new_id()
        self._pids = iter(range(2000, 1 << 22))
        self._numbers = iter(range(1, 1 << 22))

    # -- what there is -------------------------------------------------------------------------------

    def guest(self, uuid: str) -> Guest | None:
        """The running guest that libvirt knows by this UUID."""
        return next((g for g in self.guests if g.listed and g.uuid == uuid), None)

    def find(self, name: str) -> Definition:
        """The definition, live or not, of this UUID or name. Raises NoSuchDomain."""
        for definition in [*self.definitions.values(), *(g.live for g in self.guests if g.listed)]:
            if name in (definition.uuid, definition.name):
                return self.definitions.get(definition.uuid, definition)
        raise NoSuchDomain(name)

    def state(self, uuid: str) -> tuple[str, str]:
        """State and reason as `virsh domstate --reason`. Raises NoSuchDomain."""
        guest = self.guest(uuid)
        if guest is not None:
            return guest.state, guest.reason
        return "shut off", self.find(uuid).reason

    def memory_available_kib(self) -> int:
        used = sum(g.live.memory_kib for g in self.guests)
        return max(0, self.memory_total_kib - GIB - used)

    def image(self, path: str) -> Image | None:
        """What a path on this host leads to, if it is an image."""
        return self.view.file(path) or self.local.get(path)

    # -- definitions ---------------------------------------------------------------------------------

    def define(self, xml: str) -> Definition:
        """Define or redefine; autostart and a managed save stay as they were."""
        new = domains.completed(domains.read(xml), self.machines)
        if not new.uuid:
            new = domains.read(new.xml.replace("</name>", f"</name>\n  <uuid>{self._new_id()}</uuid>", 1))
        for other in [*self.definitions.values(), *(g.live for g in self.guests if g.listed)]:
            if other.name == new.name and other.uuid != new.uuid:
                message = f"domain '{new.name}' already exists with uuid {other.uuid}"
                raise VirshError(f"Failed to define domain from /dev/stdin\noperation failed: {message}")
            if other.uuid == new.uuid and other.name != new.name:
                message = f"domain '{other.name}' is already defined with uuid {new.uuid}"
                raise VirshError(f"Failed to define domain from /dev/stdin\noperation failed: {message}")
        old = self.definitions.get(new.uuid)
        if old is not None:
            new.autostart, new.managed_save, new.reason = old.autostart, old.managed_save, old.reason
        new.written = self.cluster.clock.now() + self.clock_skew
        self.definitions[new.uuid] = new
        self.cluster.note(self, f"define {new.name}")
        return new

    def undefine(self, name: str) -> None:
        definition = self.find(name)
        if definition.uuid not in self.definitions:
            raise VirshError(
                f"Failed to undefine domain '{definition.name}'\n"
                "Requested operation is not valid: cannot undefine transient domain"
            )
        if definition.managed_save is not None:
            raise VirshError("Refusing to undefine while domain managed save image exists")
        del self.definitions[definition.uuid]
        self.cluster.note(self, f"undefine {definition.name}")

    def autostart(self, name: str, *, on: bool) -> None:
        definition = self.find(name)
        if definition.uuid not in self.definitions:
            raise VirshError(
                f"Failed to {'mark' if on else 'unmark'} domain '{definition.name}' as autostarted\n"
                "Requested operation is not valid: cannot set autostart for transient domain"
            )
        definition.autostart = on

    def dumpxml(self, name: str, *, inactive: bool, security: bool) -> str:
        definition = self.find(name)
        guest = self.guest(definition.uuid)
        xml = guest.live.xml if guest is not None and not inactive else definition.xml
        return xml if security else domains.public(xml)

    # -- running -------------------------------------------------------------------------------------

    def start(self, name: str, *, by: str = "hand") -> Guest:
        """Start a qemu process, from its managed save if there is one. Raises VirshError if it fails."""
        definition = self.find(name)
        if self.guest(definition.uuid) is not None:
            raise VirshError("Domain is already active")
        failed = f"Failed to start domain '{definition.name}'\n"
        behaviour = self.cluster.behaviour(definition.name)
        self.hook.prepare(definition, failed)
        try:
            self._may_start(definition, behaviour, failed)
            self._can_open(definition, failed)
        except VirshError:
            self.hook.release(definition)
            raise
        guest = self._launched(definition, definition.managed_save or self._new_id(), behaviour)
        guest.reason = "booted" if definition.managed_save is None else "restored"
        definition.managed_save = None
        self.cluster.note(self, f"start {guest.name} by {by}: qemu {guest.pid}")
        self.hook.started(guest.live)
        crash = behaviour.crash_after.get(self.name, behaviour.crash_after.get(""))
        if crash is not None:
            self.cluster.after(crash, lambda: self._end(guest, "crashed"))
        # Last, because it raises: what breaks the law has happened and stays visible.
        self.cluster.law.started(guest, by)
        return guest

    def _launched(self, definition: Definition, boot_id: str, behaviour: Behaviour) -> Guest:
        """A qemu process more."""
        now, number = self.cluster.clock.now(), next(self._numbers)
        opened = [(d.path, self.image(d.path)) for d in definition.disks if d.writable]
        guest = Guest(
            host=self,
            definition=definition,
            live=domains.live(definition, number),
            pid=next(self._pids),
            number=number,
            boot_id=boot_id,
            since=now,
            behaviour=behaviour,
            images=tuple(image for _, image in opened if image is not None),
            paths=tuple(path for path, image in opened if image is not None),
        )
        self.guests.append(guest)
        self.last_ran[guest.name] = now + self.clock_skew
        return guest

    def _may_start(self, definition: Definition, behaviour: Behaviour, failed: str) -> None:
        if definition.name in self.refusals:
            raise VirshError(failed + self.refusals[definition.name])
        for place in (self.name, ""):
            if behaviour.failing_starts.get(place, 0) > 0:
                behaviour.failing_starts[place] -= 1
                definition.reason = "failed"
                raise VirshError(failed + "internal error: qemu unexpectedly closed the monitor")
        if definition.machine and definition.machine not in self.machines:
            raise VirshError(
                failed + f"unsupported configuration: Emulator '/usr/bin/qemu-system-x86_64' does not "
                f"support machine type '{definition.machine}'"
            )
        for bridge in definition.bridges:
            if bridge not in self.bridges:
                raise VirshError(failed + f"Cannot get interface MTU on '{bridge}': No such device")
        if definition.memory_kib > self.memory_available_kib():
            raise VirshError(
                failed + "internal error: process exited while connecting to monitor: "
                "cannot set up guest memory 'pc.ram': Cannot allocate memory"
            )

    def _can_open(self, definition: Definition, failed: str) -> None:
        for disk in definition.disks:
            if not disk.path:
                continue
            image = self.image(disk.path)
            if image is None:
                raise VirshError(
                    failed + f"Cannot access storage file '{disk.path}': No such file or directory"
                )
            on_store = self.view.inside(disk.path) is not None
            if on_store and disk.writable and self.view.read_only:
                raise VirshError(
                    failed + "internal error: process exited while connecting to monitor: "
                    f"Could not open '{disk.path}': Read-only file system"
                )
            # QEMU's own lock works between processes of one host; between hosts it protects nothing.
            if disk.writable and any(g.host is self for g in image.writers):
                raise VirshError(
                    failed + "internal error: process exited while connecting to monitor: "
                    f'Failed to get "write" lock\nIs another process using the image [{disk.path}]?'
                )

    def shutdown(self, name: str) -> None:
        """Ask the guest once. Raises VirshError when it does not run."""
        guest = self._running(name, "shutdown")
        if not guest.writes:
            raise VirshError(f"Failed to shutdown domain '{name}'\ndomain is paused in a migration")
        guest.asked += 1
        behaviour = guest.behaviour
        self.cluster.note(self, f"shutdown {guest.name}: asked {guest.asked}")
        if guest.going_down or behaviour.off_after is None or guest.asked <= behaviour.ignores:
            return
        if guest.state not in ("running", "in shutdown"):
            return
        guest.going_down = True
        self.cluster.after(behaviour.off_after, lambda: self._powered_off(guest))

    def _powered_off(self, guest: Guest) -> None:
        if not guest.alive or not guest.going_down or guest.state == "paused":
            return
        guest.going_down = False
        if guest.behaviour.reboots_instead:
            guest.asked = 0
            return
        guest.state, guest.reason = "in shutdown", "unknown"
        self.cluster.changed(self)
        self.cluster.after(LINGER, lambda: self._end(guest, "shutdown"))

    def reboot(self, name: str) -> None:
        self._running(name, "reboot")

    def destroy(self, name: str, *, graceful: bool = False) -> None:
        """Kill qemu, if it lets itself be killed. Raises VirshError like virsh."""
        guest = self._running(name, "destroy")
        signal = "SIGTERM" if graceful else "SIGKILL"
        refused = VirshError(
            f"Failed to destroy domain '{guest.name}'\n"
            f"Failed to terminate process {guest.pid} with {signal}: Device or resource busy"
        )
        behaviour = guest.behaviour
        self.cluster.note(self, f"destroy {guest.name} ({signal})")
        if behaviour.destroy == "fails" or (graceful and behaviour.ignores_sigterm):
            raise refused
        self._end(guest, "destroyed")
        if behaviour.destroy == "lies":
            raise refused

    def suspend(self, name: str) -> None:
        guest = self._running(name, "suspend", calm=True)
        guest.state, guest.reason = "paused", "user"
        self.cluster.changed(self)

    def resume(self, name: str) -> None:
        guest = self._running(name, "resume", calm=True)
        guest.state, guest.reason = "running", "unpaused"
        self.cluster.changed(self)

    def managed_save(self, name: str) -> None:
        """Save the guest's memory and stop it; its next start here goes on from there."""
        guest = self._running(name, "save", calm=True)
        guest.definition.managed_save = guest.boot_id
        self._end(guest, "saved")

    def lose_track(self, name: str) -> Guest:
        """libvirt takes the VM for off while its qemu process goes on."""
        guest = self._running(name, "lose")
        guest.listed = False
        if guest.uuid in self.definitions:
            self.definitions[guest.uuid].reason = "unknown"
        self.hook.release(guest.live)
        self.cluster.changed(self)
        return guest

    def kill(self, guest: Guest, reason: str = "destroyed") -> None:
        """End a qemu process with kill, whether libvirt knows it or not."""
        self._end(guest, reason)

    def incoming(self, name: str, xml: str, boot_id: str) -> Guest:
        """Begin to take a VM that is migrated here. Raises VirshError when this host or its hook refuses."""
        definition, behaviour = domains.read(xml), self.cluster.behaviour(name)
        failed = "operation failed: "
        if any(name in (g.name, g.uuid) for g in self.guests if g.listed):
            raise VirshError(f"{failed}domain '{name}' is already active")
        for other in self.definitions.values():
            if (other.name == definition.name) != (other.uuid == definition.uuid):
                raise VirshError(f"{failed}domain '{name}' is already defined with uuid {other.uuid}")
        self.hook.arrives(definition, failed)
        try:
            self._may_start(definition, behaviour, failed)
            self._can_open(definition, failed)
        except VirshError:
            self.hook.release(definition)
            raise
        guest = self._launched(definition, boot_id, behaviour)
        guest.state, guest.reason, guest.writes = "paused", "migration", False
        self.hook.started(guest.live)
        return guest

    def crash(self, name: str) -> None:
        """qemu dies."""
        self._end(self._running(name, "crash"), "crashed")

    def _running(self, name: str, verb: str, *, calm: bool = False) -> Guest:
        """The guest of this name; `calm`: which is in no migration. Raises VirshError."""
        definition = self.find(name)
        guest = self.guest(definition.uuid)
        if guest is None:
            raise VirshError(
                f"Failed to {verb} domain '{name}'\nRequested operation is not valid: domain is not running"
            )
        if calm and (guest.peer is not None or not guest.writes):
            raise VirshError(
                f"Failed to {verb} domain '{name}'\n"
                "Timed out during operation: cannot acquire state change lock"
            )
        return guest

    def _end(self, guest: Guest, reason: str) -> None:
        if not guest.alive:
            return
        guest.alive = False
        self.guests.remove(guest)
        self.last_ran[guest.name] = self.cluster.clock.now() + self.clock_skew
        if guest.uuid in self.definitions:
            self.definitions[guest.uuid].reason = reason
        self.cluster.note(self, f"{guest.name} is off: {reason}")
        if guest.writes:
            self.cluster.law.ended(guest)
        if self.powered and guest.listed:
            self.hook.release(guest.live)
        if guest.peer is not None:
            migration.ended(guest)
        self.cluster.changed(self)

    # -- power, network, services --------------------------------------------------------------------

    @property
    def answers(self) -> bool:
        """Does an open connection to it carry anything?"""
        return self.powered and self.reachable and self.lan.connected

    def cut(self, seconds: float | None = None) -> None:
        """Cut its network, for so many seconds or until `mend`. Its VMs go on running."""
        self.cluster.note(self, "network cut")
        self.reachable = False
        self.cluster.links_broken(self, grace=30.0)
        if seconds is not None:
            self.cluster.after(seconds, self.mend)

    def mend(self) -> None:
        """Bring its network back."""
        self.cluster.note(self, "network back")
        self.reachable = True
        self.cluster.changed(self)

    def freeze_libvirt(self, seconds: float | None = None) -> None:
        """Stop libvirtd from answering, for so long or until `thaw_libvirt`. Its VMs go on running."""
        self.cluster.note(self, "libvirtd frozen")
        self.libvirt_frozen = True
        if seconds is not None:
            self.cluster.after(seconds, self.thaw_libvirt)

    def restart_libvirt(self) -> None:
        """Restart libvirtd, which looks for hooks then. Its VMs go on running."""
        self.cluster.note(self, "libvirtd restarted")
        self.libvirt_frozen = self.libvirt_stopped = False
        self.hook.look()
        self.cluster.changed(self)

    def systemctl(self, words: Sequence[str]) -> tuple[int, str, str]:
        """Answer systemctl: (exit code, output, errors)."""
        verb, units = words[0], [word for word in words[1:] if not word.startswith("-")]
        if verb == "list-units":
            return 0, "" if self.libvirt_stopped else "libvirtd.service loaded active running\n", ""
        if verb in ("is-enabled", "is-active"):
            on = units[0] in (self.enabled if verb == "is-enabled" else self.active)
            yes, no = ("enabled", "disabled") if verb == "is-enabled" else ("active", "inactive")
            return (0, f"{yes}\n", "") if on else (1, f"{no}\n", "")
        if verb == "is-system-running":
            return 0, "running\n", ""
        if verb == "reboot":
            if self.reboot_takes is not None:
                self.cluster.after(1.0, lambda: self.power_off(self.reboot_takes))
            return 0, "", ""
        for unit in units:
            self._systemctl(verb, unit)
        return 0, "", ""

    def _systemctl(self, verb: str, unit: str) -> None:
        if (verb, unit) == ("restart", "libvirtd.service"):
            self.restart_libvirt()
        elif verb == "enable":
            self.enabled.add(unit)
        elif verb == "restart":
            self.active.add(unit)
        elif verb == "disable":
            self.enabled.discard(unit)
            self.active.discard(unit)

    def thaw_libvirt(self) -> None:
        self.cluster.note(self, "libvirtd answers again")
        self.libvirt_frozen = False
        self.cluster.changed(self)

    def power_off(self, seconds: float | None = None) -> None:
        """Take its power away: its guests die where they are. `seconds` later it comes back by itself."""
        self.cluster.note(self, "power lost")
        self.powered = False
        for guest in list(self.guests):
            self._end(guest, "unknown")
        self.cluster.links_broken(self, grace=self.cluster.eviction)
        if seconds is not None:
            self.cluster.after(seconds, self.power_on)

    def loses_power_now(self) -> bool:
        """Told of each change of the guard's files on the store: whether the power goes before this one."""
        if self.power_goes is None or not self.powered:
            return False
        left, seconds = self.power_goes
        self.power_goes = (left - 1, seconds)
        if left > 1:
            return False
        self.power_goes = None
        self.power_off(seconds)
        return True

    def power_on(self) -> None:
        """Boot: a new boot id, libvirt's autostart at once, root's crontab 30 s later."""
        if self.powered:
            return
        self.powered = True
        self.boot_id = self._new_id()
        self.booted_at = self.cluster.clock.now()
        self.libvirt_frozen = self.libvirt_stopped = self.sshd_frozen = False
        self.own_files = {p: data for p, data in self.own_files.items() if not p.startswith("/run/")}
        self.active = set(self.enabled)
        self.lan.booted()
        self.hook.look()
        self.cluster.note(self, "booted")
        self.cluster.changed(self)
        boot = self.boot_id
        self.cluster.after(5.0, lambda: self._libvirt_autostart(boot))
        if script := restart.installed(self):
            self.cluster.after(10.0, lambda: self._run_restart_script(script, boot))
        elif self.restarts_vms:
            self.cluster.after(30.0, lambda: self._restart_running_vms(boot))

    def _libvirt_autostart(self, boot: str) -> None:
        for definition in list(self.definitions.values()):
            if definition.autostart and self.powered and self.boot_id == boot:
                self._boot_start(definition.name)

    def _run_restart_script(self, text: str, boot: str) -> None:
        if self.powered and self.boot_id == boot:
            self.cluster.spawn(restart.Restart(self, text, self.cluster.folder).run)

    def _restart_running_vms(self, boot: str) -> None:
        # As the institute's own script does it today; host.autostart's replaces it.
        for name in self.names_to_restart():
            if self.powered and self.boot_id == boot:
                self._boot_start(name)

    def names_to_restart(self) -> list[str]:
        """The names in /root/running_vms."""
        lines = (self.running_vms or "").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def _boot_start(self, name: str) -> None:
        try:
            self.start(name, by="boot")
        except VirshError as error:
            self.boot_log.append(f"{name}: {error.message}")
        else:
            self.boot_log.append(f"{name}: started")

    def _new_id(self) -> str:
        return str(uuids.UUID(int=self._random.getrandbits(128), version=4))
