"""What host.guard renders is as clean as the rest of the project, and holds what it is given."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest

from tasks.cluster.model import Inventory
from tasks.cluster.setup import guard
from tasks.cluster.setup.guard import mirror_part
from tasks.cluster.setup.templates import render
from tasks.onhost import facts
from tests.unit import observed

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"
PYTHON = ("libvirt-qemu-hook.py.j2", "vmfab-liveness.py.j2", "vmfab-tend.py.j2")
VALUES = {
    "host": "vmhost1",
    "mount": "/vmstorage",
    "running_vms": "/root/running_vms",
    "deadline": 20,
    "tend": "/tend",
    "hook": "/hook",
    "mirror": mirror_part(),
    "version": "1",
}


@pytest.mark.parametrize("name", PYTHON)
def test_programs_are_clean(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rendered.py"
    path.write_text(render(name, **VALUES))
    ignored = "PTH,SIM105"  # close to the system calls, and quick to load
    for command in (
        ["ruff", "format", "--config", ROOT / "pyproject.toml", "--diff"],
        ["ruff", "check", "--config", ROOT / "pyproject.toml", "--target-version=py38", "--ignore", ignored],
        ["mypy", "--strict", "--config-file="],
        ["vermin", "--quiet", "--target=3.8-", "--no-tips", "--violations"],
    ):
        done = subprocess.run([BIN / str(command[0]), *command[1:], path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", PYTHON[:2])
def test_values_arrive_whatever_they_hold(name: str) -> None:
    space: dict[str, object] = {"__name__": "rendered"}
    exec(compile(render(name, **{**VALUES, "host": 'vm"host\\1 ü'}), name, "exec"), space)
    assert (space["HOST"], space["MOUNT"]) == ('vm"host\\1 ü', "/vmstorage")


@pytest.mark.parametrize("name", [*PYTHON, "vmfab-liveness.service.j2", "vmfab-guard.logrotate.j2"])
def test_a_value_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render(name)


def test_all_files_carry_the_mark_and_the_unit_starts_the_program() -> None:
    inventory = Inventory("hosts.ini", {}, {}, mount="/srv/vms")
    found = {file.path: file for file in guard.files(inventory, "vmhost1")}
    assert all(
        guard.MARK in text for text in [*(f.text for f in found.values()), guard.hook_text(inventory, "a")]
    )
    assert [file.mode for file in found.values()] == [0o755, 0o755, 0o644, 0o644]
    unit = found["/etc/systemd/system/vmfab-liveness.service"].text
    assert f"\nExecStart={guard.PROGRAM}\n" in unit
    assert "/srv/vms" in found[guard.PROGRAM].text
    assert "\n/srv/vms/.vmfab/guard.log {\n" in found[guard.LOGROTATE].text


def test_the_guard_tells_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = tmp_path / "qemu"
    monkeypatch.setattr(facts, "HOOK", str(hook))
    inventory = Inventory("hosts.ini", {}, {})

    def told(text: str, mode: int = 0o755) -> str | None:
        hook.write_text(text)
        hook.chmod(mode)
        said = facts.guard_version()
        seen = replace(observed.host("vmhost1"), guarded=bool(said), guard_version=said)
        return guard.state_on(seen, inventory)

    text = guard.hook_text(inventory, "vmhost1")
    assert told(text) == "present"
    assert told(text.replace("DEADLINE = 20", "DEADLINE = 1")) == "outdated"
    assert told(guard.hook_text(inventory, "vmhost2")) == "outdated"
    assert told(guard.hook_text(Inventory("", {}, {}, mount="/m"), "vmhost1")) == "outdated"
    # Of vmfab before it told versions.
    assert told(f"#!/usr/bin/python3\n{guard.MARK}: ...\nimport sys\n") == "outdated"
    assert told("#!/bin/sh\nexit 0\n\n\n") == "absent"
    assert told("") == "absent"
    hook.unlink()
    assert facts.guard_version() == ""
    assert guard.state_on(observed.host("vmhost1"), inventory) is None
