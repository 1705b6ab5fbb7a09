"""The guard on a host, libvirt's hook and the liveness service: what is there and what should be."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, LinkLost
from tasks.cluster.model import HostFacts, Inventory
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, NoFile, OwnFile, Plan, Step
from tasks.cluster.setup.templates import FOLDER, render

HOOK = "/etc/libvirt/hooks/qemu"
PROGRAM = "/usr/local/sbin/vmfab-liveness"
TEND = "/usr/local/sbin/vmfab-tend"
UNIT = "vmfab-liveness.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
LOGROTATE = "/etc/logrotate.d/vmfab-guard"
MIRROR = Path(__file__).resolve().parents[2] / "onhost/mirror.py"
#: Stands between a new hook's writing and libvirtd's restart; a reboot ends it together with its reason.
PENDING = "/run/vmfab/restart-libvirtd"
#: In every file that the guard consists of; what lacks it is somebody else's.
MARK = "# vmfab guard, written by fab host.guard"
RUNNING_VMS = "/root/running_vms"
#: Seconds for the store to answer the hook.
DEADLINE = 20
#: Seconds for systemctl, and for a restarted libvirtd to answer.
PATIENCE = 60.0
_DAEMONS = ("libvirtd.service", "virtqemud.service")
_TEMPLATES = (
    "libvirt-qemu-hook.py.j2",
    "this-host.py.j2",
    "vmfab-liveness.py.j2",
    "vmfab-liveness.service.j2",
    "vmfab-tend.py.j2",
    "vmfab-guard.logrotate.j2",
)


# -- what it consists of -------------------------------------------------------------------------------------


def hook_text(inventory: Inventory, host: str) -> str:
    """The hook as it should be on a host."""
    return rendered_hook(host, inventory.mount)


def rendered_hook(
    host: str, mount: str, *, running_vms: str = RUNNING_VMS, deadline: float = DEADLINE
) -> str:
    """The text of the hook. Its third line tells the guard's version, and a digest of all other lines."""
    line = "# version\n"
    text = render(
        "libvirt-qemu-hook.py.j2",
        host=host,
        mount=mount,
        running_vms=running_vms,
        deadline=deadline,
        mirror=mirror_part(),
        version="version",
    )
    digest = hashlib.sha256(text.replace(line, "", 1).encode()).hexdigest()[:16]
    return text.replace(line, f"# {version(host, mount)} {digest}\n", 1)


def version(host: str, mount: str) -> str:
    """What the guard on a host is made of, as one word in its hook: another word, another guard.

    Rendering is left out: status asks for it.
    """
    return hashlib.sha256("\0".join([_sources(), host, mount]).encode()).hexdigest()[:16]


@cache
def _sources() -> str:
    paths = [*(FOLDER / name for name in _TEMPLATES), MIRROR]
    return "\0".join(path.read_text(encoding="utf-8") for path in paths)


def state_on(facts: HostFacts, inventory: Inventory) -> str | None:
    """absent, present, or outdated: not what host.guard would write now. None when the host did not say."""
    if facts.guarded is None:
        return None
    if not facts.guarded:
        return "absent"
    return "present" if facts.guard_version == version(facts.host, inventory.mount) else "outdated"


def mirror_part() -> str:
    """What the hook contains of tasks/onhost/mirror.py: all but its beginning, which the hook has already."""
    source = MIRROR.read_text(encoding="utf-8")
    return source[source.index("DEFINITIONS = ") :]


def files(inventory: Inventory, host: str) -> tuple[OwnFile, ...]:
    """All files of the guard but the hook, which comes last."""
    mount = inventory.mount
    program = render("vmfab-liveness.py.j2", host=host, mount=mount, tend=TEND)
    unit = render("vmfab-liveness.service.j2", mount=mount, program=PROGRAM)
    rotation = render("vmfab-guard.logrotate.j2", mount=mount)
    return (
        OwnFile(TEND, render("vmfab-tend.py.j2", hook=HOOK), 0o755, mark=MARK),
        OwnFile(PROGRAM, program, 0o755, mark=MARK),
        OwnFile(UNIT_FILE, unit, 0o644, mark=MARK),
        OwnFile(LOGROTATE, rotation, 0o644, mark=MARK),
    )


