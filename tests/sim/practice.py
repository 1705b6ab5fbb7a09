"""The cluster of the state machines: three hosts, four VMs, two operators, and everything that breaks.

What is done here is legal at any moment, or says why not (`start_by_hand`): without the guard on its hosts
nobody can keep a hand-typed start from breaking the law.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tasks import vmdefinitions, vmpower
from tasks.audit import audit
from tasks.drain import drain, undrain
from tasks.evacuate import evacuate
from tasks.migrate import migrate
from tasks.resume import resume
from tasks.status import status
from tests.domain.desk import Desk
from tests.sim import migration
from tests.sim.cluster import SimCluster
from tests.sim.domains import Disk
from tests.sim.errors import VirshError
from tests.sim.faults import Call
from tests.sim.guard import SimGuard
from tests.sim.guests import Behaviour
from tests.sim.host import SimHost
from tests.sim.operators import Operator
from tests.sim.store import MOUNT

HOSTS = ("vmhost1", "vmhost2", "vmhost3")
#: "twin" is another definition that names the image of "web"
VMS = ("web", "db", "mail", "twin")
#: seconds after which everything that was under way has ended
SETTLED = 400.0


def _users(vm: str) -> set[str]:
    """All VMs that write the image of this one."""
    return {"web", "twin"} if vm in ("web", "twin") else {vm}


class Practice:
    """One cluster, from its beginning to the proof that nothing is stuck."""

    VERBS = ("shutdown", "destroy", "suspend", "resume", "managedsave", "undefine", "define", "autostart")
    BREAKS = (
        "power",
        "network",
        "libvirtd",
        "sshd",
        "unmounted",
        "read-only",
        "hung",
        "full",
        "clock",
        "restart",
        "service",
    )
    GUESTS = (
        *("good", "never", "slow", "asked twice", "reboots", "undead", "liar", "ignores SIGTERM"),
        *(
            "fails once",
            "fails twice",
            "crashes at once",
            "crashes in 5 s",
            "crashes now",
            "lost by libvirtd",
        ),
    )

    def __init__(self, *, guarded: bool = False, restarting: bool = False) -> None:
        """`guarded`: the hook is on all hosts; `restarting`: so is the restart script."""
        self.guarded = guarded
        self.sim = SimCluster(HOSTS, memory_gib=8)
        self.sim.__enter__()
        self.desk = Desk(self.sim)
        self.xml: dict[str, str] = {}
        self.uuid: dict[str, str] = {}
        if guarded:
            self.sim.guard()
        if restarting:
            self.sim.autostart()
        self._add()
        self.guard = SimGuard(self.sim) if guarded else None
        self.operators = {name: Operator(self.sim, self.desk, name) for name in ("ada", "bob")}
        for one in self.operators.values():
            one.others = [other for other in self.operators.values() if other is not one]

    def _add(self) -> None:
        sim, shared = self.sim, Disk(f"{MOUNT}/web.qcow2")
        vms = [
            sim.add_vm("web", "vmhost1", disks=[shared], also_defined_on=["vmhost2"]),
            sim.add_vm("db", "vmhost1", disks=[Disk(f"{MOUNT}/db.qcow2"), Disk(f"{MOUNT}/db2.qcow2", "vdb")]),
            sim.add_vm("mail", "vmhost2"),
            sim.add_vm("twin", "vmhost3", disks=[shared], running=False),
        ]
        for vm in vms:
            host = next(h for h in sim.hosts.values() if vm.uuid in h.definitions)
            self.uuid[vm.name] = vm.uuid
            self.xml[vm.name] = host.definitions[vm.uuid].xml

    def close(self) -> None:
        """End it without asking about the law once more."""
        self.sim.__exit__(None, AssertionError(), None)

    # -- commands ------------------------------------------------------------------------------------

    def migrate(self, who: str, vm: str, to: str, *, no_destroy: bool, undefine_source: bool) -> None:
        flags: dict[str, Any] = {"no_destroy": no_destroy, "undefine_source": undefine_source}
        typed = "".join(f" --{name.replace('_', '-')}" for name, on in flags.items() if on)
        self.operators[who].type(
            f"migrate {vm} --to {to}{typed}",
            migrate,
            vm,
            to=to,
            timeout=20.0,
            allow_shared_image=True,
            after=lambda: self._not_on(vm, to),
            **flags,
        )

    def drain(self, who: str, host: str, *, partial: bool) -> None:
        words = f"-H {host} drain{' --partial' if partial else ''}"
        after = lambda: f"{host} is not empty" if self.sim[host].guests else ""  # noqa: E731
        self.operators[who].type(
            words, drain, hosts=[host], partial=partial, timeout=20.0, allow_shared_image=True, after=after
        )

    def undrain(self, who: str, host: str, *, stay: bool) -> None:
        words = f"-H {host} undrain{' --stay' if stay else ''}"
        after = lambda: f"{host} is cordoned" if host in self.cordoned() else ""  # noqa: E731
        self.operators[who].type(
            words, undrain, hosts=[host], stay=stay, timeout=20.0, allow_shared_image=True, after=after
        )

    def start(self, who: str, vm: str, host: str) -> None:
        on = f"-H {host} " if host else ""
        self.operators[who].type(
            f"{on}vm.start {vm}",
            vmpower.start,
            vm,
            hosts=[host] if host else [],
            after=lambda: self._not_on(vm, host),
        )

    def shutdown(self, who: str, vm: str) -> None:
        self.operators[who].type(
            f"vm.shutdown {vm}", vmpower.shutdown, vm, timeout=20.0, after=lambda: self._not_off(vm)
        )

    def destroy(self, who: str, vm: str) -> None:
        self.operators[who].type(f"vm.destroy {vm}", vmpower.destroy, vm, after=lambda: self._not_off(vm))

    def undefine(self, who: str, vm: str, host: str) -> None:
        words = f"{f'-H {host} ' if host else ''}vm.undefine {vm}"
        self.operators[who].type(words, vmdefinitions.undefine, vm, hosts=[host] if host else [])

    def define(self, who: str, vm: str, host: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"{vm}.xml"
            file.write_text(self.xml[vm], encoding="utf-8")
            self.operators[who].type(
                f"-H {host} vm.define {vm}.xml", vmdefinitions.define, file=str(file), hosts=[host]
            )
            self.sim.wait(0.0)  # the file is read before the first host is asked

    def evacuate(self, who: str, host: str) -> None:
        self.operators[who].type(
            f"-H {host} evacuate --confirm {host}",
            evacuate,
            hosts=[host],
            confirm=host,
            allow_shared_image=True,
            after=lambda: self._still_owned_by(host),
        )

    def _still_owned_by(self, host: str) -> str:
        """What a host that is dead still owns; one that is back owns what it starts."""
        if self.sim[host].powered or self.guard is None:
            return ""
        left = sorted(vm for vm, owner in self.guard.owners().items() if owner == host)
        return f"{host} still owns {', '.join(left)}" if left else ""

    def resume(self, who: str) -> None:
        self.operators[who].type("resume", resume, timeout=20.0)

    def audit(self, who: str) -> None:
        self.operators[who].type("audit", audit)

    def status(self, who: str) -> None:
        self.operators[who].type("status", status)

    def _not_on(self, vm: str, host: str) -> str:
        where = self.sim.where(vm)
        good = where == (host,) if host else len(where) == 1
        return "" if good else f"{vm} runs on {where or 'no host'}"

    def _not_off(self, vm: str) -> str:
        return f"{vm} runs on {self.sim.where(vm)}" if self.sim.where(vm) else ""

    def cordoned(self) -> list[str]:
        return [host for host in HOSTS if f"cordons/{host}.json" in self.sim.store.files]

    # -- hands on a host's own keyboard --------------------------------------------------------------

    def virsh(self, host: str, verb: str, vm: str) -> None:
        """What somebody types on a host; what libvirt or the guard says to it is theirs to read."""
        machine = self.sim[host]
        if not machine.powered or machine.libvirt_frozen or machine.view.hanging:
            return
        if verb == ("autostart" if self._saved(vm) else "managedsave" if self._autostarts(vm) else ""):
            return  # memory that libvirt itself brings back on a disk that has changed: nobody is asked
        acts: dict[str, Callable[[], object]] = {
            "start": lambda: machine.start(vm),
            "shutdown": lambda: machine.shutdown(vm),
            "destroy": lambda: machine.destroy(vm),
            "suspend": lambda: machine.suspend(vm),
            "resume": lambda: machine.resume(vm),
            "managedsave": lambda: machine.managed_save(vm),
            "undefine": lambda: machine.undefine(vm),
            "autostart": lambda: machine.autostart(vm, on=True),
            "define": lambda: machine.define(self.xml[vm]),
        }
        with suppress(VirshError):
            acts[verb]()

    def migrate_by_hand(self, source: str, vm: str, to: str, *, seconds: float, undefine: bool) -> None:
        """Type `virsh migrate --live --persistent`, which only the guard makes safe."""
        machine = self.sim[source]
        if not self.guarded or not machine.powered or machine.libvirt_frozen or self._saved(vm):
            return
        with suppress(VirshError):
            migration.begin(machine, vm, self.sim[to], seconds=seconds, undefine=undefine)

    def start_by_hand(self, host: str, vm: str) -> None:
        """Type `virsh start`; without the guard, only when that is no order to break the law."""
        if self.guarded or (not self._busy() and self._is_off(vm)):
            self._start_carefully(host, vm)

    def start_behind(self, host: str, then: str) -> None:
        """Start the VM whose end a command notices next, by hand, in that very moment, on this host.

        What the command does next has to find that out, though something breaks on that host at once.
        """

        def do(call: Call) -> None:
            vm = next(name for name, uuid in self.uuid.items() if uuid == call.args["uuid"])
            if self._is_off(vm):
                self._start_carefully(host, vm)
                self.breaks(host, then, 60.0)

        self.sim.faults.on(do, op="wait_off", when="after")

    def _saved(self, vm: str) -> bool:
        """Whether any host has a managed save of a user of its image."""
        every = [d for host in self.sim.hosts.values() for d in host.definitions.values()]
        return any(d.managed_save is not None and d.name in _users(vm) for d in every)

    def _autostarts(self, vm: str) -> bool:
        every = [d for host in self.sim.hosts.values() for d in host.definitions.values()]
        return any(d.autostart and d.name in _users(vm) for d in every)

    def _busy(self) -> bool:
        return any(operator.busy for operator in self.operators.values())

    def _is_off(self, vm: str) -> bool:
        """Whether neither it nor who shares its image runs, and nobody is without power."""
        up = all(host.powered for host in self.sim.hosts.values())
        return up and not any(self.sim.where(user) for user in _users(vm))

    def _start_carefully(self, host: str, vm: str) -> None:
        """Without the guard, which does that by itself, put the lists right as well.

        Old memory on a changed disk is beyond the guard: nobody types that.
        """
        if self._saved(vm):
            return
        if not self.guarded:
            for other in self.sim.hosts.values():
                names = [name for name in other.names_to_restart() if name not in _users(vm)]
                other.running_vms = "".join(f"{name}\n" for name in names)
            self.sim[host].running_vms = (self.sim[host].running_vms or "") + f"{vm}\n"
        self.virsh(host, "start", vm)

    # -- what breaks ---------------------------------------------------------------------------------

    def breaks(self, host: str, what: str, seconds: float) -> None:
        """Break one thing of a host for so long."""
        machine = self.sim[host]
        if what == "nothing":
            return
        if what == "power":
            if machine.powered:
                machine.power_off(seconds)
        elif what == "network":
            machine.cut(seconds)
        elif what == "libvirtd":
            machine.freeze_libvirt(seconds)
        elif what == "restart":
            if machine.powered:
                machine.restart_libvirt()
        elif what == "service":
            self._stop_service(host, seconds)
        else:
            self._set(machine, what, on=True)
            self.sim.after(seconds, lambda: self._set(machine, what, on=False))

    def _stop_service(self, host: str, seconds: float) -> None:
        """`systemctl stop` of the guard's service: from now on the host's lock proves nothing."""
        if self.guard is None:
            return
        self.sim.note(self.sim[host], "the guard's service is stopped")
        self.guard.stop_service(host)
        self.sim.after(seconds, functools.partial(self.guard.start_service, host))

    def power_cut_within(self, host: str, changes: int, seconds: float) -> None:
        """Cut a host's power within what a hook or an agent there is writing, so many changes from now."""
        self.sim[host].power_goes = (changes, seconds)

    def _set(self, host: SimHost, what: str, *, on: bool) -> None:
        self.sim.note(host, f"{what}: {'yes' if on else 'no more'}")
        if what == "unmounted":
            host.view.mounted = not on
        elif what == "read-only":
            host.view.read_only = on
        elif what == "hung":
            host.view.hung = on
        elif what == "full":
            self.sim.store.full = on
        elif what == "sshd":
            host.sshd_frozen = on
        else:
            host.clock_skew = 90.0 if on else 0.0
        self.sim.changed(host)

    def guest(self, vm: str, how: str, host: str) -> None:
        """Let a VM behave like this from now on; where it matters, on a host ("": on each)."""
        behaviour, running = self.sim.behaviour(vm), self.sim.guest(vm)
        if how in ("crashes now", "lost by libvirtd"):
            if running is None or not running.listed or running.host.libvirt_frozen:
                return
            if how == "crashes now":
                running.host.kill(running)
            else:
                running.host.lose_track(vm)
            return
        behaviour.off_after = {"never": None, "slow": 15.0}.get(how, 2.0)
        behaviour.ignores = 1 if how == "asked twice" else 0
        behaviour.reboots_instead = how == "reboots"
        behaviour.destroy = {"undead": "fails", "liar": "lies"}.get(how, "works")
        behaviour.ignores_sigterm = how == "ignores SIGTERM"
        times, seconds = {"fails once": 1, "fails twice": 2}, {"crashes at once": 0.2, "crashes in 5 s": 5.0}
        behaviour.failing_starts = {host: times[how]} if how in times else {}
        behaviour.crash_after = {host: seconds[how]} if how in seconds else {}

    def mend(self) -> None:
        """Put everything right that broke, but for what guests do and what is yet to strike."""
        self.sim.delay = 0.002
        self.sim.store.full = False
        for host in self.sim.hosts.values():
            host.view.mounted, host.view.hung, host.view.read_only = True, False, False
            host.clock_skew, host.sshd_frozen = 0.0, False
            host.power_goes = None
            if self.guard is not None:
                self.guard.start_service(host.name)
            if host.libvirt_frozen:
                host.thaw_libvirt()
            if not host.reachable:
                host.mend()
            host.power_on()

    # -- the end -------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Put everything right that broke, and let what is under way come to its end."""
        sim = self.sim
        for name in VMS:
            sim.behaviours[name] = Behaviour()
        sim.faults.clear()
        self.mend()
        for host in sim.hosts.values():
            for guest in list(host.guests):
                guest.behaviour = Behaviour()
        sim.wait(SETTLED)
        for operator in self.operators.values():
            operator.disturb()
            operator.finish()
        for host in sim.hosts.values():
            for guest in list(host.guests):
                if not guest.listed:
                    host.kill(guest)
                elif guest.state == "paused":
                    host.resume(guest.name)

    def nothing_is_stuck(self) -> None:
        """Every VM can be made to run by what README tells, and be moved. Raises AssertionError."""
        self.resume("ada")
        ended = self.operators["ada"].finish()
        assert ended is not None
        assert ended.code in (0, 1), f"everything is healed, yet: {ended}"
        self.resume("ada")
        self._ended_well()
        for host in self.cordoned():
            self.undrain("ada", host, stay=True)
            self._ended_well()
        for vm in ("web", "db", "mail"):
            self._runs_again(vm)
            self._moves(vm)
        (host,) = self.sim.where("web")
        self.drain("ada", host, partial=False)
        self._ended_well()
        self.undrain("ada", host, stay=False)
        self._ended_well()

    def _ended_well(self) -> None:
        ended = self.operators["ada"].finish()
        assert ended is not None
        assert ended.code == 0, f"everything is healed, yet: {ended}"

    def _runs_again(self, vm: str) -> None:
        """Start it where it belongs, else where a host can; a managed save is removed as vm.start says."""
        others = _users(vm) - {vm}
        for other in others:
            if self.sim.where(other):
                self.shutdown("ada", other)
                self._ended_well()
        for host in self.sim.hosts.values():
            for guest in host.guests:
                if guest.uuid not in host.definitions:
                    host.define(self.xml[guest.name])  # as migrate advises: virsh define keeps it
        for host in self.sim.hosts.values():
            for definition in host.definitions.values():
                if definition.name in (vm, *others):
                    definition.managed_save = None  # as migrate and vm.start advise
        if self.sim.where(vm):
            return
        if not self._defined(vm):
            for other in filter(self._defined, others):
                self.undefine("ada", other, "")
                self._ended_well()
            self.define("ada", vm, HOSTS[0])
            self._ended_well()
        said = []
        for name in ("", *HOSTS):
            self.start("ada", vm, name)
            ended = self.operators["ada"].finish()
            if ended is not None and ended.code == 0:
                return
            said.append((name, ended))
        raise AssertionError(f"{vm} cannot be started any more: {said}")

    def _defined(self, vm: str) -> bool:
        return any(d.name == vm for h in self.sim.hosts.values() for d in h.definitions.values())

    def _moves(self, vm: str) -> None:
        (where,) = self.sim.where(vm)
        to = next(host for host in HOSTS if host != where)
        self.migrate("ada", vm, to, no_destroy=False, undefine_source=False)
        self._ended_well()
