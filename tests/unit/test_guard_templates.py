"""What host.guard renders is as clean as the rest of the project, and holds what it is given."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jinja2
import pytest

from tasks.cluster.guard import MARK, PROGRAM, mirror_part, wanted
from tasks.cluster.model import Inventory
from tasks.cluster.templates import render

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


@pytest.mark.parametrize("name", [*PYTHON, "vmfab-liveness.service.j2"])
def test_a_value_that_is_missing_is_an_error(name: str) -> None:
    with pytest.raises(jinja2.UndefinedError):
        render(name)


def test_all_files_carry_the_mark_and_the_unit_starts_the_program() -> None:
    files = {file.path: file for file in wanted(Inventory("hosts.ini", {}, {}, mount="/srv/vms"), "vmhost1")}
    assert all(MARK in file.text for file in files.values())
    assert [file.mode for file in files.values()] == [0o755, 0o755, 0o644, 0o755]
    unit = files["/etc/systemd/system/vmfab-liveness.service"].text
    assert f"\nExecStart={PROGRAM}\n" in unit
    assert "/srv/vms" in files[PROGRAM].text
