"""Links over a real ssh: opening, calling, losing and closing them, and why a host is silent."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.cluster.asking.link import Link
from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.remote import links as remote
from tasks.cluster.remote.hostkeys import HostKeyChanged, HostKeyUnknown
from tests.unit.sshd import Sshd, new_key, running

#: Seconds that a busy machine may take for what takes none; whatever hung would take longer.
GRACE = 4.0

#: What an agent does, without anything that a host has to have: reads itself, greets, answers.
AGENT = remote.Agent(
    """
import json, os, signal, sys, threading, time
lock = threading.Lock()
def out(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\\n")
        sys.stdout.flush()
def serve(m, op, args):
    if op == "sleep":
        time.sleep(args["seconds"])
    if op == "count":
        for n in range(args["to"]):
            out({"id": m["id"], "event": {"n": n}})
    if op == "fail":
        return out({"id": m["id"], "error": {"kind": "virsh", "message": "no such domain"}})
    if op == "big":
        args = {"text": "ü\\n" * args["times"]}
    if op == "nonsense":
        return out({"id": m["id"], "surprise": 1})
    if op == "complain":
        sys.stderr.write("out of luck\\n")
        os._exit(1)
    if op == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(60)
    if op == "seen":
        args = {"deadline": m["deadline"], "environ": dict(os.environ), "pid": os.getpid()}
    out({"id": m["id"], "ok": args})
assert sys.stdin.readline() == "payload\\n"
out({"hello": {}})
for line in sys.stdin:
    m = json.loads(line)
    threading.Thread(target=serve, args=[m, m["op"], m["args"]], daemon=True).start()
""",
    lambda: b"payload\n",
)


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running(tmp_path / "sshd", "MaxStartups 100") as server:
        yield server


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own keys, agent and settings play a part."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)


@contextlib.contextmanager
def opened(sshd: Sshd, **host: object) -> Iterator[Link]:
    link = remote.connector(sshd.inventory(), AGENT)(sshd.host(**host), 5.0)  # type: ignore[arg-type]
    try:
        yield link
    finally:
        link.close()


def refusal(sshd: Sshd, seconds: float = 5.0, **host: object) -> HostSilent:
    """Why the host is silent. It is within the given time."""
    began = time.monotonic()
    with pytest.raises(HostSilent) as caught:
        remote.connector(sshd.inventory(), AGENT)(sshd.host(**host), seconds)  # type: ignore[arg-type]
    assert time.monotonic() - began < seconds + GRACE
    assert caught.value.host == "one"
    assert remote_threads() == []
    return caught.value


def remote_threads() -> list[str]:
    """Threads of links and of ssh that are left after a moment."""
    until = time.monotonic() + 10
    while True:
        left = [t.name for t in threading.enumerate() if t is not threading.main_thread()]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.01)


# -- calls -----------------------------------------------------------------------------------------------


def test_calls_and_their_answers(sshd: Sshd) -> None:
    with opened(sshd) as link:
        assert link.host == "one"
        words = {"name": "Müller 'x' \"$(y)\" \n-z", "n": 1}
        assert link.call("echo", words, deadline=5) == words
        events: list[int] = []
        link.call("count", {"to": 5}, deadline=5, progress=lambda event: events.append(event["n"]))
        assert events == [0, 1, 2, 3, 4]
        assert link.call("count", {"to": 5}, deadline=5) == {"to": 5}
        with pytest.raises(HostError, match="one: no such domain") as failed:
            link.call("fail", {}, deadline=5)
        assert (failed.value.kind, failed.value.detail) == ("virsh", "no such domain")
        with pytest.raises(HostError, match="nonsense"):
            link.call("nonsense", {}, deadline=5)


def test_the_agent_that_is_shipped(sshd: Sshd) -> None:
    link = remote.connector(sshd.inventory())(sshd.host(), 5.0)
    try:
        assert link.call("ping", {}, deadline=5) == {}
        with pytest.raises(HostError) as refused:
            link.call("no such op", {}, deadline=5)
        assert refused.value.kind == "bad-request"
    finally:
        link.close()


def test_large_requests_and_replies(sshd: Sshd) -> None:
    with opened(sshd) as link:
        assert link.call("big", {"times": 500_000}, deadline=20)["text"] == "ü\n" * 500_000
        text = "ä" * 1_000_000
        assert link.call("echo", {"text": text}, deadline=20) == {"text": text}


def test_parallel_calls_get_their_own_answers(sshd: Sshd) -> None:
    with opened(sshd) as link, ThreadPoolExecutor(16) as pool:

        def ask(n: int) -> object:
            args = {"seconds": 0.02 * (n % 3), "n": n, "text": "x" * 50_000 * (n % 4)}
            return link.call("sleep", args, deadline=20)["n"]

        began = time.monotonic()
        assert list(pool.map(ask, range(60))) == list(range(60))
        assert time.monotonic() - began < 15


def test_agent_has_to_answer_a_little_earlier(sshd: Sshd) -> None:
    with opened(sshd) as link:
        assert link.call("seen", {}, deadline=10)["deadline"] == 9.5
        assert link.call("seen", {}, deadline=1)["deadline"] == 0.9


def test_missing_reply_leaves_the_link_usable(sshd: Sshd) -> None:
    with opened(sshd) as link:
        began = time.monotonic()
        with pytest.raises(LinkLost, match=r"no reply to sleep within 0\.3 s") as lost:
            link.call("sleep", {"seconds": 3}, deadline=0.3)
        assert 0.25 < time.monotonic() - began < 2.9
        assert lost.value.code == 3
        time.sleep(3)
        assert link.call("echo", {"n": 2}, deadline=5) == {"n": 2}


def test_many_links_at_once(sshd: Sshd) -> None:
    connect = remote.connector(sshd.inventory(), AGENT)
    with ThreadPoolExecutor(16) as pool:
        links = list(pool.map(lambda n: connect(sshd.host(f"host{n}"), 20), range(16)))
        answers = list(pool.map(lambda link: link.call("echo", {"n": link.host}, deadline=10), links))
    assert [answer["n"] for answer in answers] == [f"host{n}" for n in range(16)]
    began = time.monotonic()
    for link in links:
        link.close()
    assert time.monotonic() - began < GRACE
    assert remote_threads() == []


# -- the end of a link -----------------------------------------------------------------------------------


def losing(link: Link, how: Callable[[], object]) -> tuple[float, LinkLost]:
    """Break the link while a call waits: seconds until the call ended, and how."""
    timer = threading.Timer(0.3, how)
    timer.start()
    began = time.monotonic()
    with pytest.raises(LinkLost) as lost:
        link.call("sleep", {"seconds": 30}, deadline=25)
    timer.join()
    return time.monotonic() - began - 0.3, lost.value


def test_cut_connection_ends_a_waiting_call_at_once(sshd: Sshd) -> None:
    with opened(sshd) as link:
        seconds, lost = losing(link, sshd.kill_sessions)
        assert seconds < GRACE
        assert "the connection broke" in lost.reason
        with pytest.raises(HostSilent) as later:
            link.call("echo", {}, deadline=5)
        assert not isinstance(later.value, LinkLost)


def test_close_ends_a_waiting_call(sshd: Sshd) -> None:
    with opened(sshd) as link:
        seconds, lost = losing(link, link.close)
        assert seconds < GRACE
        assert "closed" in lost.reason


def test_agent_that_ends_is_quoted(sshd: Sshd) -> None:
    with opened(sshd) as link, pytest.raises(LinkLost, match="out of luck"):
        link.call("complain", {}, deadline=10)


@pytest.mark.parametrize("frozen", ["agent", "sshd"])
def test_silent_agent_is_lost_and_closing_does_not_hang(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    monkeypatch.setattr(remote, "PING", 0.3)
    monkeypatch.setattr(remote, "LOST", 1.5)
    with opened(sshd) as link:
        with contextlib.suppress(LinkLost):
            link.call("sleep", {"seconds": 2.5}, deadline=2)
        link.call("echo", {}, deadline=5)  # pings kept it alive for longer than LOST
        if frozen == "sshd":
            seconds, lost = losing(link, sshd.freeze)
            assert seconds < 5 + GRACE
        else:
            agent = link.call("seen", {}, deadline=5)["pid"]
            with pytest.raises(LinkLost) as caught:
                link.call("stop", {}, deadline=25)
            lost = caught.value
            os.kill(agent, signal.SIGKILL)  # nothing else ends a process that is stopped
        assert "answered nothing for" in lost.reason
        began = time.monotonic()
    assert time.monotonic() - began < GRACE
    link.close()


def test_agent_ends_when_the_link_is_closed(sshd: Sshd) -> None:
    with opened(sshd) as link:
        link.call("echo", {}, deadline=5)
        assert sshd.sessions() != []
    until = time.monotonic() + 20
    while sshd.sessions() and time.monotonic() < until:
        time.sleep(0.02)
    assert sshd.sessions() == []


@pytest.mark.parametrize("then", ["", "os.kill(server, signal.SIGSTOP)"])
def test_program_ends_at_once_with_links_open(sshd: Sshd, tmp_path: Path, then: str) -> None:
    """Nothing waits at the end of the interpreter: neither for a link nor for one that fails to open."""
    assert sshd.process
    script = tmp_path / "script.py"
    script.write_text(f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(Path.cwd())!r})
from tests.unit.test_remote import AGENT, remote
from tasks.cluster.model import Host, Inventory
inventory = Inventory("x", {{}}, {{}}, ssh_config={str(sshd.ssh_config)!r})
connect = remote.connector(inventory, AGENT)
host = Host("one", "127.0.0.1", user={sshd.host().user!r}, port={sshd.port})
link = connect(host, 5)
server = {sshd.process.pid}
{then}
threading.Thread(target=lambda: connect(host, 5), daemon=True).start()
time.sleep(0.3)
print(time.monotonic())
""")
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=30, check=False)
    os.kill(sshd.process.pid, signal.SIGCONT)
    assert run.returncode == 0, run.stderr
    assert time.monotonic() - float(run.stdout) < GRACE


