"""The practice cluster's tasks: lab.up, lab.status, lab.down, lab.shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tasks.cli import Operator, Table, vmtask
from tasks.cluster.errors import Refused

if TYPE_CHECKING:
    from tasks.lab.lab import HostStatus, Lab

#: More would not fit on a machine; the lab's network has room for them.
MOST_HOSTS, MOST_VMS = 64, 1000


@vmtask(help={"hosts": "How many hosts.", "vms": "How many VMs."})
def up(op: Operator, hosts: int = 4, vms: int = 8) -> None:
    """Bring up a practice cluster on this machine.

    Needs root and some packages, which it names when they are missing ('fab demo' installs them). It can be
    called again: what is up already stays as it is, hosts that are off are switched on, hosts and VMs that
    are missing are made. Nothing is removed. Its folder is .lab, or what $VMFAB_LAB names.

    Examples:
        fab lab.up
        fab lab.up --hosts 16 --vms 0
    """
    from tasks.cli.steps import steps

    if not 1 <= hosts <= MOST_HOSTS:
        raise Refused(f"--hosts wants a number from 1 to {MOST_HOSTS}, not {hosts}.")
    if not 0 <= vms <= MOST_VMS:
        raise Refused(f"--vms wants a number from 0 to {MOST_VMS}, not {vms}.")
    lab = practice_cluster("lab.up")
    with steps(op.output) as say:
        lab.up(hosts, vms, say=say)
    count = len(lab.hosts)
    op.say(
        f"{count} practice {'host is' if count == 1 else 'hosts are'} up. Next: ./fab --lab status", "green"
    )
    if count > hosts:
        op.say(f"There were {count} hosts before, and none is removed: lab.down removes them all.")


@vmtask()
def status(op: Operator) -> None:
    """Show the practice cluster as its own watcher sees it.

    Asks the hosts beside ssh and vmfab: which are switched on, and what their libvirt runs and knows.
    """
    hosts = practice_cluster("lab.status").status()
    if not hosts:
        op.say("The practice cluster is down. Next: ./fab lab.up")
        return
    rows = [(host.name, host.address, "on" if host.on else "off", *vms_of(host)) for host in hosts]
    columns = ("host", "address", "power", "running", "defined")
    op.output.table(Table(columns, rows, right=frozenset({"defined"})))


def vms_of(host: HostStatus) -> tuple[str, str]:
    """The VMs that run on a host, and the number of those that it knows."""
    if not host.on:
        return "", ""
    if host.running is None or host.defined is None:
        return "? (libvirtd does not answer)", "?"
    return ", ".join(host.running), str(len(host.defined))


@vmtask()
def down(op: Operator) -> None:
    """Take the practice cluster down; only its cache stays.

    Ends all its processes and removes its files. When it is down already, nothing happens.
    """
    lab = practice_cluster("lab.down")
    was_up = bool(lab.leaders())
    lab.down()
    op.say("The practice cluster is down." if was_up else "The practice cluster was down already.")


@vmtask(help={"host": "A practice host, or laptop."})
def shell(op: Operator, host: str = "laptop") -> None:
    """Open a root shell on a practice host or its laptop.

    On the laptop ssh_config in the lab's folder leads to the hosts: ssh -F .lab/ssh_config vmhost1

    Example: fab lab.shell --host vmhost2
    """
    lab = practice_cluster("lab.shell")
    words = lab.shell(host)
    op.say(f"Root shell on {host}. Leave it with: exit")
    os.execvpe(words[0], words, {**os.environ, **lab.laptop_environment()})


def practice_cluster(task: str) -> Lab:
    """The practice cluster, up or down. Raises Refused unless root asks: others cannot see its processes."""
    from tasks.lab.lab import Lab, default_root

    if os.geteuid() != 0:
        raise Refused("The practice cluster needs root.", f"Type: sudo ./fab {task}")
    return Lab(default_root())
