"""How each machine is reached by ssh: the inventory's values over the operator's own ssh configuration."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import paramiko

from tasks.cluster.errors import Refused
from tasks.cluster.model import Host
from tasks.cluster.remote.hostkeys import name_of

_USER_CONFIG = "~/.ssh/config"
_SYSTEM_CONFIG = "/etc/ssh/ssh_config"
_DEFAULTS = {
    "userknownhostsfile": "~/.ssh/known_hosts ~/.ssh/known_hosts2",
    "globalknownhostsfile": "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2",
}
#: Jump hosts behind each other, and included files within each other, before it counts as a ring.
_DEPTH = 8
_INCLUDE = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+)", re.IGNORECASE)
_BLOCK = re.compile(r"\s*(?:host|match)\b", re.IGNORECASE)
_HOP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^@]+)@)?(?:\[(?P<v6>[^]]+)\]|(?P<host>[^:]+))(?::(?P<port>\d+))?/?"
)


@dataclass(frozen=True, slots=True)
class Way:
    """Everything needed to open an ssh connection to one machine."""

    #: what the operator calls it
    name: str
    address: str
    port: int
    user: str
    #: private key files named for it, in order; empty for ssh's usual ones
    identities: tuple[str, ...] = ()
    #: offer no other key of the agent than those
    identities_only: bool = False
    #: the agent's socket: a path, "none", or empty for $SSH_AUTH_SOCK
    agent: str = ""
    #: a command whose input and output are the connection; empty for none
    proxy_command: str = ""
    #: machines to go through, the first one first
    jumps: tuple[Way, ...] = ()
    #: "any", "inet" or "inet6"
    family: str = "any"
    #: what known_hosts calls it
    known_as: str = ""
    known_hosts: tuple[str, ...] = ()
    #: where an accepted key is written, and whether with a hashed name
    trust_file: str = ""
    hash_names: bool = False

    @property
    def where(self) -> str:
        """Address and port for messages."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class SshConfig:
    """The operator's ssh configuration: one given file, or the usual two.

    Understands what paramiko does (Host, Match, tokens) plus Include. An included file that is named inside
    a Host or Match block is read as if it stood there, except that Host lines in it are not narrowed
    by that block. Raises Refused when a file cannot be read or understood.
    """

    def __init__(self, path: str = "") -> None:
        if path:
            if not Path(path).expanduser().is_file():
                raise Refused(f"The ssh configuration {path} does not exist.", "The inventory names it.")
            self._sources = [(path, "\n".join(_lines(Path(path).expanduser(), Path("~/.ssh").expanduser())))]
        else:
            self._sources = [
                (name, "\n".join(_lines(Path(name).expanduser(), Path(name).expanduser().parent)))
                for name in (_USER_CONFIG, _SYSTEM_CONFIG)
            ]
        self._patterns = self._parsed("").get_hostnames() - {"*"}

    def way(self, host: Host) -> Way:
        """How to reach a host of the inventory.

        ansible_host, ansible_port, ansible_user and the identity win where the inventory gives them.
        Blocks of the ssh configuration may name the host by its alias or by its address.
        """
        default = {"User": "root", "Port": "22"}
        # The address may itself be a name that only the ssh configuration knows.
        given = {"HostName": self._lookup(host.address, {}, default)["hostname"]}
        if host.port is not None:
            given["Port"] = str(host.port)
        if host.user:
            given["User"] = host.user
        if host.identity:
            given["IdentityFile"] = host.identity
        return self._way(host.name, host.address, given, default)

    def _way(
        self,
        name: str,
        address: str,
        given: dict[str, str],
        default: dict[str, str],
        route: tuple[str, ...] = (),
    ) -> Way:
        options = self._lookup(name, given, default, address)
        address, user = options["hostname"], options["user"]
        if not options["port"].isdecimal():
            raise Refused(f"The ssh configuration of {name} has a Port that is none: {options['port']!r}.")
        port = int(options["port"])
        here = f"{address}:{port}"
        jumps: tuple[Way, ...] = ()
        via = options.get("proxyjump") or "none"
        if via.lower() != "none":
            jumps = self._jumps(name, via, (*route, here))
        user_files = _files(options, "userknownhostsfile")
        return Way(
            name=name,
            address=address,
            port=port,
            user=user,
            identities=tuple(_expanded(f) for f in options.get("identityfile", ()) if f != "none"),
            identities_only=options.get("identitiesonly", "no").lower() == "yes",
            agent="" if (agent := options.get("identityagent", "")) == "SSH_AUTH_SOCK" else agent,
            # The first of ProxyJump and ProxyCommand counts in ssh; having both is not worth telling apart.
            proxy_command="" if jumps else options.get("proxycommand") or "",
            jumps=jumps,
            family=options.get("addressfamily", "any").lower(),
            known_as=options.get("hostkeyalias", "").lower() or name_of(address, port),
            known_hosts=(*user_files, *_files(options, "globalknownhostsfile")),
            trust_file=user_files[0] if user_files else "",
            hash_names=options.get("hashknownhosts", "no").lower() == "yes",
        )

    def _jumps(self, name: str, via: str, route: tuple[str, ...]) -> tuple[Way, ...]:
        """The machines of a ProxyJump value; the first may itself be behind others by its own block."""
        if len(route) > _DEPTH:
            raise Refused(f"The ssh configuration reaches {name} through itself: {' -> '.join(route)}.")
        hops: tuple[Way, ...] = ()
        for position, text in enumerate(via.split(",")):
            match = _HOP.fullmatch(text.strip())
            if match is None:
                raise Refused(f"The ssh configuration of {name} has a ProxyJump that is none: {text!r}.")
            given = {key: value for key, value in (("User", match["user"]), ("Port", match["port"])) if value}
            hop_name = match["v6"] or match["host"]
            default = {"User": getpass.getuser(), "Port": "22"}
            plain = self._lookup(hop_name, given, default)
            # `Host *` with a ProxyJump covers the jump host too, which needs none.
            if f"{plain['hostname']}:{plain['port']}" in route:
                return ()
            if position:
                given["ProxyJump"] = "none"
            hop = self._way(hop_name, hop_name, given, default, route)
            hops = hop.jumps + hops if position == 0 else hops
            hops = (*hops, replace(hop, jumps=hops))
        return hops

    def _lookup(
        self, name: str, given: dict[str, str], default: dict[str, str], address: str = ""
    ) -> dict[str, Any]:
        """The options for a machine, found under its name and under its address.

        A block that names it by its alias goes before those that name its address.

        Given values stand in front of the files and defaults behind them, so that the tokens in the
        files' values (%h, %p, %r) come out right.
        """
        address = address or name
        front = f"Host {name} {address}\n" + "".join(f'{key} "{value}"\n' for key, value in given.items())
        back = "Host *\n" + "".join(f"{key} {value}\n" for key, value in (default | _DEFAULTS).items())
        config = self._parsed(front, back)
        names = [name, address]
        if address != name and not any(fnmatchcase(name, pattern) for pattern in self._patterns):
            names.reverse()
        merged: dict[str, Any] = {}
        for each in dict.fromkeys(names):
            for key, value in config.lookup(each).items():
                if isinstance(value, list):
                    merged[key] = [*merged.get(key, ()), *(v for v in value if v not in merged.get(key, ()))]
                elif key not in merged:
                    merged[key] = value
        return merged

    def _parsed(self, front: str, back: str = "") -> paramiko.SSHConfig:
        config = paramiko.SSHConfig()
        config.parse(front.splitlines())
        for name, text in self._sources:
            try:
                config.parse(text.splitlines())
            except paramiko.ConfigParseError as error:
                raise Refused(f"Cannot understand the ssh configuration {name}: {error}.") from None
        config.parse(back.splitlines())
        return config


def _files(options: dict[str, Any], key: str) -> tuple[str, ...]:
    names = shlex.split(options.get(key) or "")
    return tuple(_expanded(name.replace("%d", "~", 1)) for name in names if name.lower() != "none")


def _expanded(name: str) -> str:
    return str(Path(name).expanduser())


def _lines(path: Path, folder: Path, depth: int = 0) -> Iterator[str]:
    """The lines of a configuration file with those of the files that it includes."""
    if depth > _DEPTH:
        raise Refused(f"The ssh configuration {path} includes itself.")
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Refused(f"Cannot read the ssh configuration {path}: {error.strerror}.") from None
    block = "Host *"
    for line in text.splitlines():
        include = _INCLUDE.fullmatch(line)
        if include is None:
            if _BLOCK.match(line):
                block = line
            yield line
            continue
        for pattern in shlex.split(include[1], comments=True):
            wanted = folder / Path(pattern).expanduser()
            for file in sorted(Path(wanted.anchor).glob(str(wanted.relative_to(wanted.anchor)))):
                yield from _lines(file, folder, depth + 1)
        yield block