# -- silent hosts ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def server(*answers: bytes) -> Iterator[int]:
    """A listening socket: sends the given bytes to whoever connects, then nothing; without any, hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = listening.accept()[0]
                    for answer in answers:
                        connection.sendall(answer)
                    if answers:
                        kept.append(connection)
                    else:
                        connection.close()

        thread = threading.Thread(target=accept, name="server", daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            for connection in kept:
                connection.close()
            thread.join()


def silent(sshd: Sshd, seconds: float, **host: object) -> str:
    began = time.monotonic()
    with pytest.raises(HostSilent) as caught:
        remote.connector(sshd.inventory(), AGENT)(sshd.host(**host), seconds)  # type: ignore[arg-type]
    assert time.monotonic() - began < seconds + GRACE
    return caught.value.reason


def test_nothing_listens(sshd: Sshd) -> None:
    sshd.stop()
    assert "connection refused" in refusal(sshd).reason


def test_name_that_nobody_knows(sshd: Sshd) -> None:
    assert "no-such-host.invalid is not known here" in refusal(sshd, address="no-such-host.invalid").reason


def test_packets_are_dropped(sshd: Sshd) -> None:
    """A full backlog drops further connections, as a host that is off or cut off does."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        assert f"nothing answers at 127.0.0.1:{port}" in refusal(sshd, 0.7, port=port).reason


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([b" "], "sends nothing (sshd frozen?)"),
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], "before the keys are agreed (sshd frozen?)"),
        ([], "closes the connection at once"),
        ([b"220 mail ESMTP\r\n" * 200], "is not ssh"),
    ],
)
def test_something_else_answers(sshd: Sshd, answers: list[bytes], reason: str) -> None:
    with server(*answers) as port:
        assert reason in silent(sshd, 1.0, port=port)


