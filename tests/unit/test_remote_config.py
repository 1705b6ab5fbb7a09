"""The inventory's values over the operator's ssh configuration, as ssh itself would understand it."""

from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from tasks.cluster.errors import Refused
from tasks.cluster.model import Host
from tasks.cluster.remote.config import SshConfig, Way


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


def config(tmp_path: Path, text: str) -> SshConfig:
    file = tmp_path / "config"
    file.write_text(text)
    return SshConfig(str(file))


def way(tmp_path: Path, text: str, **host: object) -> Way:
    given: dict[str, object] = {"name": "vmhost1", "address": "10.0.0.1"}
    return config(tmp_path, text).way(Host(**(given | host)))  # type: ignore[arg-type]


def test_nothing_configured(tmp_path: Path) -> None:
    found = way(tmp_path, "")
    assert (found.name, found.address, found.port, found.user) == ("vmhost1", "10.0.0.1", 22, "root")
    assert found.known_as == "10.0.0.1"
    assert found.known_hosts[0] == found.trust_file == f"{tmp_path}/.ssh/known_hosts"
    assert found.known_hosts[2] == "/etc/ssh/ssh_known_hosts"
    assert (found.identities, found.jumps, found.proxy_command, found.agent) == ((), (), "", "")


@pytest.mark.parametrize("named", ["vmhost1", "10.0.0.1", "10.0.0.*", "*", "x vmhost?"])
def test_block_names_the_host_by_alias_or_address(tmp_path: Path, named: str) -> None:
    found = way(
        tmp_path, f"Host {named}\n Port 2222\n User admin\n IdentityFile ~/my key\n HostKeyAlias VAULT"
    )
    assert (found.port, found.user, found.identities) == (2222, "admin", (f"{tmp_path}/my key",))
    assert found.known_as == "vault"


def test_inventory_wins(tmp_path: Path) -> None:
    text = "Host vmhost1\n HostName 9.9.9.9\n Port 2222\n User admin\n IdentityFile /b\n"
    found = way(tmp_path, text, port=22, user="root", identity="/a b")
    assert (found.address, found.port, found.user) == ("10.0.0.1", 22, "root")
    assert found.identities == ("/a b", "/b")


def test_address_may_be_a_name_of_the_configuration(tmp_path: Path) -> None:
    found = way(tmp_path, "Host inner\n HostName 10.9.9.9\n Port 2222\n", address="inner")
    assert (found.address, found.port, found.known_as) == ("10.9.9.9", 2222, "[10.9.9.9]:2222")


def test_block_of_the_alias_goes_before_that_of_the_address_and_that_before_the_rest(tmp_path: Path) -> None:
    general = "Host *\n User nobody\n Port 4\n"
    assert way(tmp_path, f"Host 10.*\n User a\nHost vmhost1\n User b\n{general}").user == "b"
    assert way(tmp_path, f"Host 10.*\n User a\n{general}").user == "a"
    assert way(tmp_path, f"Host 10.*\n User a\n{general}").port == 4


def test_tokens_come_out_with_the_values_that_are_used(tmp_path: Path) -> None:
    found = way(tmp_path, "Host vmhost1\n ProxyCommand nc -X 5 %h %p as %r\n", port=2200, user="adm")
    assert found.proxy_command == "nc -X 5 10.0.0.1 2200 as adm"
    assert way(tmp_path, "Host *\n ProxyCommand none\n").proxy_command == ""


def test_files_of_known_hosts(tmp_path: Path) -> None:
    text = 'Host *\n UserKnownHostsFile ~/one "/two words"\n GlobalKnownHostsFile none\n HashKnownHosts yes\n'
    found = way(tmp_path, text)
    assert found.known_hosts == (f"{tmp_path}/one", "/two words")
    assert found.trust_file == f"{tmp_path}/one"
    assert found.hash_names
    assert way(tmp_path, "Host *\n UserKnownHostsFile none\n").trust_file == ""


def test_jump_hosts_in_order(tmp_path: Path) -> None:
    text = (
        "Host vmhost1\n ProxyJump outer,ops@[fd00::2]:2222\n"
        "Host outer\n HostName 10.1.1.1\n User jumper\n ProxyJump far\n"
        "Host far\n HostName 10.2.2.2\n IdentityFile /far\n"
    )
    far, outer, inner = way(tmp_path, text, user="root", identity="/one").jumps
    assert (far.address, far.user, far.identities, far.jumps) == (
        "10.2.2.2",
        getpass.getuser(),
        ("/far",),
        (),
    )
    assert (outer.address, outer.port, outer.user, outer.jumps) == ("10.1.1.1", 22, "jumper", (far,))
    assert (inner.address, inner.port, inner.user) == ("fd00::2", 2222, "ops")
    assert inner.jumps == (far, outer)
    assert inner.known_as == "[fd00::2]:2222"


def test_jump_for_everybody_does_not_lead_through_itself(tmp_path: Path) -> None:
    (gate,) = way(tmp_path, "Host gate\n HostName 10.0.0.254\nHost *\n ProxyJump gate\n").jumps
    assert (gate.name, gate.address, gate.jumps) == ("gate", "10.0.0.254", ())
    assert way(tmp_path, "Host vmhost1\n ProxyJump none\nHost *\n ProxyJump gate\n").jumps == ()


def test_ring_of_jump_hosts_ends(tmp_path: Path) -> None:
    text = "Host vmhost1\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n"
    assert [hop.name for hop in way(tmp_path, text).jumps] == ["b", "a"]
    endless = "".join(f"Host a{n}\n ProxyJump a{n + 1}\n" for n in range(20))
    with pytest.raises(Refused, match="through itself"):
        way(tmp_path, f"Host vmhost1\n ProxyJump a0\n{endless}")
    with pytest.raises(Refused, match="ProxyJump that is none: ''"):
        way(tmp_path, "Host vmhost1\n ProxyJump a,,b\n")


def test_usual_files_are_read_and_a_given_one_replaces_them(tmp_path: Path) -> None:
    folder = tmp_path / ".ssh"
    (folder / "more").mkdir(parents=True)
    (folder / "config").write_text("Include more/*.conf missing\nHost vmhost1\n User second\n Port 5\n")
    (folder / "more" / "a.conf").write_text("Host vmhost1\n User first\n")
    found = SshConfig().way(Host("vmhost1", "10.0.0.1"))
    assert (found.user, found.port) == ("first", 5)
    assert way(tmp_path, "").user == "root"


def test_included_lines_belong_to_the_block_around_them(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("User part\nHost other\n User else\n")
    text = f"Host vmhost1\n Include {tmp_path}/part\n Port 7\n"
    found = way(tmp_path, text)
    assert (found.user, found.port) == ("part", 7)


def test_configuration_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="does not exist"):
        SshConfig(str(tmp_path / "missing"))
    with pytest.raises(Refused, match=r"Cannot understand the ssh configuration .*/config"):
        config(tmp_path, "Host 'a\n")
    with pytest.raises(Refused, match="Port that is none: '22x'"):
        way(tmp_path, "Host *\n Port 22x\n")
    with pytest.raises(Refused, match="includes itself"):
        config(tmp_path, f"Include {tmp_path}/config\n")
