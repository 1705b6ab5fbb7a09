"""The ssh command for something that needs a terminal: the operator's own ssh, told what vmfab knows."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from tasks.cluster.model import Host, Inventory
from tasks.cluster.remote.config import SshConfig, Way


def terminal_command(inventory: Inventory, host: Host, words: Sequence[str]) -> list[str]:
    """The words of an ssh command that runs `words` on a host, as root and with a terminal.

    It reaches the machine that all other connections reach, with the same user and keys, and trusts the same
    known_hosts. Raises Refused when the ssh configuration cannot be read.
    """
    way = SshConfig(inventory.ssh_config).way(host)
    sudo = host.become or way.user != "root"
    remote = shlex.join(["sudo", "-n", "--", *words] if sudo else words)
    config = ["-F", inventory.ssh_config] if inventory.ssh_config else []
    options = [word for option in _options(way) for word in ("-o", option)]
    return ["ssh", *config, "-t", *options, "--", way.name, remote]


def _options(way: Way) -> list[str]:
    """What the inventory may say otherwise than ssh's own reading of its configuration."""
    found = [
        f"HostName={way.address}",
        f"Port={way.port}",
        f"User={way.user}",
        f"HostKeyAlias={way.known_as}",
        "StrictHostKeyChecking=yes",
        "LogLevel=ERROR",
    ]
    if way.known_hosts:
        found.append(f"UserKnownHostsFile={' '.join(_quoted(name) for name in way.known_hosts)}")
    found += [f"IdentityFile={_quoted(name)}" for name in way.identities]
    if way.jumps:
        found.append(f"ProxyJump={','.join(_hop(jump) for jump in way.jumps)}")
    elif way.proxy_command:
        found.append(f"ProxyCommand={_literal(way.proxy_command)}")
    return found


def _hop(jump: Way) -> str:
    name = f"[{jump.name}]" if ":" in jump.name else jump.name
    return f"{jump.user}@{name}:{jump.port}"


def _quoted(name: str) -> str:
    return f'"{_literal(name)}"'


def _literal(text: str) -> str:
    """ssh would read %h and the like in it; they have been filled in already."""
    return text.replace("%", "%%")