def test_frozen_sshd(sshd: Sshd) -> None:
    sshd.freeze()
    assert refusal(sshd, 1.0).reason == "ssh accepts the connection but sends nothing (sshd frozen?)"


def test_key_that_is_not_accepted(sshd: Sshd, tmp_path: Path) -> None:
    sshd.authorized_keys.write_text("")
    found = refusal(sshd)
    assert found.reason == f"permission denied for {sshd.host().user} (key {sshd.key} refused)"


def test_key_files_that_cannot_be_used(sshd: Sshd, tmp_path: Path) -> None:
    locked = new_key(tmp_path / "locked", passphrase="secret")
    sshd.key.write_text("nonsense")
    Path(f"{sshd.key}.pub").unlink()
    assert f"the key file {sshd.key} is none" in refusal(sshd).reason
    missing = refusal(sshd, identity=str(tmp_path / "missing")).reason
    assert f"the key file {tmp_path}/missing does not exist" in missing
    assert "needs its passphrase is not in the ssh agent" in refusal(sshd, identity=str(locked)).reason


def test_python_is_missing(sshd: Sshd) -> None:
    sshd.stop()
    sshd.path = str(sshd.bin)
    sshd.start()
    assert refusal(sshd).reason == "python3 is not installed there"
    assert refusal(sshd, become=True).reason == "sudo is not installed there"


