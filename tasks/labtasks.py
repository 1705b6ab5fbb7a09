"""The practice cluster's tasks: lab.up, lab.status, lab.down, lab.shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tasks.cli import Operator, Table, vmtask
from tasks.cluster.errors import Refused

if TYPE_CHECKING:
    from tasks.lab.lab import HostStatus, Lab
    from tasks.lab.machines import Machines

#: More would not fit on a machine; the lab's network has room for them.
MOST_HOSTS, MOST_VMS = 64, 1000


@vmtask(
    help={
        "hosts": "How many hosts (4 unless given, 2 machines).",
        "vms": "How many VMs (8 unless given; none on machines).",
        "machines": "Hosts that are whole computers, bare, and a storage machine: see host.setup.",
        "release": "Of which release the machines are, if not of this computer's.",
    }
)
def up(
    op: Operator, hosts: int | None = None, vms: int | None = None, machines: bool = False, release: str = ""
) -> None:
    """Bring up a practice cluster on this machine.

    Needs root and some packages, which it names when they are missing ('fab demo' installs them). It can be
    called again: what is up already stays as it is, hosts that are off are switched on, hosts and VMs that
    are missing are made. Nothing is removed. Its folder is .lab, or what $VMFAB_LAB names.

    With --machines each host is a computer of its own that knows nothing of vmfab yet: a bare Debian or
    Ubuntu server, beside it a storage machine with an iSCSI disk. Their image is built once, in minutes.

    Examples:
        fab lab.up
        fab lab.up --hosts 16 --vms 0
        fab lab.up --machines
        fab lab.up --machines --release trixie
    """
    from tasks.lab.machines.outfit import MOST

    hosts = (2 if machines else 4) if hosts is None else hosts
    most = MOST if machines else MOST_HOSTS
    if not 1 <= hosts <= most:
        raise Refused(f"--hosts wants a number from 1 to {most}, not {hosts}.")
    if not machines and not 0 <= (vms or 0) <= MOST_VMS:
        raise Refused(f"--vms wants a number from 0 to {MOST_VMS}, not {vms}.")
    if machines and vms is not None:
        raise Refused("Machines are bare hosts, without VMs: leave --vms out.")
    if release and not machines:
        raise Refused(
            "Only machines are of a release of their own.", "Add --machines, or leave --release out."
        )
    if machines:
        _machines_up(op, hosts, release)
    else:
        _cells_up(op, hosts, 8 if vms is None else vms)


def _cells_up(op: Operator, hosts: int, vms: int) -> None:
    from tasks.cli.steps import steps
    from tasks.lab.machines import Machines

    lab = practice_cluster("lab.up")
    if isinstance(lab, Machines):
        raise Refused("The practice cluster that is up is made of machines.", "Type: ./fab lab.down")
    with steps(op.output) as say:
        lab.up(hosts, vms, say=say)
    count = len(lab.hosts)
    op.say(
        f"{count} practice {'host is' if count == 1 else 'hosts are'} up. Next: ./fab --lab status", "green"
    )
    if count > hosts:
        op.say(f"There were {count} hosts before, and none is removed: lab.down removes them all.")


def _machines_up(op: Operator, hosts: int, release: str) -> None:
    from tasks.cli.steps import steps
    from tasks.lab.machines import Machines

    made = practice_cluster("lab.up")
    if not isinstance(made, Machines) and made.leaders():
        raise Refused("The practice cluster that is up has no machines.", "Type: ./fab lab.down")
    made = Machines(made.root)
    with steps(op.output) as say:
        made.up(hosts, release=release, say=say)
    names = made.hosts
    op.say(
        f"{', '.join(names)} and the storage machine are up, the hosts bare. Next: ./fab --lab -H vmhosts "
        "host.setup --format",
        "green",
    )


@vmtask()
def status(op: Operator) -> None:
    """Show the practice cluster as its own watcher sees it.

    Asks the hosts beside ssh and vmfab: which are switched on, and what their libvirt runs and knows; of
    machines only which are switched on.
    """
    from tasks.lab.machines import Machines

    lab = practice_cluster("lab.status")
    if isinstance(lab, Machines):
        _show_machines(op, lab)
        return
    hosts = lab.status()
    if not hosts:
        op.say("The practice cluster is down. Next: ./fab lab.up")
        return
    rows = [(host.name, host.address, "on" if host.on else "off", *vms_of(host)) for host in hosts]
    columns = ("host", "address", "power", "running", "defined")
    op.output.table(Table(columns, rows, right=frozenset({"defined"})))


def _show_machines(op: Operator, lab: Machines) -> None:
    machines = lab.status()
    if not machines:
        op.say("The practice machines are down. Next: ./fab lab.up --machines")
        return
    rows = [
        (one.name, one.address, one.storage_address, "on" if one.on else "off", str(one.console))
        for one in machines
    ]
    op.output.table(Table(("machine", "address", "storage address", "power", "console"), rows))


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


def practice_cluster(task: str) -> Lab | Machines:
    """The practice cluster, up or down. Raises Refused unless root asks: others cannot see its processes."""
    from tasks.lab.lab import Lab, default_root
    from tasks.lab.machines import Machines

    if os.geteuid() != 0:
        raise Refused("The practice cluster needs root.", f"Type: sudo ./fab {task}")
    machines = Machines(default_root())
    return machines if machines.hosts else Lab(machines.root)
