"""Which releases of Debian and Ubuntu are known, and the packages that a cluster host needs on each. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from tasks.cluster.errors import Refused


@dataclass(frozen=True, slots=True)
class Package:
    """A package by its name, and why a cluster host needs it."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Release:
    """A release, as /etc/os-release has it in ID and VERSION_ID, and the packages that differ there."""

    id: str
    version: str
    codename: str
    name: str
    packages: tuple[Package, ...] = ()
    #: the package that holds the running kernel's file systems when the kernel's own package does not;
    #: empty when there is none
    modules: str = ""

    def modules_for(self, kernel: str) -> str:
        """That package for a kernel; empty when there is none."""
        return self.modules.format(kernel=kernel)


#: Recommended packages are not installed, so what is wanted of them stands here.
EVERYWHERE = (
    Package("qemu-system-x86", "runs the VMs"),
    Package("qemu-utils", "qemu-img: makes and looks at images"),
    Package("ovmf", "firmware of VMs that boot with UEFI"),
    Package("libvirt-daemon-system", "libvirtd, as a service"),
    Package("libvirt-clients", "virsh"),
    Package("open-iscsi", "reaches the store's disk"),
    Package("ocfs2-tools", "o2cb and the tools of the shared file system"),
    Package("netplan.io", "sets up the bridge"),
    Package("cron", "starts VMs again after a reboot"),
    Package("logrotate", "keeps the logs small"),
    Package("minicom", "talks to consoles on serial lines"),
)
_SPICE = Package("qemu-system-modules-spice", "graphics of VMs that are defined with SPICE")
_EXTRA = "linux-modules-extra-{kernel}"
#: A kernel that has OCFS2, by the distribution's ID.
KERNELS = {"debian": "linux-image-amd64", "ubuntu": "linux-image-generic"}

RELEASES = (
    Release("debian", "12", "bookworm", "Debian 12"),
    Release("debian", "13", "trixie", "Debian 13", (_SPICE,)),
    Release("ubuntu", "22.04", "jammy", "Ubuntu 22.04", (), _EXTRA),
    Release("ubuntu", "24.04", "noble", "Ubuntu 24.04", (_SPICE,), _EXTRA),
    Release("ubuntu", "26.04", "resolute", "Ubuntu 26.04", (_SPICE,)),
)


def release_of(host: str, os_release: str) -> Release:
    """The release that /etc/os-release describes. Raises Refused for one that is not known."""
    facts = fields(os_release)
    for release in RELEASES:
        if (facts.get("ID"), facts.get("VERSION_ID")) == (release.id, release.version):
            return release
    found = facts.get("PRETTY_NAME") or " ".join(
        word for word in (facts.get("ID"), facts.get("VERSION_ID")) if word
    )
    known = ", ".join(release.name for release in RELEASES)
    raise Refused(
        f"{host} runs {found or 'a system that does not say its name'}, whose packages are not known.",
        f"Known are {known}. On another, install by hand what fab --help host.packages lists.",
    )


def fields(os_release: str) -> Mapping[str, str]:
    """The assignments of an os-release file; lines that are none are left out."""
    found = {}
    for line in os_release.splitlines():
        name, is_one, value = line.strip().partition("=")
        if not is_one or name.startswith("#"):
            continue
        try:
            words = shlex.split(value)
        except ValueError:
            continue
        found[name] = words[0] if words else ""
    return found


def packages(release: Release) -> tuple[Package, ...]:
    """What a cluster host of this release needs."""
    return (*EVERYWHERE, *release.packages)
