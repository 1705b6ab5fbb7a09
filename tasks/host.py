"""What an operator types about a host itself."""

from __future__ import annotations

from tasks.cli import Hosts, Operator, vmtask

#: Seconds for a machine to show its key; a person waits who has just set it up, so more than for a look.
PATIENCE = 15.0


@vmtask(Hosts.SEVERAL)
def trust(op: Operator, yes: bool = False) -> None:
    """Show a host's ssh key; accept it after a question.

    Shows the fingerprint as ssh-keygen -lf prints it, asks, and adds the key to ~/.ssh/known_hosts (or
    what the ssh configuration names instead). Jump hosts on the way are asked first. A key that is known
    already is left alone (exit code 0); one that has changed is never accepted (2). --yes skips the
    question: then nobody has compared anything.

    Example: fab -H vmhost1 host.trust
    """
    from tasks.cluster.remote import trust as remote_trust

    for name in op.hosts:
        for shown in remote_trust.keys_on_the_way(op.inventory, op.inventory.hosts[name], PATIENCE):
            machine = shown.machine if shown.machine == name else f"jump host {shown.machine}"
            if shown.trusted:
                op.say(f"{machine}: known already, {shown.key.shown}")
                continue
            op.say(f"{machine} at {shown.way.where} shows the key\n    {shown.key.shown}")
            file = f"/etc/ssh/ssh_host_{shown.key.kind.lower()}_key.pub"
            op.say(f"Compare it with what ssh-keygen -lf {file} prints on its console.")
            op.confirm(f"Accept this key of {machine}?")
            remote_trust.accept(shown)
            op.say(f"{machine}: added to {shown.file}")


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

    Exit codes: 0 set up and verified, 1 it failed, 2 refused, 3 it cannot be seen whether all is set up.

    Examples:
        fab -H vmhost1 host.autostart --dry-run
        fab -H vmhost1,vmhost2 host.autostart
    """
    from tasks.cli import settingup
    from tasks.cluster.setup import afterboot

    settingup.set_up(op, lambda host: afterboot.step(op.inventory.mount, host), dry_run=dry_run)


@vmtask(Hosts.SEVERAL)
def save_running(op: Operator, dry_run: bool = False, yes: bool = False) -> None:
    """Write the running VMs' names to /root/running_vms.

    These are the VMs that start again after a reboot, in this order; names that stay keep their place. Shows
    what changes and asks first; paused VMs count as running. The list is replaced in one step.

    Example: fab -H vmhost1 host.save-running
    """
    from tasks.cli.text import DRY
    from tasks.cluster.errors import Failed, HostSilent, Unknown
    from tasks.cluster.setup.steps import diff

    with op.session() as session:
        found = {name: session.host(name).save_running(write=False) for name in op.hosts}
        changing = []
        for name, (before, after) in found.items():
            if before == after:
                op.say(f"{name}: /root/running_vms names what runs already ({len(after)} VMs)")
                continue
            changing.append(name)
            was = "does not exist" if before is None else f"names {len(before)} VMs"
            op.say(f"{name}: /root/running_vms {was}, {len(after)} VMs run:")
            old = None if before is None else _lines(before)
            op.say(diff("/root/running_vms", old, _lines(after)).rstrip("\n"), as_is=True)
        if dry_run:
            op.say(DRY)
        if dry_run or not changing:
            return
        again = "Type the same again."
        op.confirm(f"Write the list on {', '.join(changing)}?")
        for name in changing:
            ops = session.host(name)
            try:
                _, written = ops.save_running(write=True)
                found_then, _ = ops.save_running(write=False)
            except HostSilent as error:
                raise Unknown(f"{name} does not answer any more ({error.reason}).", again) from error
            if found_then != written:
                raise Failed(f"{name}: /root/running_vms is not as it was written.", again)
            op.say(f"{name}: /root/running_vms names {len(written)} VMs now")


def _lines(names: tuple[str, ...]) -> str:
    return "".join(f"{name}\n" for name in names)


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
