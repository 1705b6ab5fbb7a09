"""Opening an ssh connection within a deadline: sockets, jump hosts, the host key, the log-in."""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

import fabric
import paramiko

from tasks.cluster.errors import HostSilent, VmfabError
from tasks.cluster.remote.config import Way
from tasks.cluster.remote.hostkeys import HostKey, HostKeyRefused, KnownHosts
from tasks.cluster.remote.keys import Keyring

#: Cheapest first among what today's sshd offers; what is not named here is not offered.
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

#: Checks a machine's key; raises when it is not to be trusted.
KeyCheck = Callable[[HostKey], None]


class Deadline:
    """A moment by which something must be done."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        return time.monotonic() >= self._at - 0.01

    @property
    def left(self) -> float:
        """Seconds left, never so few that a time-out of none at all would be meant."""
        return max(0.01, self._at - time.monotonic())


class Closers:
    """What has been opened so far, so that another thread can close it all and so end a wait for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closers: list[Callable[[], object]] = []
        self._closed = False

    def add(self, close: Callable[[], object]) -> None:
        """Remember how to close something; done at once when everything was closed already."""
        with self._lock:
            if not self._closed:
                self._closers.append(close)
                return
        close()

    def close(self) -> None:
        """Close everything, the last opened first. May be called more than once."""
        with self._lock:
            closers, self._closers, self._closed = self._closers[::-1], [], True
        for close in closers:
            # Closing is the end of it: whatever a broken connection has to say does not matter any more.
            with contextlib.suppress(Exception):
                close()


class _QuickSocket(socket.socket):
    """A TCP socket that acknowledges at once.

    sshd answers in two small packets, of which it holds the second back until the first is acknowledged;
    Linux would wait 40 ms with that, on every connection.
    """

    def send(self, data: Any, flags: int = 0, /) -> int:
        sent = super().send(data, flags)
        if hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):
                self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return sent


@dataclass(eq=False)
class _Gate:
    """A connection to a jump host, shared by all that go through it."""

    connection: Future[fabric.Connection]
    closers: Closers
    users: int = 0


