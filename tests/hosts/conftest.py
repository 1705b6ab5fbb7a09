"""testinfra's view of hosts that are set up: read-only, and beside vmfab's own code.

`./fab -H HOSTS host.verify` runs it. By hand it wants both of testinfra's options --hosts (aliases or
groups, with commas) and --ansible-inventory; without them nothing here is collected, so that no test run ever
looks at real hosts by accident. Every test gets

host      testinfra's Host, by ssh, as root
wanted    what the inventory says about it (tests/hosts/wanted.py)
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra
from testinfra.host import Host

from tests.hosts import wanted as inventory
from tests.hosts.wanted import Wanted

#: Exit code when a host cannot be asked: nothing is known about it.
UNKNOWN = 3
_hosts = pytest.StashKey[list[Wanted]]()


def named_hosts(config: pytest.Config) -> list[Wanted]:
    """The hosts of the command line. Raises UsageError for what is not in the inventory."""
    if _hosts not in config.stash:
        if not config.option.ansible_inventory:
            raise pytest.UsageError("--hosts wants to know the inventory: --ansible-inventory FILE")
        try:
            found = inventory.read(Path(config.option.ansible_inventory), config.option.hosts.split(","))
        except (OSError, ValueError, KeyError) as error:
            raise pytest.UsageError(f"--hosts: {error}") from None
        config.stash[_hosts] = found
    return config.stash[_hosts]


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    return None if config.option.hosts else True


def pytest_report_header(config: pytest.Config) -> str:
    if not config.option.hosts:
        return "tests/hosts looks at hosts only when they are named. Type: ./fab -H vmhosts host.verify"
    return f"looking at {', '.join(one.name for one in named_hosts(config))}; nothing is changed there"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "wanted" in metafunc.fixturenames:
        hosts = named_hosts(metafunc.config)
        names = [one.name for one in hosts]
        metafunc.parametrize("wanted", hosts, ids=names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def wanted(request: pytest.FixtureRequest) -> Wanted:
    return request.param


@pytest.fixture(scope="session")
def host(wanted: Wanted, request: pytest.FixtureRequest) -> Iterator[Host]:
    config = request.config.option.ssh_config or wanted.ssh_config
    user = f"{wanted.user}@" if wanted.user else ""
    at = wanted.address or wanted.name
    where = f"[{at}]" if ":" in at else at
    port = f":{wanted.port}" if wanted.port else ""
    # A socket's path is short or refused, so it cannot lie in pytest's own folders.
    with tempfile.TemporaryDirectory(prefix="vmfab-") as folder:
        found = testinfra.get_host(
            f"ssh://{user}{where}{port}",
            ssh_config=config or None,
            ssh_identity_file=wanted.key or None,
            ssh_extra_args="-o BatchMode=yes -o StrictHostKeyChecking=yes",
            controlpath=f"{folder}/ssh",
            sudo=wanted.user not in ("", "root"),
        )
        try:
            asked = found.run("true")
            reason = asked.stderr
        except RuntimeError as error:  # ssh itself has failed
            asked, reason = None, error.args[0].stderr
        if asked is None or asked.rc != 0:
            last = (reason.strip().splitlines() or ["no reason given"])[-1]
            pytest.exit(f"{wanted.name} cannot be asked: {last}", returncode=UNKNOWN)
        try:
            yield found
        finally:
            end = [
                "ssh",
                *(["-F", config] if config else []),
                "-o",
                f"ControlPath={folder}/ssh",
                "-O",
                "exit",
            ]
            found.backend.run_local(shlex.join([*end, at]))
