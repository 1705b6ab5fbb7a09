"""How a test of a host says what is missing: one sentence that names the host, and nothing else."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.hosts.wanted import Wanted


def demand(wanted: Wanted, met: object, otherwise: str) -> None:
    """Fail with "HOST: otherwise" unless it is met."""
    __tracebackhide__ = True
    if not met:
        pytest.fail(f"{wanted.name}: {otherwise}", pytrace=False)


def said(host: Host, command: str, *words: str) -> str:
    """What a command prints, without blanks around; empty when it fails. The words are quoted into it."""
    done = host.run(f"LC_ALL=C {command}", *words)
    return done.stdout.strip() if done.rc == 0 else ""


def demand_file(wanted: Wanted, host: Host, path: str, *modes: str) -> str:
    """Demand a file of root's with one of these modes ("644"); gives its text."""
    __tracebackhide__ = True
    seen = said(host, "stat -c '%%a %%U %%F' %s", path).split(None, 2)
    demand(wanted, seen, f"there is no {path}")
    mode, owner, kind = seen
    demand(wanted, kind.startswith("regular"), f"{path} is a {kind}")
    demand(wanted, owner == "root", f"{path} belongs to {owner}, not to root")
    demand(wanted, mode in modes, f"{path} has mode {mode}, not {' or '.join(modes)}")
    return host.run("cat %s", path).stdout


def demand_service(wanted: Wanted, host: Host, unit: str) -> None:
    """Demand a unit of systemd that is on, and will be after the next boot."""
    __tracebackhide__ = True
    # is-enabled and is-active print their word whatever their exit code.
    enabled, active = (
        host.run(f"systemctl {what} %s", unit).stdout.strip() or "unknown"
        for what in ("is-enabled", "is-active")
    )
    demand(wanted, active == "active", f"{unit} is {active}")
    started = ("enabled", "enabled-runtime", "generated", "static", "alias", "indirect")
    demand(wanted, enabled in started, f"{unit} is {enabled}: it would not run after a reboot")
