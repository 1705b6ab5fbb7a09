"""The packages of the practice cluster: known to the archive, installed without starting anything."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tasks.lab import guestkernel, packages
from tasks.lab.problem import LabError, LabRefused

OWN = "#!/bin/sh\nexit 0\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose policy, package tool and one missing package are stand-ins."""
    monkeypatch.setattr(packages, "POLICY", tmp_path / "policy-rc.d")
    proof = tmp_path / "proof"
    monkeypatch.setattr(packages, "PACKAGES", (packages.Package("tini", str(proof), "a reason"),))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def apt(machine: Path, text: str) -> None:
    path = machine / "apt-get"
    path.write_text(
        f'#!/bin/sh\necho "$*" >>{machine}/calls\ncp {machine}/policy-rc.d {machine}/seen\n{text}\n'
    )
    path.chmod(0o755)


@pytest.mark.parametrize(
    "package", [one for one in packages.PACKAGES if not one.apart], ids=lambda one: one.name
)
def test_the_archive_has_each_package(package: packages.Package) -> None:
    subprocess.run(["apt-cache", "show", package.name], check=True, capture_output=True)
    assert package.reason


def test_the_archive_has_a_kernel_for_the_guests() -> None:
    assert all(any(c.isdigit() for c in name) for name in guestkernel.kernel_packages())


@pytest.mark.parametrize("own", [OWN, None])
def test_nothing_is_started_and_the_machines_policy_comes_back(machine: Path, own: str | None) -> None:
    if own:
        packages.POLICY.write_text(own)
    apt(machine, f"touch {machine}/proof")
    said: list[str] = []
    packages.install(said.append)
    assert said == ["Installing tini: a reason"]
    assert (machine / "seen").read_text() == packages.REFUSE
    assert (packages.POLICY.read_text() if packages.POLICY.exists() else None) == own
    assert (machine / "calls").read_text() == "install -y -q --no-install-recommends tini\n"
    packages.install(said.append)
    assert len(said) == 1


def test_a_policy_left_by_a_killed_installation_goes_away(machine: Path) -> None:
    packages.POLICY.write_text(packages.REFUSE)
    apt(machine, f"touch {machine}/proof")
    packages.install(str)
    assert not packages.POLICY.exists()


def test_a_failure_is_one_sentence_and_leaves_no_policy(machine: Path) -> None:
    apt(machine, "echo 'E: Unable to locate package tini' >&2; exit 100")
    with pytest.raises(LabError, match="cannot install tini: E: Unable to locate"):
        packages.install(str)
    assert not packages.POLICY.exists()
    assert (machine / "calls").read_text().split("\n")[1] == "update -q"


def test_what_is_missing_is_named(machine: Path) -> None:
    with pytest.raises(LabRefused, match="not installed: tini") as raised:
        packages.require()
    assert raised.value.code == 2