class Dialler:
    """Opens connections for one command; those behind the same jump host share the connection to it.

    One connection per jump host, not per target: sshd drops connections at random when more than ten
    (MaxStartups) log in at the same time.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._known: dict[tuple[str, ...], KnownHosts] = {}
        self._gates: dict[Way, _Gate] = {}
        self._lock = threading.Lock()

    def known_hosts(self, way: Way) -> KnownHosts:
        """The keys known on the way to a machine, read once. Raises Refused when they cannot be read."""
        with self._lock:
            if way.known_hosts not in self._known:
                self._known[way.known_hosts] = KnownHosts(way.known_hosts)
            return self._known[way.known_hosts]

    def open(self, host: str, way: Way, deadline: Deadline, closers: Closers) -> paramiko.Transport:
        """Connect and log in. Raises HostSilent with the reason in plain words."""
        transport: paramiko.Transport = self._connect(host, way, deadline, closers).transport
        return transport

    def look(self, host: str, way: Way, deadline: Deadline, closers: Closers) -> HostKey:
        """Connect without logging in, only to see the machine's key. Jump hosts are logged in to.

        Raises HostSilent with the reason.
        """
        shown: list[HostKey] = []

        def note(key: HostKey) -> None:
            shown.append(key)
            raise _SeenEnoughError

        with contextlib.suppress(_SeenEnoughError):
            self._connect(host, way, deadline, closers, note)
        return shown[0]

    def _connect(
        self, host: str, way: Way, deadline: Deadline, closers: Closers, check: KeyCheck | None = None
    ) -> fabric.Connection:
        known = self.known_hosts(way)
        who = "" if way.name == host else f"jump host {way.name}: "
        sock = self._socket(host, who, way, deadline, closers)
        refusals: list[str] = []

        def transport(sock: Any, disabled_algorithms: Any = None) -> paramiko.Transport:
            made = paramiko.Transport(sock, disabled_algorithms=disabled_algorithms)
            options = made.get_security_options()
            options.ciphers, options.digests = _CIPHERS, _MACS
            options.key_types = _preferred(options.key_types, known.types(way.known_as))
            made.handshake_timeout = deadline.left
            # A Timer thread, which would hold up the end of the program, waits for the handshake until this.
            closers.add(made.packetizer.complete_handshake)
            return made

        connection = fabric.Connection(
            way.address,
            user=way.user,
            port=way.port,
            # Made without reading any file: neither ~/.fabric.yaml nor the environment changes anything here.
            # One for each connection: fabric merges it anew while it makes one, and it is not thread-safe.
            config=fabric.Config(ssh_config=paramiko.SSHConfig(), lazy=True),
            gateway=False,
            forward_agent=False,
            connect_kwargs={
                "sock": sock,
                "timeout": deadline.left,
                "banner_timeout": deadline.left,
                "auth_timeout": deadline.left,
                "channel_timeout": deadline.left,
                "transport_factory": transport,
                "auth_strategy": self._keyring.login(way, refusals),
            },
        )
        connection.client.set_missing_host_key_policy(
            _Policy(check or (lambda key: known.check(host, way.name, way.known_as, key)))
        )
        closers.add(connection.client.close)
        closers.add(lambda: _hang_up(sock))
        try:
            connection.open()
        except (VmfabError, _SeenEnoughError):
            closers.close()
            raise
        except (paramiko.SSHException, OSError, EOFError) as error:
            spoken = connection.client.get_transport()
            reason = _why(spoken, way, deadline, refusals, error)
            closers.close()
            # A ProxyCommand takes the connection whether or not there is anybody behind it.
            answered = not way.proxy_command or bool(spoken and spoken.remote_version)
            raise HostSilent(host, who + reason, alive=answered and not who) from None
        return connection

    # -- sockets -------------------------------------------------------------------------------------

    def _socket(self, host: str, who: str, way: Way, deadline: Deadline, closers: Closers) -> Any:
        if way.jumps:
            return self._through_gate(host, way, deadline, closers)
        if way.proxy_command:
            return _through_command(way.proxy_command, closers)
        try:
            return _tcp(way, deadline, closers)
        except OSError as error:
            raise HostSilent(host, who + _why_no_tcp(error, way)) from None

    def _through_gate(self, host: str, way: Way, deadline: Deadline, closers: Closers) -> paramiko.Channel:
        gate_way = way.jumps[-1]
        gate = self._gate(host, gate_way, deadline, closers)
        transport = gate.connection.result().transport
        try:
            channel: paramiko.Channel = transport.open_channel(
                "direct-tcpip", (way.address, way.port), ("127.0.0.1", 0), timeout=deadline.left
            )
        except paramiko.ChannelException as error:
            reason = f"jump host {gate_way.name} gets no connection to {way.where} ({error.args[1]})"
            raise HostSilent(host, reason) from None
        except (paramiko.SSHException, OSError, EOFError):
            reason = f"jump host {gate_way.name} gets no answer from {way.where}"
            raise HostSilent(host, reason) from None
        closers.add(channel.close)
        return channel

    def _gate(self, host: str, way: Way, deadline: Deadline, closers: Closers) -> _Gate:
        """The shared connection to a jump host, opened by whoever needs it first, closed by the last user."""
        with self._lock:
            gate = self._gates.get(way)
            mine = gate is None or _is_dead(gate.connection)
            if gate is None or mine:
                gate = self._gates[way] = _Gate(Future(), Closers())
            gate.users += 1
        closers.add(lambda: self._leave(way, gate))
        if mine:
            try:
                gate.connection.set_result(self._connect(host, way, deadline, gate.closers))
            except BaseException as error:
                gate.connection.set_exception(error)
                raise
        try:
            gate.connection.result(deadline.left)
        except FutureTimeout:
            raise HostSilent(host, f"jump host {way.name} does not answer in time") from None
        except HostSilent as error:
            # Shared by several hosts, but each has its own name in its own error.
            if isinstance(error, HostKeyRefused):
                raise error.for_host(host) from None
            raise HostSilent(host, error.reason) from None
        return gate

    def _leave(self, way: Way, gate: _Gate) -> None:
        with self._lock:
            gate.users -= 1
            if gate.users:
                return
            if self._gates.get(way) is gate:
                del self._gates[way]
        gate.closers.close()


class _SeenEnoughError(Exception):
    """The machine has shown its key, and nothing else was wanted."""


class _Policy(paramiko.MissingHostKeyPolicy):
    """Leaves every decision about a host key to the known_hosts files: paramiko itself is given none."""

    def __init__(self, check: KeyCheck) -> None:
        self._check = check

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self._check(HostKey(key.get_name(), key.asbytes()))


def _preferred(offered: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Put the types of the known keys first, so that the machine shows a key that can be compared."""
    wanted = {name for kind in known for name in (_RSA if kind == "ssh-rsa" else (kind,))}
    return tuple(sorted(offered, key=lambda name: name not in wanted))


