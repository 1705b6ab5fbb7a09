"""host.reboot at the operator's surface: what is seen, the question, the phases, how it ended."""

from __future__ import annotations

from datetime import datetime

from tasks.cli.context import Operator
from tasks.cluster.errors import HostSilent, Interrupted, Unknown
from tasks.cluster.setup import reboot as rebooting


def reboot(op: Operator, *, timeout: float, dry_run: bool) -> None:
    """Reboot the operator's host and wait for it."""
    host = op.host
    with op.session(unhurried=True) as session:
        before = rebooting.look(session, host)
        op.say(f"{host}: no VM runs there")
        for mount in before.lacks:
            op.say(f"{host}: {mount} is not set up, so nobody waits for it", "yellow")
        for mount in before.by_hand:
            op.say(
                f"{host}: {mount} is mounted by hand, no boot mounts it (it is not in /etc/fstab), so nobody"
                f" waits for it. To have it there after each boot: fab -H {host} host.ocfs2",
                "yellow",
            )
        op.say(f"{host}: to be rebooted, then waited for: {before.needs.words} ({timeout:.0f} s at most)")
        if dry_run:
            return
        op.confirm(f"Reboot {host}?")
        rebooting.request(session, before)

        def say(text: str) -> None:
            moment = datetime.fromtimestamp(op.clock.now()).astimezone()
            op.say(f"{moment:%H:%M:%S} {host} {text}")

        say("was asked to reboot; it does so by itself from now on")
        try:
            rebooting.wait(session, before, timeout, say)
            cordons = {cordon.host for cordon in session.host(host).observe().cordons}
        except KeyboardInterrupt:
            raise Interrupted(f"{host} reboots by itself.", "fab status shows when it is back.") from None
        except HostSilent as error:
            raise Unknown(
                f"{host} was back, and is lost again: {error.reason}.", "Type fab status."
            ) from error
    op.say(f"{host} has rebooted and has all it needs: {before.needs.words}", "green")
    if host in cordons:
        op.say(f"It is still cordoned. To bring its VMs back: fab -H {host} undrain")
