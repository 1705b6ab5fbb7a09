"""How VMs come back after a reboot of their host: the script, cron's entry for it, no other autostart."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, Refused
from tasks.cluster.setup import crontab, templates
from tasks.cluster.setup.guard import RUNNING_VMS
from tasks.cluster.setup.secondstart import StartsNothingElsewhere
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, OwnFile, Step, diff, run

SCRIPT = "/usr/local/bin/restart_running_vms"
LOGROTATE = "/etc/logrotate.d/restart_running_vms"
#: Where a crontab goes before it is replaced, followed by the time.
KEPT = "/var/backups/vmfab/crontab.root"
#: Seconds. The store's machine may come back long after the hosts when the power was away.
MOUNT_DEADLINE = 900
#: between two attempts to reach it
RETRY = 20
LIBVIRT_DEADLINE = 300
#: after which a start counts as failed; longer than a guard that waits for a hung store
START_DEADLINE = 120
#: between two starts, so that guests do not all boot at once
PAUSE = 5


def step(session: Session, host: str) -> Step:
    """What `host.autostart` sets up on a host; `host` is its alias."""
    mount = session.inventory.mount
    return Step(
        "autostart",
        (
            StartsNothingElsewhere(session),
            OwnFile(SCRIPT, script(mount, host), 0o755, ("sh", "-n")),
            RebootEntry(SCRIPT),
            LibvirtAutostartOff(),
            OwnFile(LOGROTATE, logrotate(mount), 0o644, ("logrotate", "-d")),
        ),
    )


def script(mount: str, host: str, *, pause: int = PAUSE) -> str:
    """The text of /usr/local/bin/restart_running_vms."""
    return templates.render(
        "restart_running_vms.sh.j2",
        mount=mount,
        alias=host,
        running_vms=RUNNING_VMS,
        lock="/run/restart_running_vms.lock",
        mount_deadline=MOUNT_DEADLINE,
        retry=RETRY,
        libvirt_deadline=LIBVIRT_DEADLINE,
        start_deadline=START_DEADLINE,
        pause=pause,
    )


def logrotate(mount: str) -> str:
    """The text of /etc/logrotate.d/restart_running_vms."""
    return templates.render("restart_running_vms.logrotate.j2", mount=mount)


@dataclass(frozen=True, slots=True)
class RebootEntry:
    """An entry of root's crontab that runs a program after each boot, once."""

    program: str

    def look(self, ops: HostOps) -> Finding:
        present = _crontab(ops)
        wished = crontab.with_reboot_entry(present or "", self.program)
        if wished.text == present:
            return AlreadySo("root's crontab", f"has it: {wished.entry.strip()}")

        def install(ops: HostOps) -> str:
            if _crontab(ops) != present:
                raise Failed(f"{ops.host}: somebody else has changed root's crontab meanwhile.", "Try again.")
            kept = ""
            if present is not None:
                kept = f"{KEPT}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
                ops.file_write(kept, present, mode=0o600, expect=ops.file_read(kept).sha256)
            ended = run(ops, ["crontab", "-"], stdin=wished.text)
            if ended.rc != 0:
                raise Failed(f"{ops.host}: crontab refused the new crontab: {ended.said}.")
            return f"the old one is kept as {kept}" if kept else ""

        # More lines than before: one was added; fewer: repetitions were taken out.
        added = wished.text.count("\n") > (present or "").count("\n")
        why = f"given the entry {wished.entry.strip()}" if added else "rid of repetitions of the entry"
        return Change("root's crontab", why, install, diff("root's crontab", present, wished.text))


def _crontab(ops: HostOps) -> str | None:
    """root's crontab; None when there is none."""
    ended = run(ops, ["crontab", "-l"])
    if ended.rc == 0:
        return ended.out
    if "no crontab for" in ended.err:
        return None
    raise Refused(f"{ops.host}: root's crontab cannot be read: {ended.said}.")


@dataclass(frozen=True, slots=True)
class LibvirtAutostartOff:
    """libvirt starts no VM by itself: it is blind to the other hosts, where the VM may run by then."""

    def look(self, ops: HostOps) -> Finding:
        facts = ops.observe()
        if facts.libvirt_problem:
            raise HostError(ops.host, "libvirt-silent", facts.libvirt_problem)
        marked = tuple(d.vm for d in facts.domains if d.autostart)
        if not marked:
            return AlreadySo("libvirt's autostart", "is off for every VM")
        names = ", ".join(vm.name for vm in marked)

        def turn_off(ops: HostOps) -> str:
            for vm in marked:
                ops.autostart(vm.uuid, on=False)
            return ""

        return Change("libvirt's autostart", f"turned off for {names}", turn_off)
