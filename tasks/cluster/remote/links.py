"""Links to the hosts over ssh: one connection and one running agent per host and command."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import queue
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

import paramiko

from tasks.cluster.asking.link import Connector, Link, Progress
from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.model import Host, Inventory
from tasks.cluster.remote.config import SshConfig, Way
from tasks.cluster.remote.dial import Closers, Deadline, Dialler
from tasks.cluster.remote.keys import Keyring
from tasks.onhost import bootstrap

#: Seconds between two pings; the agent ends by itself when it hears nothing for 30 s.
PING = 5.0
#: Seconds without a byte from the agent, which answers every ping, until the link counts as lost.
LOST = 12.0
#: Seconds that the agent gets less than the caller waits, so that its own "deadline" still arrives.
_HEAD_START = 0.5
#: Characters of foreign output kept for messages: what a login shell prints, the end of stderr.
_KEPT = 4000
#: Bytes handed to ssh at a time.
_PIECE = 1 << 15


@dataclass(frozen=True, slots=True)
class Agent:
    """What is started on a host: the program given to `python3 -c`, and what it then reads first."""

    program: str
    payload: Callable[[], bytes]


#: What tasks.onhost holds.
AGENT = Agent(bootstrap.BOOTSTRAP, functools.cache(bootstrap.payload))


def connector(inventory: Inventory, agent: Agent = AGENT) -> Connector:
    """A function that opens a link to a host of the inventory within the given seconds.

    It follows the operator's ssh configuration and agent, logs in without ever asking, and talks only to
    machines whose key is in known_hosts. The function raises HostSilent with the reason in plain words,
    HostKeyUnknown or HostKeyChanged (both are HostSilent). It may be called from several threads.
    Raises Refused when the ssh configuration cannot be read.
    """
    # Without a handler of its own, logging would print paramiko's troubles to the terminal.
    logging.getLogger("paramiko").addHandler(logging.NullHandler())
    config = SshConfig(inventory.ssh_config)
    dialler = Dialler(Keyring())

    def connect(host: Host, seconds: float) -> Link:
        return _Opening(host, config, dialler, agent).link(seconds)

    return connect


class _Opening:
    """One attempt to open a link, made in a thread of its own.

    Looking up a name, a key file on a dead network drive or paramiko itself may block for longer than any
    of them can be told; the caller waits only as long as it said, and then closes what was opened so far.
    """

    def __init__(self, host: Host, config: SshConfig, dialler: Dialler, agent: Agent) -> None:
        self._host = host
        self._config = config
        self._dialler = dialler
        self._agent = agent
        self._closers = Closers()
        self._result: Future[AgentLink] = Future()

    def link(self, seconds: float) -> AgentLink:
        """Open it. Raises HostSilent, at the latest a quarter of a second after `seconds`."""
        deadline = Deadline(seconds)
        threading.Thread(
            target=self._run, args=[deadline], name=f"open {self._host.name}", daemon=True
        ).start()
        try:
            return self._result.result(seconds + 0.25)
        except FutureTimeout:
            self._closers.close()
            raise HostSilent(self._host.name, f"no connection within {seconds:g} s") from None
        except BaseException:
            self._closers.close()
            raise

    def _run(self, deadline: Deadline) -> None:
        try:
            self._result.set_result(self._open(deadline))
        except BaseException as error:  # handed to the thread that waits
            self._result.set_exception(error)

    def _open(self, deadline: Deadline) -> AgentLink:
        name = self._host.name
        way = self._config.way(self._host)
        transport = self._dialler.open(name, way, deadline, self._closers)
        try:
            channel = transport.open_session(timeout=deadline.left)
            link = AgentLink(name, way, channel, self._closers)
            channel.exec_command(
                command_line(self._agent.program, sudo=self._host.become or way.user != "root")
            )
        except (paramiko.SSHException, OSError, EOFError) as error:
            why = "in time (sshd frozen?)" if deadline.passed else f"({error or type(error).__name__})"
            raise HostSilent(name, f"ssh lets us in but starts no command {why}", alive=True) from None
        link.start(self._agent.payload(), deadline)
        return link


def command_line(program: str, *, sudo: bool) -> str:
    """What the remote shell is given: the only place where words become a command line.

    Isolated from the host's environment and site packages, which could make the agent differ by host.
    """
    python = ["python3", "-I", "-S", "-X", "utf8", "-c", program]
    return shlex.join(["sudo", "-n", "--", *python] if sudo else python)


class AgentLink:
    """One open connection to the agent on one host; a `Link`.

    A reader thread hands replies to the calls that wait for them, pings the agent, and declares the link lost
    when the connection breaks or nothing is heard for LOST seconds; then every waiting call ends at once.
    """

    def __init__(self, host: str, way: Way, channel: paramiko.Channel, closers: Closers) -> None:
        self._host = host
        self._way = way
        self._channel = channel
        self._closers = closers
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._waiting: dict[int, queue.SimpleQueue[Mapping[str, Any] | None]] = {}
        self._hello: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._greeted = False
        self._lost = ""
        self._heard = self._pinged = time.monotonic()
        self._noise = ""
        self._stderr = ""

    @property
    def host(self) -> str:
        return self._host

    def start(self, payload: bytes, deadline: Deadline) -> None:
        """Send the agent and wait for its greeting. Raises HostSilent."""
        # Also how long one send waits for the host to take more, see _send.
        self._channel.settimeout(1.0)
        threading.Thread(target=self._read, name=f"link {self._host}", daemon=True).start()
        try:
            self._send(payload, deadline)
            self._hello_within(deadline)
        except _BrokenError:
            # The reader knows why; it notices at the latest when the channel has been read to its end.
            self._hello_within(deadline)

    def _hello_within(self, deadline: Deadline) -> None:
        try:
            hello = self._hello.get(timeout=deadline.left)
        except queue.Empty:
            late = "its python3 does not answer in time (host overloaded?)"
            raise HostSilent(self._host, late, alive=True) from None
        if hello is None:
            raise HostSilent(self._host, self._lost, alive=True)

    # -- calls ---------------------------------------------------------------------------------------

    def call(
        self, op: str, args: Mapping[str, Any], *, deadline: float, progress: Progress | None = None
    ) -> Mapping[str, Any]:
        """Ask the agent for `op` and wait at most `deadline` seconds for its reply.

        `progress` is called in this thread, once for each event that comes before the reply.
        Raises:
          HostError  the agent answered that it failed. Kind "deadline": the agent gave up waiting and
                     killed what it had started, which may have had its effect all the same.
          LinkLost   no answer within the deadline, or the link broke while waiting: the request may have
                     been, or may yet be, carried out. After a missing answer the link itself may still
                     be good, and other calls on it go on; a late answer is dropped.
          HostSilent the link was lost before: nothing was sent.
        """
        until = Deadline(deadline)
        number = next(self._numbers)
        inbox: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        with self._lock:
            if self._lost:
                raise HostSilent(self._host, self._lost)
            self._waiting[number] = inbox
        try:
            allowed = max(deadline - _HEAD_START, deadline * 0.9)
            self._send(_line({"id": number, "op": op, "args": args, "deadline": allowed}), until)
            while True:
                message = inbox.get(timeout=until.left)
                if message is None:
                    raise LinkLost(self._host, self._lost)
                if "event" in message:
                    if progress is not None:
                        progress(message["event"])
                    continue
                return self._reply(op, message)
        except queue.Empty:
            raise LinkLost(self._host, f"no reply to {op} within {deadline:g} s") from None
        except _BrokenError:
            raise LinkLost(
                self._host, self._lost or f"{op} could not be sent within {deadline:g} s"
            ) from None
        finally:
            with self._lock:
                self._waiting.pop(number, None)

    def _reply(self, op: str, message: Mapping[str, Any]) -> Mapping[str, Any]:
        error = message.get("error")
        if isinstance(error, Mapping):
            raise HostError(self._host, str(error.get("kind", "bug")), str(error.get("message", "failed")))
        ok = message.get("ok")
        if not isinstance(ok, Mapping):
            raise HostError(self._host, "bug", f"answered {op} with something that is no answer")
        return ok

    def close(self) -> None:
        """Close the connection; the agent on the host ends and gives its locks back. May be called again."""
        self._lose("the connection was closed here")
        self._closers.close()

    # -- both directions -----------------------------------------------------------------------------

    def _send(self, data: bytes, deadline: Deadline) -> None:
        """Send whole; two senders never mix. Raises _BrokenError when it cannot be."""
        if not self._sending.acquire(timeout=deadline.left):
            raise _BrokenError
        try:
            sent = 0
            while sent < len(data):
                try:
                    sent += self._channel.send(data[sent : sent + _PIECE])
                except TimeoutError:
                    # Not a byte of this piece was taken. Half a line was perhaps, so only the end of the
                    # link ends this: what another call sends next must not be glued to it.
                    if self._lost or self._silent_for > LOST:
                        raise _BrokenError from None
                except (OSError, EOFError, paramiko.SSHException):
                    raise _BrokenError from None
        finally:
            self._sending.release()

    def _read(self) -> None:
        """Read until the end of the link. The body of the reader thread."""
        rest = bytearray()
        while not self._lost:
            try:
                data = self._channel.recv(1 << 18)
            except TimeoutError:
                data = None
            except (OSError, EOFError, paramiko.SSHException):
                data = b""
            self._keep_stderr()
            if data == b"":
                self._lose(self._why_it_ended())
                return
            if data:
                self._heard = time.monotonic()
                rest += data
                if data.find(b"\n") >= 0:
                    *lines, tail = bytes(rest).split(b"\n")
                    rest = bytearray(tail)
                    for line in lines:
                        self._take(line)
            self._keep_alive()

    def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            # A login shell that greets everybody, sudo's lecture: worth keeping in case nothing else comes.
            self._noise = (self._noise + line.decode(errors="replace").strip() + "\n")[-_KEPT:]
        elif not self._greeted:
            if "hello" in message:
                self._greeted = True
                self._hello.put(message)
        else:
            number = message.get("id")
            with self._lock:
                inbox = self._waiting.get(number) if isinstance(number, int) else None
            if inbox is not None:
                inbox.put(message)

    def _keep_stderr(self) -> None:
        while self._channel.recv_stderr_ready():
            text = self._channel.recv_stderr(1 << 16).decode(errors="replace")
            self._stderr = (self._stderr + text)[-_KEPT:]

    def _keep_alive(self) -> None:
        now = time.monotonic()
        if self._silent_for > LOST:
            self._lose(f"it has answered nothing for {self._silent_for:.0f} s")
            self._closers.close()
        elif self._greeted and now - self._pinged >= PING and self._sending.acquire(blocking=False):
            # Somebody who is sending at this moment is as good as a ping.
            self._sending.release()
            self._pinged = now
            with contextlib.suppress(_BrokenError):
                self._send(_line({"id": 0, "op": "ping", "args": {}, "deadline": PING}), Deadline(1.0))

    @property
    def _silent_for(self) -> float:
        return time.monotonic() - self._heard

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._lost:
                return
            self._lost = reason
            waiting = list(self._waiting.values())
        for inbox in (self._hello, *waiting):
            inbox.put(None)

    def _why_it_ended(self) -> str:
        said = [line for line in self._stderr.splitlines() if line.strip()]
        if self._greeted:
            return f"the connection broke ({said[-1]})" if said else "the connection broke"
        return reason_of(said or self._noise.splitlines(), self._way.user)


def reason_of(said: list[str], user: str) -> str:
    """Say in plain words why no agent started, from what the host printed."""
    text = "\n".join(said)
    missing = re.search(r"\b(python3|sudo)'?: (?:command )?not found", text)
    if missing:
        return f"{missing[1]} is not installed there"
    # Ubuntu 26.04 has sudo-rs in its place, which says the same in other words.
    if re.search(r"sudo: .*(password|terminal|authentication) is required", text):
        return f"sudo needs a password for {user}"
    if re.search(r"not in the sudoers file|sudo: .*not allowed|sudo: I'm sorry", text):
        return f"{user} may not use sudo there"
    if said:
        return f"its agent did not start ({said[-1].strip()})"
    return "the connection broke before its agent had started"


class _BrokenError(Exception):
    """Something could not be sent."""


def _line(message: Mapping[str, Any]) -> bytes:
    # ASCII only: no host's locale can misread it, and a line break can only be the end.
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
