"""known_hosts files: what ssh-keygen writes is read, what is not trusted is refused, in the right words."""

from __future__ import annotations

import base64
import stat
import subprocess
from pathlib import Path

import pytest

from tasks.cluster.errors import HostSilent, Refused
from tasks.cluster.remote.hostkeys import (
    HostKey,
    HostKeyChanged,
    HostKeyUnknown,
    KnownHosts,
    Verdict,
    append,
    hashed,
    name_of,
)
from tests.unit.sshd import new_key

ONE = HostKey("ssh-ed25519", b"one")
TWO = HostKey("ssh-ed25519", b"two")
OTHER_TYPE = HostKey("ecdsa-sha2-nistp256", b"three")


def text(key: HostKey) -> str:
    return f"{key.type} {base64.b64encode(key.blob).decode()}"


def known(tmp_path: Path, *lines: str) -> KnownHosts:
    file = tmp_path / "known_hosts"
    file.write_text("\n".join(lines))
    return KnownHosts([str(file), str(tmp_path / "missing")])


def public(path: Path) -> HostKey:
    kind, blob, *_ = Path(f"{path}.pub").read_text().split()
    return HostKey(kind, base64.b64decode(blob))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_key_is_shown_as_ssh_keygen_does(tmp_path: Path, kind: str) -> None:
    key = new_key(tmp_path / "key", kind)
    printed = subprocess.run(["ssh-keygen", "-lf", f"{key}.pub"], capture_output=True, text=True, check=True)
    bits, fingerprint, _comment, shown_kind = printed.stdout.split()
    assert public(key).shown == f"{bits} {fingerprint} {shown_kind}"


def test_names_hashed_by_ssh_keygen_are_found(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"vmhost1 {text(ONE)}\n[vmhost1]:2222 {text(TWO)}\n".replace(text(ONE), real(tmp_path)))
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    assert "vmhost1 " not in file.read_text().split("\n")[0]
    assert KnownHosts([str(file)]).judge("vmhost1", public(tmp_path / "real")) is Verdict.TRUSTED
    assert KnownHosts([str(file)]).judge("vmhost2", public(tmp_path / "real")) is Verdict.UNKNOWN


def real(folder: Path) -> str:
    return " ".join(Path(f"{new_key(folder / 'real')}.pub").read_text().split()[:2])


def test_names_that_we_hash_are_found_by_ssh_keygen(tmp_path: Path) -> None:
    key = new_key(tmp_path / "key")
    file = tmp_path / "known_hosts"
    append(str(file), hashed("[10.0.0.1]:2222"), public(key))
    command = ["ssh-keygen", "-F", "[10.0.0.1]:2222", "-f", str(file)]
    assert "found" in subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("names", "asked", "verdict"),
    [
        ("vmhost1", "vmhost1", Verdict.TRUSTED),
        ("VMHOST1", "vmhost1", Verdict.TRUSTED),
        ("other,vmhost1", "vmhost1", Verdict.TRUSTED),
        ("vmhost*", "vmhost1", Verdict.TRUSTED),
        ("vmhost?", "vmhost12", Verdict.UNKNOWN),
        ("vmhost*,!vmhost1", "vmhost1", Verdict.UNKNOWN),
        ("vmhost1", "[vmhost1]:2222", Verdict.UNKNOWN),
        ("[vmhost1]:2222", "[vmhost1]:2222", Verdict.TRUSTED),
        ("[vmhost1]:*", "[vmhost1]:2222", Verdict.TRUSTED),
        ("[v]mhost1", "vmhost1", Verdict.UNKNOWN),
        ("|1|broken", "vmhost1", Verdict.UNKNOWN),
        ("@cert-authority vmhost1", "vmhost1", Verdict.UNKNOWN),
        ("@revoked vmhost1", "vmhost1", Verdict.REVOKED),
        ("#vmhost1", "vmhost1", Verdict.UNKNOWN),
    ],
)
def test_which_lines_are_about_a_machine(tmp_path: Path, names: str, asked: str, verdict: Verdict) -> None:
    assert known(tmp_path, f"{names} {text(ONE)}").judge(asked, ONE) is verdict


def test_port_22_is_not_written(tmp_path: Path) -> None:
    assert name_of("VMhost1", 22) == "vmhost1"
    assert name_of("fe80::1", 2222) == "[fe80::1]:2222"


def test_another_key_is_a_changed_one_whatever_its_type(tmp_path: Path) -> None:
    damaged = ("damaged", "vmhost1 ssh-ed25519 %%%")
    hosts = known(tmp_path, *damaged, f"vmhost1 {text(ONE)}", f"vmhost2 {text(TWO)}")
    assert hosts.judge("vmhost1", TWO) is Verdict.CHANGED
    assert hosts.judge("vmhost1", OTHER_TYPE) is Verdict.CHANGED
    assert hosts.judge("vmhost3", ONE) is Verdict.UNKNOWN
    assert hosts.types("vmhost1") == ("ssh-ed25519",)


def test_revoked_wins_over_known(tmp_path: Path) -> None:
    assert known(tmp_path, f"a {text(ONE)}", f"@revoked * {text(ONE)}").judge("a", ONE) is Verdict.REVOKED


def test_refusals_say_what_to_do(tmp_path: Path) -> None:
    hosts = known(tmp_path, f"vmhost1 {text(ONE)}", f"@revoked * {text(OTHER_TYPE)}")
    hosts.check("vmhost1", "vmhost1", "vmhost1", ONE)
    with pytest.raises(HostKeyUnknown, match="vmhost2 does not answer: its ssh key is not known") as unknown:
        hosts.check("vmhost2", "vmhost2", "vmhost2", ONE)
    assert "fab -H vmhost2 host.trust" in unknown.value.hint
    with pytest.raises(HostKeyUnknown, match="the ssh key of its jump host gate is not known"):
        hosts.check("vmhost2", "gate", "gate.example", ONE)
    with pytest.raises(HostKeyChanged, match=r"DANGER: vmhost1 .* has CHANGED") as changed:
        hosts.check("vmhost1", "vmhost1", "vmhost1", TWO)
    assert f"line 1 of {tmp_path}/known_hosts" in changed.value.hint
    assert "host.trust" not in str(changed.value)
    with pytest.raises(HostKeyChanged, match="revoked"):
        hosts.check("vmhost9", "vmhost9", "vmhost9", OTHER_TYPE)
    assert isinstance(changed.value, HostSilent)
    assert (changed.value.code, changed.value.host) == (2, "vmhost1")
    assert "vmhost4 was not contacted" in changed.value.for_host("vmhost4").message
    assert "-H vmhost4 host.trust" in unknown.value.for_host("vmhost4").hint


def test_file_is_made_private_and_lines_are_whole(tmp_path: Path) -> None:
    file = tmp_path / "ssh" / "known_hosts"
    append(str(file), "a", ONE)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    file.write_text(file.read_text() + "# no line break at the end")
    append(str(file), "b", TWO)
    assert file.read_text().splitlines() == [f"a {text(ONE)}", "# no line break at the end", f"b {text(TWO)}"]


def test_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Refused, match=r"Cannot read .*folder"):
        KnownHosts([str(tmp_path / "folder")])
    with pytest.raises(Refused, match=r"Cannot write .*folder"):
        append(str(tmp_path / "folder"), "a", ONE)
    assert list((tmp_path / "folder").iterdir()) == []