SUDO = """#!/bin/sh
[ "$1 $2" = "-n --" ] || { echo "sudo: wrong usage $*" >&2; exit 1; }
shift 2
echo "sudo: unable to resolve host one: Name or service not known" >&2
%s
"""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('exec "$@"', None),
        ('echo "sudo: a password is required" >&2; exit 1', "sudo needs a password for {user}"),
        (
            'echo "sudo: interactive authentication is required" >&2; exit 1',
            "sudo needs a password for {user}",
        ),
        (
            "echo \"sudo: I'm sorry {user}. I'm afraid I can't do that\" >&2; exit 1",
            "{user} may not use sudo there",
        ),
        ('echo "{user} is not in the sudoers file." >&2; exit 1', "{user} may not use sudo there"),
        ('echo "sudo: python3: command not found" >&2; exit 1', "python3 is not installed there"),
        ("echo \"sudo: 'python3': command not found\" >&2; exit 1", "python3 is not installed there"),
        ("exit 1", "its agent did not start (sudo: unable to resolve host one: Name or service not known)"),
    ],
)
def test_sudo(sshd: Sshd, body: str, reason: str | None) -> None:
    stub = sshd.bin / "sudo"
    user = sshd.host().user
    stub.write_text(SUDO % body.replace("{user}", user))
    stub.chmod(0o755)
    if reason is None:
        with opened(sshd, become=True) as link:
            assert link.call("echo", {"n": 1}, deadline=5) == {"n": 1}
    else:
        assert refusal(sshd, become=True).reason == reason.format(user=user)


def test_greetings_of_a_login_shell_are_skipped(sshd: Sshd) -> None:
    stub = sshd.bin / "python3"
    stub.write_text(
        '#!/bin/sh\necho "Welcome to ÜBUNTU"\necho "{}"\necho "[1]"\nexec /usr/bin/python3 "$@"\n'
    )
    stub.chmod(0o755)
    with opened(sshd) as link:
        assert link.call("echo", {"n": 1}, deadline=5) == {"n": 1}
    stub.write_text('#!/bin/sh\necho "This account is currently not available."\nexit 1\n')
    assert "This account is currently not available." in refusal(sshd).reason
    stub.write_text("#!/bin/sh\nexec cat >/dev/null\n")
    assert "does not answer in time" in refusal(sshd, 1.0).reason


