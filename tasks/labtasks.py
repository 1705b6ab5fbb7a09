"""The practice cluster's tasks: lab.up, lab.status, lab.down, lab.shell."""

from __future__ import annotations

import os

from invoke import Context, Exit, task

from tasks.lab.lab import Lab, default_root
from tasks.lab.problem import LabError


def _give_up(error: LabError) -> Exit:
    return Exit("\n".join(text for text in (error.message, error.hint) if text), error.code)


@task
def up(_c: Context, hosts: int = 4, vms: int = 8) -> None:
    """Bring up a practice cluster on this machine.

    Installs nothing: it names the packages that are missing. What is up already stays as it is.
    """
    lab = Lab(default_root())
    try:
        lab.up(hosts, vms, say=print)
    except LabError as error:
        raise _give_up(error) from None
    print(f"{len(lab.hosts)} practice hosts are up. Type: ./fab --lab status")


@task
def status(_c: Context) -> None:
    """Show the practice cluster's hosts and VMs as the lab sees them."""
    try:
        hosts = Lab(default_root()).status()
    except LabError as error:
        raise _give_up(error) from None
    if not hosts:
        print("The practice cluster is down. Type: ./fab lab.up")
    for host in hosts:
        state = "on" if host.on else "off"
        print(f"{host.name}  {host.address}  {state:3}  {', '.join(host.running) or '-'}")


@task
def down(_c: Context) -> None:
    """Take the practice cluster down; only its cache stays."""
    try:
        Lab(default_root()).down()
    except LabError as error:
        raise _give_up(error) from None
    print("The practice cluster is down.")


@task(positional=["host"], help={"host": "a practice host, or laptop (the default)"})
def shell(_c: Context, host: str = "laptop") -> None:
    """Open a root shell on a practice host or its laptop."""
    lab = Lab(default_root())
    try:
        words = lab.shell(host)
    except LabError as error:
        raise _give_up(error) from None
    os.execvpe(words[0], words, {**os.environ, **lab.laptop_environment()})
