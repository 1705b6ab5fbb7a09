"""Logging in with the operator's keys: key files and the ssh agent, in an order that needs few attempts."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
from paramiko.agent import AgentSSH

from tasks.cluster.remote.config import Way

#: What ssh tries when no file is named for a machine.
_USUAL = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
#: Seconds for the agent to list its keys or to sign (it may ask the operator).
_AGENT = 4.0


class Keyring:
    """The operator's private keys, each file read once for all hosts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[str, paramiko.PKey | str] = {}

    def file(self, path: str) -> paramiko.PKey | str:
        """The key in a file, or in words why it cannot be used."""
        with self._lock:
            if path not in self._files:
                self._files[path] = _load(path)
            return self._files[path]

    def login(self, way: Way, refusals: list[str]) -> Login:
        """How to log in to a machine; what was tried in vain is added to `refusals`."""
        return Login(self, way, refusals)


class Login:
    """One log-in. fabric hands it to paramiko, which calls `authenticate` once the host key is trusted."""

    def __init__(self, keyring: Keyring, way: Way, refusals: list[str]) -> None:
        self._keyring = keyring
        self._way = way
        self._refusals = refusals

    def authenticate(self, transport: paramiko.Transport) -> None:
        """Offer one key after the other until one is accepted.

        Raises AuthenticationException when there is none, with the reasons in `refusals`.
        """
        with contextlib.ExitStack() as agents:
            for name, key in self._candidates(agents):
                try:
                    further = transport.auth_publickey(self._way.user, key)
                except paramiko.BadAuthenticationType as error:
                    self._refusals.append(f"it takes only {', '.join(error.allowed_types)}")
                    raise
                except paramiko.SSHException as error:
                    if not transport.is_active():
                        self._refusals.append(f"{name} refused and hung up; name the key with IdentityFile")
                        raise paramiko.AuthenticationException(str(error)) from error
                    self._refusals.append(f"{name} refused")
                else:
                    if not further:
                        return
                    self._refusals.append(f"it wants {', '.join(further)} besides {name}")
                    raise paramiko.AuthenticationException("a second factor is wanted")
        if not self._refusals:
            self._refusals.append("no key file here, and no key in an ssh agent")
        raise paramiko.AuthenticationException("no key was accepted")

    def _candidates(self, agents: contextlib.ExitStack) -> Iterator[tuple[str, paramiko.PKey]]:
        """The keys to offer, by name.

        Files named for the machine come first: the agent is not even asked when one of them fits.
        Where no file is named, the agent's keys come before the usual files, as with ssh. A file that needs
        its passphrase, or that is only a public key, stands for the agent's key of the same name.
        """
        named = self._way.identities
        in_agent: list[bytes] = []
        for path in named:
            key = self._keyring.file(path)
            if isinstance(key, paramiko.PKey):
                yield f"key {path}", key
                continue
            public = _public(path)
            if public:
                in_agent.append(public)
            else:
                self._refusals.append(key)
        if in_agent or not (named and self._way.identities_only):
            offered = {key.asbytes(): key for key in self._agent_keys(agents)}
            first = [offered.pop(public) for public in in_agent if public in offered]
            rest = [] if self._way.identities_only and named else list(offered.values())
            if len(first) < len(in_agent):
                self._refusals.append("a key that needs its passphrase is not in the ssh agent (ssh-add)")
            for key in (*first, *rest):
                yield f"the agent's key {key.comment}".rstrip(), key
        if not named:
            for path in map(os.path.expanduser, _USUAL):
                key = self._keyring.file(path) if Path(path).exists() else ""
                if isinstance(key, paramiko.PKey):
                    yield f"key {path}", key
                elif key:
                    self._refusals.append(key)

    def _agent_keys(self, agents: contextlib.ExitStack) -> tuple[Any, ...]:
        path = os.path.expandvars(self._way.agent or os.environ.get("SSH_AUTH_SOCK", ""))
        if path in ("", "none"):
            return ()
        path = str(Path(path).expanduser())
        try:
            agent = agents.enter_context(contextlib.closing(_Agent(path)))
        except (OSError, paramiko.SSHException) as error:
            self._refusals.append(f"the ssh agent does not answer ({error})")
            return ()
        return agent.get_keys()


class _Agent(AgentSSH):
    """A connection of our own to the ssh agent: paramiko's knows only $SSH_AUTH_SOCK, and no time limit."""

    def __init__(self, path: str) -> None:
        super().__init__()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(_AGENT)
        try:
            connection.connect(path)
            self._connect(connection)  # type: ignore[attr-defined]  # missing in the stubs
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._close()  # type: ignore[attr-defined]  # missing in the stubs


def _load(path: str) -> paramiko.PKey | str:
    try:
        return paramiko.PKey.from_path(path)
    except FileNotFoundError:
        return f"the key file {path} does not exist"
    except OSError as error:
        return f"the key file {path} cannot be read ({error.strerror})"
    except (TypeError, paramiko.PasswordRequiredException):
        return f"the key file {path} needs its passphrase (ssh-add {path})"
    except Exception as error:  # cryptography raises nearly anything on a damaged key
        # An encrypted key is told by a ValueError only, in words that are no interface.
        needs = "password" in str(error).lower() or "encrypted" in str(error).lower()
        return f"the key file {path} " + (f"needs its passphrase (ssh-add {path})" if needs else "is none")


def _public(path: str) -> bytes:
    """The public key that belongs to a key file, from the file beside it or from itself; empty if none."""
    for name in (f"{path}.pub", path):
        try:
            return base64.b64decode(Path(name).read_text(encoding="utf-8").split()[1], validate=True)
        except (OSError, ValueError, IndexError, binascii.Error):
            continue
    return b""
