"""A host's reboot: that nothing runs there, the request, and the wait until it has again what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent, LinkLost, Refused, Unknown
from tasks.cluster.model import HostFacts, Inventory
from tasks.cluster.setup import fstab, guard, neighbours, secondstart
from tasks.cluster.setup.steps import Booted, run

#: Seconds after which a host that still runs the old boot, and is not shutting down, was not rebooted.
GOING_DOWN = 60.0
#: Seconds between two attempts to log in, or two looks.
PAUSE = 2.0
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_CLUSTER = "/sys/kernel/config/cluster"


@dataclass(frozen=True, slots=True)
class Needs:
    """What a host has to have after its boot, because it had it before or sets it up at each boot."""

    mounts: tuple[str, ...] = ()
    o2cb: bool = False
    libvirt: bool = False
    guard: bool = False

    @property
    def words(self) -> str:
        """All of it, in a few words."""
        named = {"o2cb": self.o2cb, "libvirtd": self.libvirt, "the guard": self.guard}
        return ", ".join([*self.mounts, *(name for name, needed in named.items() if needed)]) or "its ssh"


@dataclass(frozen=True, slots=True)
class Before:
    """A host on which nothing runs, about to be rebooted."""

    host: str
    boot_id: str
    needs: Needs
    #: what hosts.ini wants there and no boot brings
    lacks: tuple[str, ...] = ()
    #: what is mounted there now and no boot brings either
    by_hand: tuple[str, ...] = ()


def look(session: Session, host: str) -> Before:
    """See that the host may be rebooted, and what it has.

    Raises Refused while VMs run there, or when its boot would start one that runs elsewhere; HostSilent.
    """
    with session.using(host) as ops:
        Booted().look(ops)
        facts = ops.observe()
        _refuse_while_used(facts)
        wanted = _mounts_of(session.inventory)
        mounted = neighbours.mounted(ops)
        listed = fstab.mounted_at_boot(ops.file_read(fstab.PATH).text or "")
        types = {**listed, **mounted}
        by_hand = tuple(
            mount
            for mount in wanted
            if mount in mounted and mount not in listed and not _has_unit(ops, mount)
        )
        coming = tuple(mount for mount in wanted if mount in types and mount not in by_hand)
        needs = Needs(
            mounts=coming,
            o2cb=any(types[mount] == "ocfs2" for mount in coming),
            libvirt=not facts.libvirt_problem or _systemd(ops, "is-enabled", "libvirtd.service") == "enabled",
            guard=bool(facts.guarded),
        )
    secondstart.refuse(session, host)
    lacks = tuple(mount for mount in wanted if mount not in types)
    return Before(host, facts.boot_id, needs, lacks, by_hand)


def request(session: Session, before: Before) -> None:
    """Look once more whether a VM runs there, and ask the host to reboot, which it then does by itself.

    Raises Refused, HostSilent (nothing was asked), Failed when it says no. An answer that is lost is none:
    `wait` sees what became of it.
    """
    with session.using(before.host) as ops:
        facts = ops.observe()
        _refuse_while_used(facts)
        if facts.boot_id != before.boot_id:
            raise Refused(f"{before.host} was rebooted by somebody else meanwhile.")
        try:
            ended = run(ops, ["systemctl", "reboot"])
        except LinkLost:
            return
        if ended.rc != 0:
            raise Failed(f"{before.host} does not reboot: {ended.said}.")


def wait(session: Session, before: Before, timeout: float, say: Callable[[str], object]) -> float:
    """Wait for the new boot and for all that the host needs; seconds until it answered with the new boot id.

    `say` hears of each phase. Raises Failed when it did not reboot or lacks something after `timeout` seconds
    in all, Unknown when it has not come back by then.
    """
    begun = session.clock.monotonic()
    _wait_for_boot(session, before, begun, timeout, say)
    back = session.clock.monotonic() - begun
    say(f"is back with a new boot id after {back:.0f} s")
    _wait_for_needs(session, before, begun + timeout)
    return back


def _wait_for_boot(
    session: Session, before: Before, begun: float, timeout: float, say: Callable[[str], object]
) -> None:
    host, clock = before.host, session.clock
    silent = ""
    while True:
        try:
            ops = session.renew(host)
            if ops.file_read(_BOOT_ID).text != f"{before.boot_id}\n":
                return
            state = _systemd(ops, "is-system-running")
        except (HostSilent, HostError) as error:
            if not silent:
                say("does not answer any more")
            silent, state = error.message, ""
        waited = clock.monotonic() - begun
        if state and state != "stopping" and waited > GOING_DOWN:
            raise Failed(f"{host} was asked to reboot and did not: its old boot goes on ({state}).")
        if waited > timeout:
            if state:
                raise Unknown(
                    f"{host} hangs in its shutdown since {waited:.0f} s.",
                    "It still answers ssh: systemctl list-jobs there tells what it waits for.",
                )
            raise Unknown(
                f"{host} has not come back within {timeout:.0f} s: {silent}",
                "Look at its screen or remote management. fab status shows when it is back.",
            )
        session.tell(host, f"{'shuts down' if state else 'is down'}, {waited:.0f} s of {timeout:.0f} s")
        clock.sleep(PAUSE)


def _wait_for_needs(session: Session, before: Before, until: float) -> None:
    host, clock = before.host, session.clock
    while True:
        try:
            with session.using(host) as ops:
                left = lacking(ops, before.needs)
        except (HostSilent, HostError) as error:
            left = (error.message.rstrip("."),)
        if not left:
            return
        if clock.monotonic() > until:
            raise Failed(
                f"{host} is back, but not all it needs: {'; '.join(left)}.",
                f"fab -H {host} host.check tells what to do.",
            )
        session.tell(host, f"waits: {'; '.join(left)}")
        clock.sleep(PAUSE)


def lacking(ops: HostOps, needs: Needs) -> tuple[str, ...]:
    """What a host does not have yet of what it needs, in words. Raises HostSilent, HostError."""
    left = []
    mounted = neighbours.mounted(ops)
    left += [f"{mount} is not mounted" for mount in needs.mounts if mount not in mounted]
    if needs.o2cb and not run(ops, ["find", _CLUSTER, "-mindepth", "1", "-maxdepth", "1"]).out.strip():
        left.append("o2cb is not online")
    facts = ops.observe()
    if needs.libvirt and facts.libvirt_problem:
        left.append(f"libvirtd: {facts.libvirt_problem}")
    if needs.guard and not (facts.guarded and _systemd(ops, "is-active", guard.UNIT) == "active"):
        left.append(f"{guard.UNIT} does not run")
    return tuple(left)


def _refuse_while_used(facts: HostFacts) -> None:
    host = facts.host
    running = {d.vm.uuid: d.vm.name for d in facts.domains if d.running}
    running.update({p.uuid: p.name or f"process {p.pid}" for p in facts.processes if p.uuid not in running})
    if running:
        names = ", ".join(sorted(running.values()))
        verb = "runs" if len(running) == 1 else "run"
        raise Refused(f"{names} {verb} on {host}.", f"Type fab -H {host} drain first, then the same again.")
    for operation in facts.operations:
        if operation.held:
            what = f"{operation.command} of {operation.by}" if operation.command else operation.id
            raise Refused(
                f"An operation is under way, which may need {host}: {what}.", "Wait until it has ended."
            )


def _mounts_of(inventory: Inventory) -> tuple[str, ...]:
    return tuple(store.mount for store in inventory.stores.values()) or (inventory.mount,)


def _has_unit(ops: HostOps, mount: str) -> bool:
    """Whether a unit file of somebody's own mounts this at boot, instead of fstab."""
    unit = run(ops, ["systemd-escape", "--path", "--suffix=mount", mount]).out.strip()
    return _systemd(ops, "is-enabled", unit) in ("enabled", "static")


def _systemd(ops: HostOps, *words: str) -> str:
    return run(ops, ["systemctl", *words]).out.strip()