def step(inventory: Inventory, host: str) -> Step:
    """What `host.guard` sets up, in an order in which a run that is cut off can be repeated."""
    own = files(inventory, host)
    hook = Hook(hook_text(inventory, host))
    return Step("guard", (*own, hook, Service((*own, hook)), HookIsKnown()))


def removal(inventory: Inventory, host: str) -> Step:
    """What takes the guard away from a host, owner files included."""
    hook = hook_text(inventory, host)
    paths = (HOOK, LOGROTATE, UNIT_FILE, PROGRAM, TEND)
    return Step(
        "removal of the guard",
        (NothingOwned(hook), NoService(), *(NoFile(path, MARK) for path in paths), HookIsForgotten(hook)),
    )


def plan(ops: HostOps, inventory: Inventory) -> Plan:
    """What `host.guard` would change on a host. Raises Refused when a file of somebody else is in the way."""
    return hostsetup.plan(ops, step(inventory, ops.host))


def plan_removal(ops: HostOps, inventory: Inventory) -> Plan:
    """What takes the guard away from a host. Raises Refused for a file of somebody else in its place."""
    return hostsetup.plan(ops, removal(inventory, ops.host))


# -- wishes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hook:
    """libvirt's hook."""

    text: str

    def look(self, ops: HostOps) -> Finding:
        found = OwnFile(HOOK, self.text, 0o755, mark=MARK, hint=_MOVE_HOOK).look(ops)
        if isinstance(found, AlreadySo):
            return found
        change = found

        def write(ops: HostOps) -> str:
            # A hook that does not run would end running VMs when libvirtd reconnects to them.
            call(ops, self.text, "check", "vmfab-none")
            if ops.file_read(HOOK).text is None:
                _mark_pending(ops)
            return change.apply(ops)

        return Change(change.what, change.why, write, change.diff)


_MOVE_HOOK = f"Move it away first (libvirt 6.5 and newer also run hooks in {HOOK}.d/)."


@dataclass(frozen=True, slots=True)
class Service:
    """The liveness service is on, and runs what these files say."""

    files: tuple[OwnFile | Hook, ...]

    def look(self, ops: HostOps) -> Finding:
        on = _asked(ops, "is-enabled", UNIT) == "enabled" and _asked(ops, "is-active", UNIT) == "active"
        if on and all(isinstance(file.look(ops), AlreadySo) for file in self.files):
            return AlreadySo(UNIT, "runs, now and after each boot")

        def restart(ops: HostOps) -> str:
            _systemctl(ops, "daemon-reload")
            _systemctl(ops, "enable", UNIT)
            _systemctl(ops, "restart", UNIT)
            return ""

        return Change(UNIT, "restarted" if on else "enabled and started", restart)


@dataclass(frozen=True, slots=True)
class NoService:
    """The liveness service is off."""

    def look(self, ops: HostOps) -> Finding:
        if ops.file_read(UNIT_FILE).text is None:
            return AlreadySo(UNIT, "is not there")

        def stop(ops: HostOps) -> str:
            _systemctl(ops, "disable", "--now", UNIT)
            return ""

        return Change(UNIT, "disabled and stopped", stop)


@dataclass(frozen=True, slots=True)
class HookIsKnown:
    """libvirtd looks for hooks only when it starts."""

    def look(self, ops: HostOps) -> Finding:
        if ops.file_read(HOOK).text is not None and ops.file_read(PENDING).text is None:
            return AlreadySo("libvirtd", "knows that there is a hook")
        return Change(
            "libvirtd", "restarted: it looks for hooks only when it starts; VMs go on", self._restart
        )

    @staticmethod
    def _restart(ops: HostOps) -> str:
        _restart_libvirtd(ops)
        _unmark_pending(ops)
        return ""