# -- who is trusted, and who we are ----------------------------------------------------------------------


def test_unknown_key(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    found = refusal(sshd)
    assert isinstance(found, HostKeyUnknown)
    assert found.hint == "Check and accept it: fab -H one host.trust"
    assert not sshd.known_hosts.exists()


def test_changed_key(sshd: Sshd, tmp_path: Path) -> None:
    sshd.trust(new_key(tmp_path / "old"))
    found = refusal(sshd)
    assert isinstance(found, HostKeyChanged)
    assert "DANGER" in found.message


def test_key_of_another_type_is_asked_for_by_the_known_type(tmp_path: Path) -> None:
    rsa = new_key(tmp_path / "rsa", "rsa")
    with running(tmp_path / "sshd", f"HostKey {rsa}") as sshd:
        sshd.trust(rsa)
        with opened(sshd) as link:
            assert link.call("echo", {}, deadline=5) == {}


def test_host_key_alias_and_hashed_names(sshd: Sshd) -> None:
    subprocess.run(["ssh-keygen", "-H", "-f", sshd.known_hosts], check=True, capture_output=True)
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}
    sshd.trust(sshd.host_key, "vault")
    assert isinstance(refusal(sshd), HostKeyUnknown)
    sshd.configure("Host one\n  HostKeyAlias vault\n")
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}


def test_settings_of_fabric_change_nothing(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".fabric.yaml").write_text(
        "port: 1\nuser: nobody\ngateway: nowhere\ntimeouts: {connect: 1}\n"
    )
    monkeypatch.setenv("FABRIC_USER", "nobody")
    monkeypatch.setenv("INVOKE_RUN_WARN", "1")
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}


