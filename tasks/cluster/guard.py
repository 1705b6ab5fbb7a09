"""The guard on a host, libvirt's hook and the liveness service: what is there and what should be."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, HostSilent, LinkLost, Refused
from tasks.cluster.hostfiles import HostFile
from tasks.cluster.hostops import HostOps
from tasks.cluster.model import Inventory
from tasks.cluster.session import Session
from tasks.cluster.templates import render

HOOK = "/etc/libvirt/hooks/qemu"
PROGRAM = "/usr/local/sbin/vmfab-liveness"
TEND = "/usr/local/sbin/vmfab-tend"
UNIT = "vmfab-liveness.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
MIRROR = Path(__file__).resolve().parents[1] / "onhost/mirror.py"
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


@dataclass(frozen=True, slots=True)
class GuardFile:
    """A file as it should be."""

    path: str
    text: str
    mode: int


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is not as it should be; `after` None: it should not be there."""

    path: str
    before: HostFile
    after: GuardFile | None

    @property
    def diff(self) -> str:
        """Unified; "" when only the permissions differ."""
        old = [] if self.before.text is None else self.before.text.splitlines(keepends=True)
        new = [] if self.after is None else self.after.text.splitlines(keepends=True)
        from_name = "/dev/null" if self.before.text is None else f"a{self.path}"
        to_name = "/dev/null" if self.after is None else f"b{self.path}"
        return "".join(difflib.unified_diff(old, new, from_name, to_name))

    @property
    def modes(self) -> str:
        """The change of permissions in words; "" when they stay."""
        if self.before.text is None or self.after is None or self.before.mode == self.after.mode:
            return ""
        return f"{self.path}: mode {self.before.mode:o} becomes {self.after.mode:o}"


@dataclass(frozen=True, slots=True)
class GuardPlan:
    """What is to be changed on a host. Empty: it is already so."""

    host: str
    files: tuple[FileChange, ...]
    #: turn the liveness service on (True), off (False), or leave it
    service: bool | None
    restart_libvirtd: bool

    @property
    def same(self) -> bool:
        return not self.files and self.service is None and not self.restart_libvirtd

    def steps(self) -> tuple[str, ...]:
        """What is done besides the files, in words."""
        found = []
        if self.service is not None:
            found.append(f"systemctl {'enable and restart' if self.service else 'disable and stop'} {UNIT}")
        if self.restart_libvirtd:
            found.append("restart libvirtd, for it looks for hooks only when it starts; VMs go on")
        return tuple(found)


def hook_text(inventory: Inventory, host: str) -> str:
    """The hook as it should be on a host."""
    return rendered_hook(host, inventory.mount)


def rendered_hook(
    host: str, mount: str, *, running_vms: str = RUNNING_VMS, deadline: float = DEADLINE
) -> str:
    """The text of the hook."""
    return render(
        "libvirt-qemu-hook.py.j2",
        host=host,
        mount=mount,
        running_vms=running_vms,
        deadline=deadline,
        mirror=mirror_part(),
    )


def mirror_part() -> str:
    """What the hook contains of tasks/onhost/mirror.py: all but its beginning, which the hook has already."""
    source = MIRROR.read_text(encoding="utf-8")
    return source[source.index("DEFINITIONS = ") :]


def wanted(inventory: Inventory, host: str) -> tuple[GuardFile, ...]:
    """All files of the guard, in the order in which they are written."""
    program = render("vmfab-liveness.py.j2", host=host, mount=inventory.mount, tend=TEND)
    unit = render("vmfab-liveness.service.j2", mount=inventory.mount, program=PROGRAM)
    return (
        GuardFile(TEND, render("vmfab-tend.py.j2", hook=HOOK), 0o755),
        GuardFile(PROGRAM, program, 0o755),
        GuardFile(UNIT_FILE, unit, 0o644),
        GuardFile(HOOK, hook_text(inventory, host), 0o755),
    )


def plan(ops: HostOps, inventory: Inventory) -> GuardPlan:
    """Compare a host with what it should be. Raises Refused when a file of somebody else is in the way."""
    changes = []
    for file in wanted(inventory, ops.host):
        present = ops.file_read(file.path)
        _ours(ops.host, present)
        if (present.text, present.mode) != (file.text, file.mode):
            changes.append(FileChange(file.path, present, file))
    changed = {change.path for change in changes}
    hook_is_new = any(change.path == HOOK and change.before.text is None for change in changes)
    on = _asked(ops, "is-enabled", UNIT) == "enabled" and _asked(ops, "is-active", UNIT) == "active"
    return GuardPlan(
        ops.host,
        tuple(changes),
        service=None if on and not changed & {PROGRAM, UNIT_FILE} else True,
        restart_libvirtd=hook_is_new or ops.file_read(PENDING).text is not None,
    )