@dataclass(frozen=True, slots=True)
class NothingOwned:
    """No owner file names a host that will have no guard."""

    hook: str

    def look(self, ops: HostOps) -> Finding:
        if ops.file_read(HOOK).text is None:
            return AlreadySo("owner files", "have no guard to ask")

        def forget(ops: HostOps) -> str:
            call(ops, self.hook, "all VMs", "vmfab-forget")
            _mark_pending(ops)
            return ""

        return Change("owner files", f"given back for all VMs of {ops.host}", forget)


@dataclass(frozen=True, slots=True)
class HookIsForgotten:
    """libvirtd does not call a hook any more that is gone."""

    hook: str

    def look(self, ops: HostOps) -> Finding:
        if ops.file_read(HOOK).text is None and ops.file_read(PENDING).text is None:
            return AlreadySo("libvirtd", "knows that there is no hook")

        def restart(ops: HostOps) -> str:
            _systemctl(ops, "daemon-reload")
            _restart_libvirtd(ops)
            # What was started until libvirtd had forgotten the hook.
            call(ops, self.hook, "all VMs", "vmfab-forget")
            _unmark_pending(ops)
            return ""

        return Change("libvirtd", "restarted, so that it asks no hook; VMs go on", restart)


def _mark_pending(ops: HostOps) -> None:
    if ops.file_read(PENDING).text is None:
        ops.file_write(PENDING, "", mode=0o600, expect=None)


def _unmark_pending(ops: HostOps) -> None:
    pending = ops.file_read(PENDING)
    if pending.sha256 is not None:
        ops.file_remove(PENDING, expect=pending.sha256)


# -- on the host ---------------------------------------------------------------------------------------------


def call(ops: HostOps, hook: str, name: str, operation: str, *more: str, xml: str = "") -> str:
    """Run a hook's text on a host, installed there or not; what it printed.

    Raises HostError of kind "guard" when it refuses.
    """
    argv = ["/usr/bin/python3", "-IS", "-c", hook, name, operation, *more]
    done = ops.command(argv, stdin=xml, timeout=DEADLINE + 5.0)
    if done.rc != 0:
        said = done.err.strip().splitlines()
        raise HostError(ops.host, "guard", said[-1] if said else f"the hook ended with {done.rc}")
    return done.out


def _asked(ops: HostOps, *words: str) -> str:
    return ops.command(["systemctl", *words], timeout=PATIENCE).out.strip()


def _systemctl(ops: HostOps, *words: str) -> None:
    done = ops.command(["systemctl", *words], timeout=PATIENCE)
    if done.rc != 0:
        raise Failed(f"systemctl {' '.join(words)} failed on {ops.host}: {done.err.strip() or done.rc}.")


def _restart_libvirtd(ops: HostOps) -> None:
    """Restart whichever daemon serves QEMU, if it runs, and see that it knows the same VMs afterwards."""
    listed = _asked(
        ops, "list-units", "--plain", "--no-legend", "--full", "--state=active", "--type=service", *_DAEMONS
    )
    units = [line.split()[0] for line in listed.splitlines() if line.strip()]
    if not units:
        return  # the next connection starts it
    before = {domain.vm.uuid: domain.vm.name for domain in ops.running().active}
    _systemctl(ops, "restart", *units)
    clock = Clock()
    until = clock.monotonic() + PATIENCE
    while True:
        try:
            after = {domain.vm.uuid for domain in ops.running().active}
            break
        except LinkLost:
            raise
        except (HostError, HostSilent) as error:
            if clock.monotonic() > until:
                raise Failed(f"{ops.host}: libvirtd does not answer after its restart ({error}).") from None
            clock.sleep(0.5)
    lost = sorted(name for uuid, name in before.items() if uuid not in after)
    if lost:
        raise Failed(f"{ops.host}: after the restart libvirtd does not list {', '.join(lost)}.")
