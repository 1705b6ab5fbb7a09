"""What an operator types about a host itself."""

from __future__ import annotations

from tasks.cli import Hosts, Operator, vmtask

#: Seconds for a machine to show its key; a person waits who has just set it up, so more than for a look.
PATIENCE = 15.0


@vmtask(Hosts.SEVERAL)
def trust(op: Operator, yes: bool = False) -> None:
    """Show the ssh key of a host and accept it after a question.

    Shows the fingerprint as ssh-keygen -lf prints it, asks, and adds the key to ~/.ssh/known_hosts (or
    what the ssh configuration names instead). Jump hosts on the way are asked first. A key that is known
    already is left alone (exit code 0); one that has changed is never accepted (2). --yes skips the
    question: then nobody has compared anything.

    Example: fab -H vmhost1 host.trust
    """
    from tasks.cluster import remote_trust

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
