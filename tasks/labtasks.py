"""The practice cluster's tasks: lab.up, lab.status, lab.down, lab.shell."""

from __future__ import annotations

import os

from tasks.cli import Operator, Table, vmtask
from tasks.lab.lab import Lab, default_root


@vmtask(help={"hosts": "How many hosts.", "vms": "How many VMs."})
def up(op: Operator, hosts: int = 4, vms: int = 8) -> None:
    """Bring up a practice cluster on this machine.

    Needs root and some packages, which it names when they are missing (`fab demo` installs them). What is up
    already stays as it is, so it can be called again.
    """
    lab = Lab(default_root())
    lab.up(hosts, vms, say=op.say)
    op.say(f"{len(lab.hosts)} practice hosts are up. Type: ./fab --lab status")


@vmtask()
def status(op: Operator) -> None:
    """Show the practice cluster as its own watcher sees it.

    Asks the hosts beside ssh and vmfab: which are switched on, and what their libvirt runs and knows.
    """
    hosts = Lab(default_root()).status()
    if not hosts:
        op.say("The practice cluster is down. Type: ./fab lab.up")
        return
    rows = [
        (host.name, host.address, "on" if host.on else "off", ", ".join(host.running), str(len(host.defined)))
        for host in hosts
    ]
    op.output.table(Table(("host", "address", "power", "running", "defined"), rows))


@vmtask()
def down(op: Operator) -> None:
    """Take the practice cluster down; only its cache stays.

    Ends all its processes and removes its files. Already down is fine.
    """
    Lab(default_root()).down()
    op.say("The practice cluster is down.")


@vmtask(help={"host": "A practice host, or laptop."})
def shell(op: Operator, host: str = "laptop") -> None:
    """Open a root shell on a practice host or its laptop.

    On the laptop ssh_config in the lab's folder leads to the hosts: ssh -F .lab/ssh_config vmhost1
    """
    lab = Lab(default_root())
    words = lab.shell(host)
    op.say(f"Root shell on {host}. Leave it with: exit")
    os.execvpe(words[0], words, {**os.environ, **lab.laptop_environment()})
