"""lab.up, lab.status and lab.down as they are typed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tasks import labtasks
from tasks.cli import Operator
from tasks.cli.task import VmTask
from tasks.cluster.errors import Refused
from tasks.lab.lab import PROJECT, Lab


def fab(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./fab", *words],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "VMFAB_LAB": str(root)},
        timeout=200,
        check=False,
    )


def test_up_status_down_as_typed(tmp_path: Path) -> None:
    (PROJECT / ".lab/cache").mkdir(parents=True, exist_ok=True)
    root = tmp_path / "lab"
    root.mkdir()
    (root / "cache").symlink_to(PROJECT / ".lab/cache")
    try:
        assert fab(root, "lab.status").stdout == "The practice cluster is down. Next: ./fab lab.up\n"
        first = fab(root, "lab.up", "--hosts", "2", "--vms", "1")
        assert first.returncode == 0, first.stderr
        assert "Switching on 2 hosts" in first.stdout
        assert "Starting 1 VM\n" in first.stdout
        assert first.stdout.endswith("2 practice hosts are up. Next: ./fab --lab status\n")
        again = fab(root, "lab.up", "--hosts", "1", "--vms", "1")
        assert again.returncode == 0, again.stderr
        assert "Starting" not in again.stdout
        assert "There were 2 hosts before, and none is removed" in again.stdout
        shown = fab(root, "lab.status").stdout.splitlines()
        assert [line.split() for line in shown[1:]] == [
            ["vmhost1", "10.77.0.11", "on", "web", "1"],
            ["vmhost2", "10.77.0.12", "on", "0"],
        ]
    finally:
        down = fab(root, "lab.down")
    assert (down.returncode, down.stdout) == (0, "The practice cluster is down.\n")
    assert fab(root, "lab.down").stdout == "The practice cluster was down already.\n"


def test_status_of_hosts_that_are_off_or_do_not_answer(clean_lab: Lab) -> None:
    clean_lab.freeze("vmhost2", "libvirtd")
    clean_lab.power_off("vmhost3")
    shown = fab(clean_lab.root, "lab.status")
    assert shown.returncode == 0
    by_host = {line.split()[0]: line.split(maxsplit=2)[2] for line in shown.stdout.splitlines()[1:]}
    assert by_host["vmhost1"].split() == ["on", "0"]
    assert by_host["vmhost2"] == "on     ? (libvirtd does not answer)        ?"
    assert by_host["vmhost3"] == "off"
    clean_lab.thaw("vmhost2", "libvirtd")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["lab.up", "--hosts", "0"], "fab: --hosts wants a number from 1 to 64, not 0.\n"),
        (["lab.up", "--hosts", "many"], "fab: --hosts wants a number, not 'many'.\n"),
        (["lab.up", "--vms", "-1"], "fab: --vms wants a number from 0 to 1000, not -1.\n"),
        (["lab.shell"], "fab: The practice cluster is not up.\nType: ./fab lab.up\n"),
    ],
)
def test_a_refusal_is_a_sentence_and_changes_nothing(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = fab(tmp_path / "lab", *words)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("task", [labtasks.up, labtasks.status, labtasks.down, labtasks.shell])
def test_only_root_may(monkeypatch: pytest.MonkeyPatch, task: VmTask) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Refused, match="needs root") as raised:
        task.answer(Operator())
    assert raised.value.hint == f"Type: sudo ./fab lab.{task.name}"
