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

    with op.session() as session:
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
    for lack in one.missing:
        op.say(f"{one.host}: {lack.step}: {lack.what}: {lack.why}", "bold red")
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
