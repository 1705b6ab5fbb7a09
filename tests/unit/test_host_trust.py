"""host.trust against a real sshd: what is shown, asked, written and refused."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks import host
from tasks.cli import Operator
from tasks.cli.output import Output, Stream
from tasks.cluster.errors import HostSilent, Refused
from tasks.cluster.remote import links as remote
from tasks.cluster.remote.hostkeys import HostKeyChanged, HostKeyUnknown
from tests.unit.sshd import Sshd, new_key, running
from tests.unit.test_remote import AGENT, remote_threads


@pytest.fixture
def sshd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sshd]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with running(tmp_path / "sshd") as server:
        yield server


def trust(sshd: Sshd, *, yes: bool = False) -> str:
    """Run the task for the host "one" and give what it printed."""
    printed = io.StringIO()
    inventory = replace(sshd.inventory(), hosts={"one": sshd.host()})
    output = Output(Stream(printed), Stream(printed))
    host.trust(Operator(hosts=("one",), output=output, yes=yes, inventory=inventory), yes=yes)
    return printed.getvalue()


def lets_in(sshd: Sshd) -> bool:
    remote.connector(sshd.inventory(), AGENT)(sshd.host(), 5.0).close()
    return True


def fingerprint(key: Path) -> str:
    command = ["ssh-keygen", "-lf", f"{key}.pub"]
    bits, shown, _comment, kind = subprocess.run(
        command, capture_output=True, text=True, check=True
    ).stdout.split()
    return f"{bits} {shown} {kind}"


def test_unknown_key_is_shown_and_added(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    with pytest.raises(HostKeyUnknown):
        lets_in(sshd)
    printed = trust(sshd, yes=True)
    assert fingerprint(sshd.host_key) in printed
    assert f"added to {sshd.known_hosts}" in printed
    assert sshd.known_hosts.read_text().startswith(f"[127.0.0.1]:{sshd.port} ssh-ed25519 ")
    assert sshd.known_hosts.stat().st_mode & 0o777 == 0o600
    assert lets_in(sshd)
    assert "one: known already" in trust(sshd)
    assert len(sshd.known_hosts.read_text().splitlines()) == 1
    assert remote_threads() == []


def test_no_terminal_and_no_yes_changes_nothing(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    sshd.known_hosts.unlink()
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    with pytest.raises(Refused, match="no terminal") as refused:
        trust(sshd)
    assert refused.value.code == 2
    assert not sshd.known_hosts.exists()


@pytest.mark.parametrize(("answer", "accepted"), [("y", True), ("", False), ("n", False)])
def test_question(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, answer: str, accepted: bool) -> None:
    sshd.known_hosts.unlink()
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        os.write(controller, f"{answer}\n".encode())
        if accepted:
            trust(sshd)
        else:
            with pytest.raises(Refused, match="Nothing was changed"):
                trust(sshd)
    os.close(controller)
    assert sshd.known_hosts.exists() is accepted


def test_changed_key_is_refused_even_with_yes(sshd: Sshd, tmp_path: Path) -> None:
    sshd.trust(new_key(tmp_path / "old"))
    before = sshd.known_hosts.read_text()
    with pytest.raises(HostKeyChanged, match="CHANGED"):
        trust(sshd, yes=True)
    assert sshd.known_hosts.read_text() == before


def test_name_is_hashed_where_the_configuration_wants_it(sshd: Sshd) -> None:
    sshd.known_hosts.unlink()
    sshd.configure("Host *\n  HashKnownHosts yes\n")
    trust(sshd, yes=True)
    assert sshd.known_hosts.read_text().startswith("|1|")
    assert lets_in(sshd)


def test_jump_hosts_come_first(sshd: Sshd, tmp_path: Path) -> None:
    with running(tmp_path / "gate") as gate:
        sshd.known_hosts.unlink()
        sshd.configure(
            f"Host gate\n  HostName 127.0.0.1\n  Port {gate.port}\n  User {gate.host().user}\n"
            f"  IdentityFile {gate.key}\nHost one\n  ProxyJump gate\n"
        )
        printed = trust(sshd, yes=True)
        assert printed.index(fingerprint(gate.host_key)) < printed.index(fingerprint(sshd.host_key))
        assert lets_in(sshd)


def test_nowhere_to_write(sshd: Sshd) -> None:
    sshd.configure("Host *\n  UserKnownHostsFile none\n")
    with pytest.raises(Refused, match="names no UserKnownHostsFile"):
        trust(sshd, yes=True)


def test_silent_host(sshd: Sshd) -> None:
    sshd.stop()
    with pytest.raises(HostSilent, match="connection refused"):
        trust(sshd)
    assert threading.active_count() == 1