def plan_removal(ops: HostOps, inventory: Inventory) -> GuardPlan:
    """What takes the guard away from a host. Raises Refused for a file of somebody else in its place."""
    changes = []
    for file in wanted(inventory, ops.host):
        present = ops.file_read(file.path)
        _ours(ops.host, present)
        if present.text is not None:
            changes.append(FileChange(file.path, present, None))
    paths = {change.path for change in changes}
    return GuardPlan(
        ops.host,
        tuple(changes),
        service=False if UNIT_FILE in paths else None,
        restart_libvirtd=HOOK in paths or ops.file_read(PENDING).text is not None,
    )


def carry_out(session: Session, plan: GuardPlan, *, clock: Clock) -> None:
    """Make it so, in an order in which a run that is cut off can be repeated.

    Raises HostError, LinkLost, and Failed when what was written does not work.
    """
    with session.using(plan.host) as ops:
        hook = next((c for c in plan.files if c.path == HOOK), None)
        if hook is not None and hook.after is not None:
            # A hook that does not run would end running VMs when libvirtd reconnects to them.
            call(ops, hook.after.text, "check", "vmfab-none")
        if hook is not None and hook.after is None:
            call(ops, hook_text(session.inventory, plan.host), "all VMs", "vmfab-forget")
        if plan.service is False:
            _systemctl(ops, "disable", "--now", UNIT)
        if plan.restart_libvirtd and ops.file_read(PENDING).text is None:
            ops.file_write(PENDING, "", mode=0o600, expect=None)
        for change in plan.files:
            if change.after is not None:
                after = change.after
                ops.file_write(after.path, after.text, mode=after.mode, expect=change.before.sha256)
            elif change.before.sha256 is not None:
                ops.file_remove(change.path, expect=change.before.sha256)
        if plan.service is not None:
            _systemctl(ops, "daemon-reload")
        if plan.service:
            _systemctl(ops, "enable", UNIT)
            _systemctl(ops, "restart", UNIT)
        if plan.restart_libvirtd:
            _restart_libvirtd(ops, clock)
            if hook is not None and hook.after is None:
                # What was started until libvirtd had forgotten the hook.
                call(ops, hook_text(session.inventory, plan.host), "all VMs", "vmfab-forget")
            pending = ops.file_read(PENDING)
            if pending.sha256 is not None:
                ops.file_remove(PENDING, expect=pending.sha256)


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


def _ours(host: str, present: HostFile) -> None:
    if present.text is not None and MARK not in present.text:
        raise Refused(
            f"{present.path} on {host} is not vmfab's.",
            f"Move it away first (libvirt 6.5 and newer also run hooks in {HOOK}.d/).",
        )


def _asked(ops: HostOps, *words: str) -> str:
    return ops.command(["systemctl", *words], timeout=PATIENCE).out.strip()


def _systemctl(ops: HostOps, *words: str) -> None:
    done = ops.command(["systemctl", *words], timeout=PATIENCE)
    if done.rc != 0:
        raise Failed(f"systemctl {' '.join(words)} failed on {ops.host}: {done.err.strip() or done.rc}.")


def _restart_libvirtd(ops: HostOps, clock: Clock) -> None:
    """Restart whichever daemon serves QEMU, if it runs, and see that it knows the same VMs afterwards."""
    listed = _asked(
        ops, "list-units", "--plain", "--no-legend", "--full", "--state=active", "--type=service", *_DAEMONS
    )
    units = [line.split()[0] for line in listed.splitlines() if line.strip()]
    if not units:
        return  # the next connection starts it
    before = {domain.vm.uuid: domain.vm.name for domain in ops.running().active}
    _systemctl(ops, "restart", *units)
    until = clock.now() + PATIENCE
    while True:
        try:
            after = {domain.vm.uuid for domain in ops.running().active}
            break
        except LinkLost:
            raise
        except (HostError, HostSilent) as error:
            if clock.now() > until:
                raise Failed(f"{ops.host}: libvirtd does not answer after its restart ({error}).") from None
            clock.sleep(0.5)
    lost = sorted(name for uuid, name in before.items() if uuid not in after)
    if lost:
        raise Failed(f"{ops.host}: after the restart libvirtd does not list {', '.join(lost)}.")