def test_hosts_environment_does_not_reach_the_agent(sshd: Sshd) -> None:
    sshd.stop()
    sshd.extra = f"SetEnv PYTHONPATH={sshd.home}"
    (sshd.home / "json.py").write_text("raise SystemExit('not this one')\n")
    sshd.start()
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], None]]:
    """A running ssh agent; call it with a key to add."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    while not path.exists():
        time.sleep(0.01)
    try:
        yield lambda key: subprocess.run(["ssh-add", "-q", key], check=True, capture_output=True) and None
    finally:
        process.terminate()
        process.wait()


def test_agent_without_any_file(sshd: Sshd, agent: Callable[[Path], None], tmp_path: Path) -> None:
    sshd.ssh_config.write_text(f"Host *\nUserKnownHostsFile {sshd.known_hosts}\n")
    assert "no key in an ssh agent" in refusal(sshd).reason
    agent(new_key(tmp_path / "wrong"))
    assert "the agent's key wrong refused" in refusal(sshd).reason
    agent(sshd.key)
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}


def test_agent_holds_the_key_of_a_public_file(
    sshd: Sshd, agent: Callable[[Path], None], tmp_path: Path
) -> None:
    for number in range(8):  # more than sshd lets anybody try
        agent(new_key(tmp_path / f"other{number}"))
    agent(sshd.key)
    public = shlex.quote(f"{sshd.key}.pub")
    sshd.ssh_config.write_text(f"Host *\nIdentityFile {public}\nUserKnownHostsFile {sshd.known_hosts}\n")
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}
    sshd.ssh_config.write_text(f"Host *\nUserKnownHostsFile {sshd.known_hosts}\n")
    assert "hung up; name the key with IdentityFile" in refusal(sshd).reason


def test_usual_key_file(sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    sshd.key.rename(tmp_path / ".ssh" / "id_ed25519")
    sshd.ssh_config.write_text(f"Host *\nUserKnownHostsFile {sshd.known_hosts}\n")
    with opened(sshd) as link:
        assert link.call("echo", {}, deadline=5) == {}


# -- jump hosts ------------------------------------------------------------------------------------------


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Sshd]:
    with running(tmp_path / "gate") as server:
        yield server


def behind(sshd: Sshd, gate: Sshd, known: bool = True) -> None:
    """Let the way to `sshd` lead through `gate`."""
    sshd.configure(
        f"Host gate\n  HostName 127.0.0.1\n  Port {gate.port}\n  User {gate.host().user}\n"
        f"  IdentityFile {gate.key}\nHost one two three\n  ProxyJump gate\n"
    )
    if known:
        with sshd.known_hosts.open("a") as file:
            file.write(gate.known_hosts.read_text())


def test_jump_host_is_shared_and_left(sshd: Sshd, gate: Sshd) -> None:
    behind(sshd, gate)
    connect = remote.connector(sshd.inventory(), AGENT)
    with ThreadPoolExecutor(3) as pool:
        links = list(pool.map(lambda name: connect(sshd.host(name), 5.0), ["one", "two", "three"]))
    log = (gate.folder / "log").read_text()
    assert log.count("Accepted publickey") == 1
    for link in links:
        assert link.call("echo", {"text": "x" * 100_000}, deadline=5) == {"text": "x" * 100_000}
    links[0].close()
    assert links[1].call("echo", {}, deadline=5) == {}
    for link in links:
        link.close()
    assert remote_threads() == []
    again = connect(sshd.host(), 5.0)
    assert again.call("echo", {}, deadline=5) == {}
    gate.kill_sessions()
    with pytest.raises(HostSilent):
        again.call("sleep", {"seconds": 5}, deadline=10)
    again.close()
    once_more = connect(sshd.host(), 5.0)
    assert once_more.call("echo", {}, deadline=5) == {}
    once_more.close()


def test_jump_host_has_to_be_trusted_too(sshd: Sshd, gate: Sshd) -> None:
    behind(sshd, gate, known=False)
    found = refusal(sshd)
    assert isinstance(found, HostKeyUnknown)
    assert found.reason == "the ssh key of its jump host gate is not known yet"
    assert "Accepted" not in (gate.folder / "log").read_text()


def test_target_behind_a_jump_host_has_to_be_trusted(sshd: Sshd, gate: Sshd) -> None:
    sshd.known_hosts.write_text("")
    behind(sshd, gate)
    assert refusal(sshd).reason == "its ssh key is not known yet"


def test_reasons_behind_a_jump_host(sshd: Sshd, gate: Sshd) -> None:
    behind(sshd, gate)
    sshd.freeze()
    assert refusal(sshd, 1.0).reason == "ssh accepts the connection but sends nothing (sshd frozen?)"
    sshd.stop()
    assert "jump host gate gets no connection to 127.0.0.1:" in refusal(sshd).reason
    gate.authorized_keys.write_text("")
    assert "jump host gate: permission denied" in refusal(sshd).reason
    gate.freeze()
    assert "jump host gate: ssh accepts the connection but sends nothing" in refusal(sshd, 1.0).reason


def test_proxy_command(sshd: Sshd) -> None:
    program = (
        "import socket,sys,threading,os; s=socket.create_connection(('127.0.0.1',int(sys.argv[1])));"
        "out=lambda:[s.sendall(d) for d in iter(lambda:os.read(0,65536),b'')];"
        "threading.Thread(target=out,daemon=True).start();"
        "[os.write(1,d) for d in iter(lambda:s.recv(65536),b'')]"
    )
    command = f"{sys.executable} -c {shlex.quote(program)}"
    sshd.configure(f"Host one\n  ProxyCommand {command} %p\n")
    with opened(sshd) as link:
        assert link.call("echo", {"text": "x" * 100_000}, deadline=5) == {"text": "x" * 100_000}
    sshd.configure("Host one\n  ProxyCommand echo no; false\n")
    assert "its ProxyCommand ended: echo no; false" in refusal(sshd).reason
