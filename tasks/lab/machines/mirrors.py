"""Where packages come from: what this computer's own apt is configured to use, for any release."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tasks.lab.machines import keyring
from tasks.lab.machines.recipe import RELEASES, Release

COMPONENTS = {"debian": ("main",), "ubuntu": ("main", "universe")}
#: For a computer of another family; a computer's own sources win.
PUBLIC = {
    "debian": (
        "http://deb.debian.org/debian {0}",
        "http://deb.debian.org/debian {0}-updates",
        "http://deb.debian.org/debian-security {0}-security",
    ),
    "ubuntu": (
        "http://archive.ubuntu.com/ubuntu {0}",
        "http://archive.ubuntu.com/ubuntu {0}-updates",
        "http://security.ubuntu.com/ubuntu {0}-security",
    ),
}
#: How apt reaches its archives: proxies, certificates, patience.
_REACHES = re.compile(r'Acquire::(?:https?::[^" ]+|Retries|ForceIPv[46]) "[^"\n]+";')
_FORMAT = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"


def sources(release: Release, folder: Path) -> list[str]:
    """Return the lines of sources.list for a release, from this computer's sources of the same family.

    Keys of its family that are not installed here are taken from the other family's archive into `folder`.
    Raises LabRefused when they cannot be had.
    """
    keys = keyring.installed(release.family)
    if not keys.exists():
        other = [Release(family, name) for name, family in RELEASES.items() if family != release.family][-1]
        keys = keyring.fetch(release.family, _lines(other, keyring.installed(other.family)), folder)
    return _lines(release, keys)


def _lines(release: Release, keys: Path) -> list[str]:
    archives = chosen(_targets(), release)
    if not archives:
        # No package lists yet: apt does not know whose its sources are.
        subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
        archives = chosen(_targets(), release) or [
            line.format(release.name) for line in PUBLIC[release.family]
        ]
    return [
        f"deb [signed-by={keys}] {archive} {' '.join(COMPONENTS[release.family])}" for archive in archives
    ]


def _targets() -> str:
    words = ["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def chosen(targets: str, release: Release) -> list[str]:
    """Pick "ADDRESS SUITE" of a distribution's own archives from apt's list, spelled for a release.

    A computer of bookworm with a source of bookworm-updates gives that of trixie-updates for trixie.
    """
    found: dict[str, None] = {}
    for line in targets.splitlines():
        origin, address, suite, _ = line.split("|")
        name, _, pocket = suite.partition("-")
        known = RELEASES.get(name) == release.family
        if origin.lower() == release.family and known and pocket in ("", "updates", "security"):
            found[f"{address.rstrip('/')} {release.name}{'-' * bool(pocket)}{pocket}"] = None
    return list(found)


def options() -> list[str]:
    """Return how this computer's apt reaches its archives, as lines of apt.conf."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return reaches(dump)


def reaches(dump: str) -> list[str]:
    """Pick from what apt-config prints how it reaches its archives."""
    return _REACHES.findall(dump)
