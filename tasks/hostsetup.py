"""What an operator types to set a host up: all steps with host.setup, and each alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli import Hosts, Operator, vmtask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.cli.wholesetup import Checked

#: Version of the document of host.check --json; raised when a field changes its meaning or goes away.
SCHEMA = 1
#: The flags about new stores.
FORMAT = {
    "format": "Also make the file system of a store that has none, on its bare disk.",
    "confirm": "With --format: the labels of the stores to format, with commas, instead of typing them.",
}


@vmtask(Hosts.SEVERAL, help=FORMAT)
def setup(
    op: Operator, format: bool = False, confirm: str = "", dry_run: bool = False, yes: bool = False
) -> None:
    """Make a bare server a member of the cluster.

    Takes every step of a host's set-up in its order, each of which is a task of its own as well. Looks at all
    hosts first, shows what is there and what would be changed, asks once, and changes host after host. A step
    that needs what an earlier one brings is named and shown when its turn comes. The first failure ends it
    and names what was not reached. The same again goes on from there; what is done already is left alone.

    A new cluster's store has no file system yet. --format makes it when the first host has logged in to it,
    under the conditions of host.ocfs2 --format: the disk is bare, all hosts answer, the label is typed.

    Exit codes: 0 set up and verified, 1 a step failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost3 host.setup --dry-run
        fab -H vmhost1,vmhost2,vmhost3 host.setup
        fab -H vmhosts host.setup --format
    """
    from tasks.cli import formatting, wholesetup

    wholesetup.set_up(op, labels=formatting.labels_of(op, confirm, format=format), dry_run=dry_run)


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


@vmtask(Hosts.SEVERAL)
def iscsi(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Log a host in to the stores' iSCSI targets.

    Gives the initiator a name that no other host has, binds sessions to the NIC that has the host's storage
    address, makes a node record for each store's target (at boot, through that NIC, with CHAP when hosts.ini
    says so), logs in, and sees that the disk is there. A second way to the same target is kept from logging
    in by itself; no session is ever logged out. Shows all differences and asks. The same again is fine.

    The CHAP secret comes from vmfab_chap_secret_file, a file of mode 0600 on this computer. It is never shown
    and never on a command line; on the host it is in the node record, of mode 0600.

    Refused when a store offers several targets and vmfab_target names none of them, when two sessions show
    the same disk, or when the host is logged in under another host's initiator name.

    Exit codes: 0 logged in and verified, 1 it failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost1 host.iscsi --dry-run
        fab -H vmhost1,vmhost2 host.iscsi
    """
    from tasks.cli import settingup
    from tasks.cluster.setup import iscsi

    settingup.set_up_with(op, iscsi.step, dry_run=dry_run)


@vmtask(Hosts.SEVERAL, help=FORMAT)
def ocfs2(
    op: Operator, format: bool = False, confirm: str = "", dry_run: bool = False, yes: bool = False
) -> None:
    """Mount the stores on a host, as a node of the cluster.

    Writes the cluster.conf that all hosts share (also on those that are nodes already, while they run), the
    settings of o2cb and the lines of fstab, brings the cluster online, and mounts each store by its label, if
    that is the same file system as on the other hosts. A panic reboots the host; guests are shut down before
    their store is unmounted, and the script that would kill them instead is masked. Shows all differences
    and asks. The same again is fine.

    What the hosts' cluster.conf says stays. Refused when two hosts, or a host and hosts.ini, contradict each
    other, when a node that would have to hear of a new one is silent, when no device or several have the
    label, and when files lie below the mount point.

    --format makes the file system of a store whose label is nowhere. Refused unless every host answers, and
    the disk has no signature, nothing on top and no user on any of them. The label has to be typed, or given
    with --confirm; --yes does not answer this question.

    Exit codes: 0 mounted and verified, 1 it failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost1 host.ocfs2 --dry-run
        fab -H vmhost1 host.ocfs2 --format
        fab -H vmhosts host.ocfs2
    """
    from tasks.cli import formatting, settingup
    from tasks.cluster.errors import Failed, Refused
    from tasks.cluster.setup import ocfs2

    labels = formatting.labels_of(op, confirm, format=format)
    formatted = False
    if labels is not None:
        if len(op.hosts) != 1:
            raise Refused("--format acts on one host.", f"Example: fab -H {op.hosts[0]} host.ocfs2 --format")
        with op.session(unhurried=True) as session:
            formatted = formatting.make_file_systems(op, session, op.hosts[0], labels=labels, dry_run=dry_run)
        if dry_run:
            return
    try:
        settingup.set_up_with(op, ocfs2.step, dry_run=dry_run)
    except Refused as error:
        if not formatted:
            raise
        raise Failed(f"The file system is made, but {error.message}", error.hint) from error


@vmtask(
    Hosts.SEVERAL,
    help={"remove": "Take the guard away from the hosts, and give back what they own."},
)
def guard(op: Operator, remove: bool = False, dry_run: bool = False, yes: bool = False) -> int:
    """Install what keeps a VM from being started twice.

    Installs libvirt's hook (/etc/libvirt/hooks/qemu), which lets an image be written by one VM on one host
    only, whoever asks for the start, and a service that holds the host's lock on the store while it is up.
    Shows what changes in each file, asks, installs, and looks again. A new hook needs a restart of libvirtd:
    running VMs go on. Then each running VM gets owner files for its images; one whose image is in use or
    owned elsewhere is reported and left alone. A second run changes nothing.

    Refused when somebody else's hook is there, or a host of -H does not answer.

    Exit codes: 0 in place and verified, 1 a step failed or a running VM has no owner files, 2 refused, 3 a
    host was lost on the way: run it again.

    Examples:
        fab -H vmhosts host.guard --dry-run
        fab -H vmhost1,vmhost2 host.guard
        fab -H vmhost1 host.guard --remove
    """
    from tasks.cli import guarding

    return guarding.remove(op, dry_run=dry_run) if remove else guarding.install(op, dry_run=dry_run)


@vmtask(Hosts.SEVERAL)
def autostart(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Let a host's VMs come back after its reboot.

    Installs /usr/local/bin/restart_running_vms, which starts what /root/running_vms names and logs it in
    restart_running_vms.log on the store, root's crontab entry "@reboot" for it, and the rotation of that log;
    turns libvirt's autostart off for every VM, because libvirt starts them without looking at other hosts.
    An entry that runs the script already stays as it is spelled; nothing else in the crontab is touched. What
    is replaced is kept below /var/backups/vmfab. Shows all differences and asks. The same again is fine.

    The script does not start what vmfab has moved away, is working on, or runs there already. It cannot ask
    the other hosts: a VM that was started elsewhere while its host was down is refused only by the guard.
    Refused while /root/running_vms names a VM that another host runs without the guard's knowing.

    Exit codes: 0 set up and verified, 1 it failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost1 host.autostart --dry-run
        fab -H vmhost1,vmhost2 host.autostart
    """
    from tasks.cli import settingup
    from tasks.cluster.setup import afterboot

    settingup.set_up_with(op, afterboot.step, dry_run=dry_run)


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
