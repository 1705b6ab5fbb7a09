"""What an operator types about a host that is set up, or is to be trusted first."""

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
