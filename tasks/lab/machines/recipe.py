"""What the machines are made of: release, packages, and the digest by which a finished image is known."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.cluster.setup import releases
from tasks.lab.problem import LabRefused

HERE = Path(__file__).parent

#: The releases whose machines can be built, and whose they are.
RELEASES = {release.codename: release.id for release in releases.RELEASES}
#: A server as its installer leaves it: it can be reached by ssh, has Python and cron, and nothing of ours.
BARE = (
    "apt", "systemd-sysv", "udev", "dbus", "openssh-server", "python3", "cron", "iproute2", "iputils-ping",
    "procps", "netplan.io", "kmod", "apparmor", "sudo",
)  # fmt: skip
#: A kernel that has or can get OCFS2: Debian's kernels for clouds cannot.
KERNEL = {"debian": "linux-image-amd64", "ubuntu": "linux-image-virtual"}
#: The storage machine is the lab's own part: it is not bare.
STORAGE_PACKAGES = ("tgt",)
#: A change in one of these makes new images.
MAKERS = (
    "recipe.py",
    "build.py",
    "archive.py",
    "initrd.py",
    "../guestkernel.py",
    "mirrors.py",
    "files/bare",
    "files/machine-init",
)


@dataclass(frozen=True)
class Release:
    """A release of a distribution: "debian", "bookworm"."""

    family: str
    name: str

    @property
    def include(self) -> tuple[str, ...]:
        """Name the packages of a bare host."""
        return (*BARE, KERNEL[self.family])

    @property
    def host_packages(self) -> tuple[str, ...]:
        """Name what host.packages installs: the lab's own archive has it, as the machines have no way out."""
        return tuple(package.name for package in releases.packages(self._known))

    def modules(self, kernel: str) -> str:
        """Name the package that has OCFS2 for a kernel whose own package does not; "" when there is none."""
        return self._known.modules_for(kernel)

    @property
    def _known(self) -> releases.Release:
        return next(one for one in releases.RELEASES if one.codename == self.name)


def computers(os_release: str) -> Release:
    """Tell this computer's release from the text of /etc/os-release; raises LabRefused."""
    words = dict(re.findall(r'^([A-Z_]+)="?([^"\n]*)"?$', os_release, re.MULTILINE))
    name = words.get("UBUNTU_CODENAME") or words.get("DEBIAN_CODENAME") or words.get("VERSION_CODENAME") or ""
    if name not in RELEASES:
        what = words.get("PRETTY_NAME") or "This system"
        raise LabRefused(f"{what} is not known to the practice machines.", _known())
    return Release(RELEASES[name], name)


def choose(name: str) -> Release:
    """Give a release by its name, or this computer's for an empty name; raises LabRefused."""
    if not name:
        return computers(Path("/etc/os-release").read_text(encoding="utf-8"))
    if name not in RELEASES:
        raise LabRefused(f"There are no practice machines of a release {name!r}.", _known())
    return Release(RELEASES[name], name)


def _known() -> str:
    return f"Type: fab lab.up --machines --release {'|'.join(RELEASES)}"


def digest(release: Release) -> str:
    """Return what changes when an image of this release would be made in another way."""
    found = hashlib.sha256(f"{release} {release.host_packages}\n".encode())
    for name in MAKERS:
        found.update((HERE / name).read_bytes())
    return found.hexdigest()[:12]
