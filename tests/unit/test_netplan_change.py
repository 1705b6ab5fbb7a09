"""The script that changes a host's network, run for real in a folder, with netplan and systemd beside it.

systemd-run and systemctl carry out what they are told at once, and note it; time is the test's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks.cluster.setup import bridge
from tasks.cluster.setup.bridgeplan import OWN, Wanted

OLD = "/etc/netplan/00-installer-config.yaml"
PROGRAMS = {
    "netplan": 'echo "netplan $*" >>"$ROOT/calls"; [ ! -e "$ROOT/netplan-fails" ] || exit 78',
    "systemctl": """echo "systemctl $*" >>"$ROOT/calls"
case "$*" in *"start --no-block vmfab-netplan-back.service"*) exec /bin/sh "$ROOT/change.sh" back;; esac""",
    "systemd-run": """echo "systemd-run $*" >>"$ROOT/calls"
case "$*" in *--on-active*) exit 0;; esac
while [ "$1" != /bin/sh ]; do shift; done
exec "$@" """,
    "ip": """echo "ip $*" >>"$ROOT/calls"
case "$*" in *"address show"*) [ ! -e "$ROOT/address-gone" ] && echo 2: eno1 inet;; esac""",
    "sleep": "exit 0",
}


class Host:
    """A folder as a host: its /etc, /run and /var are below it."""

    def __init__(self, root: Path, texts: Mapping[str, str]) -> None:
        self.root = root
        for name, body in PROGRAMS.items():
            program = root / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
            program.chmod(0o755)
        for folder in ("etc/netplan", "run/vmfab/bridge", "var/backups"):
            (root / folder).mkdir(parents=True)
        for path, text in texts.items():
            (root / path.lstrip("/")).write_text(text, encoding="utf-8")
        wanted = Wanted(
            bridge="br0",
            port="eno1",
            files={OWN: "new: $HOME 'text'\n", OLD: None},
            texts={},
            made=("br0",),
            returns=(("eno1", ("10.0.0.11/24",)),),
            addresses=("10.0.0.11/24",),
        )
        text = bridge.script("vmhost1", texts, wanted, 105)
        for folder in ("/etc/", "/run/", "/var/"):
            text = text.replace(folder, f"{root}{folder}")
        text = text.replace("PATH=/usr/local/sbin:", f"PATH={root}/bin:")
        (root / "change.sh").write_text(text, encoding="utf-8")

    def do(self, verb: str) -> subprocess.CompletedProcess[str]:
        words = ["/bin/sh", str(self.root / "change.sh"), verb]
        env = {**os.environ, "ROOT": str(self.root)}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False, timeout=60)

    @property
    def state(self) -> str:
        return (self.root / "run/vmfab/bridge/state").read_text(encoding="utf-8").strip()

    @property
    def calls(self) -> list[str]:
        return (self.root / "calls").read_text(encoding="utf-8").splitlines()

    def files(self, folder: str) -> dict[str, str]:
        found = sorted((self.root / folder).glob("*"))
        return {path.name: path.read_text(encoding="utf-8") for path in found if path.is_file()}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, {OLD: "old\n"})


NEW = {"60-vmfab.yaml": "new: $HOME 'text'\n"}
BEFORE = {"00-installer-config.yaml": "old\n"}


def test_what_is_tried_is_in_run_alone_and_shadows_the_old(host: Host) -> None:
    assert host.do("start").returncode == 0
    assert host.state == "applied"
    assert host.files("run/netplan") == {**NEW, "00-installer-config.yaml": ""}
    assert host.files("etc/netplan") == BEFORE
    armed = [n for n, call in enumerate(host.calls) if "--on-active=105" in call]
    assert armed[0] < host.calls.index("netplan apply")
    assert (host.root / "run/netplan/60-vmfab.yaml").stat().st_mode & 0o777 == 0o600


def test_what_is_proved_is_kept_and_the_old_aside(host: Host) -> None:
    host.do("start")
    assert host.do("keep").returncode == 0
    assert host.state == "kept"
    assert host.files("etc/netplan") == NEW
    assert host.files("run/netplan") == {}
    assert (host.root / "etc/netplan/60-vmfab.yaml").stat().st_mode & 0o777 == 0o600
    (kept,) = host.files(f"var/backups/vmfab{host.root}/etc/netplan").items()
    assert kept[0].startswith("00-installer-config.yaml.")
    assert kept[1] == "old\n"
    assert host.calls[-1] == "systemctl stop vmfab-netplan-back.timer"
    assert host.do("back").returncode == 0  # a timer that was on its way changes nothing
    assert (host.state, host.files("etc/netplan")) == ("kept", NEW)


def test_what_is_not_proved_is_taken_back(host: Host) -> None:
    host.do("start")
    assert host.do("back").returncode == 0
    assert host.state == "returned"
    assert host.files("run/netplan") == {}
    assert host.files("etc/netplan") == BEFORE
    assert "ip link delete dev br0" in host.calls
    assert host.calls.index("ip link delete dev br0") < len(host.calls) - host.calls[::-1].index(
        "netplan apply"
    )
    assert host.do("keep").returncode != 0
    assert host.files("etc/netplan") == BEFORE


def test_what_netplan_cannot_apply_is_taken_back_at_once(host: Host) -> None:
    (host.root / "netplan-fails").touch()
    host.do("start")
    assert host.state == "returned"
    assert host.files("run/netplan") == {}


def test_a_way_back_that_does_not_help_restarts_networkd_and_says_so(host: Host) -> None:
    host.do("start")
    (host.root / "address-gone").touch()
    assert host.do("back").returncode == 1
    assert host.state == "stuck"
    assert "systemctl restart systemd-networkd.service" in host.calls


def test_files_that_somebody_else_has_changed_are_not_replaced(host: Host) -> None:
    (host.root / OLD.lstrip("/")).write_text("theirs\n", encoding="utf-8")
    done = host.do("start")
    assert done.returncode == 1
    assert "changed by somebody else" in done.stderr
    assert host.files("etc/netplan") == {"00-installer-config.yaml": "theirs\n"}


def test_files_that_change_during_the_trial_are_not_replaced_either(host: Host) -> None:
    host.do("start")
    (host.root / OLD.lstrip("/")).write_text("theirs\n", encoding="utf-8")
    assert host.do("keep").returncode != 0
    assert host.state == "returned"
    assert host.files("etc/netplan") == {"00-installer-config.yaml": "theirs\n"}