def _is_dead(connection: Future[fabric.Connection]) -> bool:
    return connection.done() and (connection.exception() is not None or not connection.result().is_connected)


def _hang_up(sock: Any) -> None:
    """End a connection at once, waking up whoever waits on it."""
    if isinstance(sock, socket.socket):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
    sock.close()


def _tcp(way: Way, deadline: Deadline, closers: Closers) -> socket.socket:
    """Connect to the first of the machine's addresses that answers. Raises OSError, that of the last one."""
    family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}.get(way.family, socket.AF_UNSPEC)
    addresses = socket.getaddrinfo(way.address, way.port, family, socket.SOCK_STREAM)
    problem: OSError = OSError(errno.EADDRNOTAVAIL, "no address")
    for number, (kind, _, _, _, address) in enumerate(addresses):
        sock = _QuickSocket(kind, socket.SOCK_STREAM)
        closers.add(sock.close)
        try:
            sock.settimeout(deadline.left / (len(addresses) - number))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            sock.close()
            problem = error
        else:
            return sock
    raise problem


def _through_command(command: str, closers: Closers) -> socket.socket:
    """Start a ProxyCommand, as ssh does, and give the socket that leads to it."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=subprocess.DEVNULL,
            # Ctrl-C at the terminal is for us to handle; it must not cut the connection.
            start_new_session=True,
        )

    def end() -> None:
        process.terminate()
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    closers.add(end)
    return ours


# -- reasons ---------------------------------------------------------------------------------------------


def _why_no_tcp(error: OSError, way: Way) -> str:
    if isinstance(error, socket.gaierror):
        return f"its address {way.address} is not known here ({error.strerror})"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return f"nothing answers at {way.where} (host off, or its network cut)"
    if error.errno == errno.ECONNREFUSED:
        return f"connection refused at {way.where} (no sshd there)"
    if error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN):
        return f"no route to {way.where}"
    return f"no connection to {way.where} ({error.strerror or error})"


def _why(
    transport: paramiko.Transport | None, way: Way, deadline: Deadline, refusals: list[str], error: Exception
) -> str:
    """Say in plain words at which step of the connection it ended."""
    if transport is None or not transport.remote_version:
        if deadline.passed:
            return "ssh accepts the connection but sends nothing (sshd frozen?)"
        if way.proxy_command:
            return f"its ProxyCommand ended: {way.proxy_command}"
        if "banner" in str(error) or isinstance(error, (EOFError, OSError)):
            return "ssh closes the connection at once (sshd starting, or too many connections)"
        return f"what answers at {way.where} is not ssh"
    if isinstance(error, paramiko.ssh_exception.IncompatiblePeer):
        return f"no ssh algorithm in common with it ({error})"
    if not transport.initial_kex_done:
        if deadline.passed:
            return "ssh stops answering before the keys are agreed (sshd frozen?)"
        return f"ssh breaks off before the keys are agreed ({error})"
    if deadline.passed:
        return "ssh does not finish the log-in in time (sshd frozen?)"
    if refusals and isinstance(error, paramiko.AuthenticationException):
        return f"permission denied for {way.user} ({'; '.join(refusals)})"
    return f"ssh breaks off during the log-in ({error or type(error).__name__})"
