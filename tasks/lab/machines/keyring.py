"""The keys of a distribution's packages: those installed here, or out of the package that has them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tasks.lab.problem import LabRefused

#: The package that has a distribution's keys: in its own archive, and in the newest release of the other.
PACKAGES = {"debian": "debian-archive-keyring", "ubuntu": "ubuntu-keyring"}


def installed(family: str) -> Path:
    """Name the file of a distribution's keys, wherever it is installed."""
    return Path(f"/usr/share/keyrings/{family}-archive-keyring.gpg")


def fetch(family: str, sources: list[str], folder: Path) -> Path:
    """Take a distribution's keys out of their package, found by `sources`, into a folder that is made for it.

    Nothing is installed. The sources are lines of sources.list: apt trusts only what is signed by keys that
    are here. Raises LabRefused when the package cannot be had.
    """
    package = PACKAGES[family]
    folder = folder.resolve()
    (folder / "lists").mkdir(parents=True)
    listed = folder / "sources.list"
    listed.write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    settings = {
        "Dir::Etc::SourceList": listed,
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache::PkgCache": "",
        "Dir::Cache::SrcPkgCache": "",
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in settings.items())]
    for words in ([*apt, "update"], [*apt, "download", package]):
        _run(words, family, folder)
    for deb in folder.glob(f"{package}_*.deb"):
        _run(["dpkg-deb", "--extract", str(deb), str(folder)], family, folder)
    found = folder / installed(family).relative_to("/")
    if not found.exists():
        raise _lacking(family, f"the package {package} has no {installed(family).name}")
    return found


def _run(words: list[str], family: str, folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        raise _lacking(family, said[-1] if said else f"{words[0]} ended with {done.returncode}")


def _lacking(family: str, why: str) -> LabRefused:
    return LabRefused(
        f"The keys of {family.capitalize()}'s packages are not on this computer, and cannot be had: {why}",
        f"Install them as {installed(family)}, or build machines of this computer's own distribution.",
    )
