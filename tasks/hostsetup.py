"""What an operator types to set a host up: all steps with host.setup, and each alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli import Hosts, Operator, vmtask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.cli.wholesetup import Checked

#: Version of the document of host.check --json; raised when a field changes its meaning or goes away.
SCHEMA = 1


@vmtask(Hosts.SEVERAL)
def setup(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Make a bare server a member of the cluster.

    Takes every step of a host's set-up in its order, each of which is a task of its own as well. Looks at all
    hosts first, shows what is there and what would be changed, asks once, and changes host after host. A step
    that needs what an earlier one brings is named and shown when its turn comes. The first failure ends it
    and names what was not reached. The same again goes on from there; what is done already is left alone.

    Exit codes: 0 set up and verified, 1 a step failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost3 host.setup --dry-run
        fab -H vmhost1,vmhost2,vmhost3 host.setup
    """
    from tasks.cli import wholesetup

    wholesetup.set_up(op, dry_run=dry_run)


@vmtask(Hosts.SEVERAL)
def packages(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Install the packages that a cluster host needs.

    Looks which release the host runs and which of these packages it lacks, shows them with their reasons,
    asks, and installs them with apt-get: without recommended packages, without removing any, and with the
    configuration files that are there. An installation that was cut off is finished first. It goes on when
    the connection breaks; what it wrote is in /var/log/vmfab/packages.log on the host.

    qemu-system-x86, qemu-utils, ovmf, libvirt-daemon-system, libvirt-clients, open-iscsi, ocfs2-tools,
    netplan.io, cron, logrotate, minicom; on newer releases qemu-system-modules-spice; on Ubuntu
    linux-modules-extra of the running kernel where that has no OCFS2.

    Exit codes: 0 installed and verified, 1 it failed, 2 refused, 3 it may still be going on.

    Examples:
        fab -H vmhost1 host.packages --dry-run
        fab -H vmhosts host.packages
    """
    from tasks.cli import settingup
    from tasks.cluster.setup import packages

    settingup.set_up(op, lambda host: packages.step(host, op.clock), dry_run=dry_run)


@vmtask(
    Hosts.SEVERAL,
    help={"timeout": "Seconds until the old network is back, unless a new login has worked; default 120."},
)
def bridge(op: Operator, timeout: float | None = None, dry_run: bool = False, yes: bool = False) -> None:
    """Put a bridge over a host's NIC, for its VMs.

    The bridge gets the NIC's addresses, routes, name servers and MAC; the storage NIC its address and MTU.
    Writes one file for netplan, in the place of those that say something about these NICs; what else they say
    stays in it, and they are kept below /var/backups/vmfab. hosts.ini may ask for something else than what
    the host has. netplan checks the files off to the side before anything is touched.

    The new network is tried first, in /run, and lasts when a new ssh login has worked. Else the old one is
    back by itself after --timeout, also when this computer is gone, and after a reboot. The host is off the
    network for some seconds. A bridge that is there already, by whoever's hand, is left alone.

    Refused when VMs use the bridge that is to be changed; when the NIC is part of a bond or of another
    bridge, is wireless, or carries a VM's macvtap; when ifupdown or NetworkManager configures it.

    Exit codes: 0 in place and verified, 1 it failed and the old network is back, 2 refused, 3 the host is not
    heard any more: look at its console.

    Examples:
        fab -H vmhost1 host.bridge --dry-run
        fab -H vmhost1 host.bridge
    """
    from tasks.cli import settingup
    from tasks.cluster.errors import Refused
    from tasks.cluster.setup import bridge

    patience = bridge.PATIENCE if timeout is None else timeout
    if patience < bridge.SHORTEST:
        raise Refused(
            f"--timeout {patience:g} is too short for a new login and the way back.",
            f"Give it at least {bridge.SHORTEST:g} seconds.",
        )
    settingup.set_up_with(op, lambda session, host: bridge.step(session, host, patience), dry_run=dry_run)


@vmtask(Hosts.FILTER)
def check(op: Operator, json: bool = False) -> int:
    """Tell what a host's set-up lacks.

    Looks at every step that host.setup takes, on all hosts or on those of -H, and changes nothing. Says what
    is missing or different, and what to type about it.

    Exit code 0 when nothing is missing, 1 when something is, 3 when a host could not be looked at.

    --json prints one document:
        schema: 1; hosts: [{host, complete: whether it could be looked at, silent: why not, steps: [name],
            missing: [{step, what, why, advice}]}]

    Examples:
        fab host.check
        fab -H vmhost3 host.check --json
    """
    from tasks.cli import wholesetup

    with op.session(unhurried=True) as session:
        seen = wholesetup.check(session, op.hosts or tuple(op.inventory.hosts))
    if json:
        op.output.document(document(seen))
    else:
        for one in seen:
            _show(op, one)
    if any(one.silent for one in seen):
        return 3
    return 1 if any(one.missing for one in seen) else 0


def _show(op: Operator, one: Checked) -> None:
    for number, lack in enumerate(one.missing, 1):
        op.say(": ".join(filter(None, (one.host, lack.step, lack.what, lack.why))), "bold red")
        if number == len(one.missing) or one.missing[number].advice != lack.advice:
            op.say(f"  > {lack.advice}")
    if one.silent:
        op.say(f"{one.host}: cannot be looked at: {one.silent}", "bold red")
    elif not one.missing:
        op.say(f"{one.host}: nothing is missing ({', '.join(one.steps)})", "green")


def document(seen: Sequence[Checked]) -> dict[str, Any]:
    """The document of --json; its fields are described at `check`."""
    return {
        "schema": SCHEMA,
        "hosts": [
            {
                "host": one.host,
                "complete": not one.silent,
                "silent": one.silent,
                "steps": list(one.steps),
                "missing": [
                    {"step": lack.step, "what": lack.what, "why": lack.why, "advice": lack.advice}
                    for lack in one.missing
                ],
            }
            for one in seen
        ],
    }


@vmtask(Hosts.SEVERAL)
def serial(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Set up minicom for the consoles on a host's serial lines.

    Writes /etc/minicom/minirc.NAME for each console that hosts.ini has in the group consoles at this host,
    with its device, speed and parity, and removes those that it has no more. Files that are not vmfab's stay.
    host.console NAME opens a console then.

    Exit codes: 0 set up and verified, 1 it failed, 2 refused, 3 it cannot be seen whether all is set up.

    Example: fab -H vmhost1 host.serial
    """
    from tasks.cli import settingup
    from tasks.cluster.setup import serial

    settingup.set_up(op, lambda host: serial.step(op.inventory, host), dry_run=dry_run)


@vmtask(positional=["name"], help={"name": "A console in the group consoles of hosts.ini."})
def console(op: Operator, name: str) -> None:
    """Open a console that is on a host's serial line.

    Connects with ssh to the host that has the line and opens minicom there, as host.serial has configured it.
    Leave it with Ctrl-A X. Needs a terminal. Somebody else who has it open is named by minicom.

    Example: fab host.console raid
    """
    from tasks.cli import terminal
    from tasks.cluster.errors import Refused
    from tasks.cluster.setup import serial
    from tasks.cluster.setup import steps as hostsetup

    terminal.need("A console")
    known = op.inventory.consoles
    if name not in known:
        there = f"There are {', '.join(known)}." if known else "Write one into its group consoles."
        raise Refused(f"{op.inventory.path} has no console {name!r}.", there)
    host = known[name].host
    with op.session(unhurried=True) as session:
        planned = hostsetup.plan(session.host(host), serial.step(op.inventory, host))
    if planned.changes:
        raise Refused(
            f"{host}'s minicom is not set up as {op.inventory.path} says.", f"Type fab -H {host} host.serial"
        )
    op.say(f"Console {name} on {known[name].device} of {host}. Leave it with Ctrl-A X.")
    terminal.open(op, host, ["minicom", name])


@vmtask(
    Hosts.ONE,
    help={"timeout": "Seconds for the host to come back with all it needs (900 unless given)."},
)
def reboot(op: Operator, timeout: float = 900.0, dry_run: bool = False, yes: bool = False) -> None:
    """Reboot a host on which no VM runs, and wait for it.

    Refuses while a VM runs there: drain it first. Asks, reboots, and waits until the host has a new boot id,
    then until it has again what it had or has to have: the stores, o2cb, libvirtd and the guard. Its cordon
    stays as it is. The host reboots by itself: when the laptop or the connection is gone, nothing is lost but
    the report, and fab status shows when it is back.

    Exit codes: 0 back with all it needs, 1 it did not reboot or lacks something, 2 refused, 3 it has not come
    back in time.

    Examples:
        fab -H vmhost1 host.reboot --dry-run
        fab -H vmhost1 host.reboot
    """
    from tasks.cli import rebooting

    rebooting.reboot(op, timeout=timeout, dry_run=dry_run)
