"""The packages that the practice cluster needs: which, why, what is missing, and their installation.

The names are those of Debian 12 and 13 and of Ubuntu 22.04, 24.04 and 26.04.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.problem import LabError, LabRefused


@dataclass(frozen=True)
class Package:
    """A package, a file by which its presence is known, and the reason for it."""

    name: str
    proof: str
    reason: str
    apart: bool = False  # only newer distributions pack it apart; in others its proof comes with another


PACKAGES = (
    Package("libvirt-daemon", "/usr/sbin/libvirtd", "libvirtd of the practice hosts"),
    Package(
        "libvirt-daemon-driver-qemu",
        "/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so",
        "libvirtd's part for QEMU",
    ),
    Package(
        "libvirt-daemon-driver-network",
        "/usr/lib/*/libvirt/connection-driver/libvirt_driver_network.so",
        "libvirtd's part for networks",
        apart=True,
    ),
    Package("libvirt-clients", "/usr/bin/virsh", "virsh"),
    Package("qemu-system-x86", "/usr/bin/qemu-system-x86_64", "runs the guests"),
    Package("openssh-server", "/usr/sbin/sshd", "sshd of the practice hosts"),
    Package("openssh-client", "/usr/bin/ssh-keygen", "keys and ssh"),
    Package("sudo", "/usr/bin/sudo", "logins on the practice hosts other than root"),
    Package("tini", "/usr/bin/tini", "process 1 of each practice host"),
    Package("busybox-static", "/bin/busybox", "everything inside a guest"),
    Package("iproute2", "/sbin/ip", "the practice network"),
    Package("python3-minimal", "/usr/bin/python3", "Python on the practice hosts"),
    Package("cron", "/usr/bin/crontab", "crontabs of the practice hosts"),
    Package("logrotate", "/usr/sbin/logrotate", "checks what is installed to rotate logs"),
    Package("netplan.io", "/usr/sbin/netplan", "checks what is rendered for the hosts' networks"),
    Package("zstd", "/usr/bin/zstd", "unpacks the guests' kernel modules"),
)
#: What lab.up --machines needs besides.
MACHINES = (
    Package("mmdebstrap", "/usr/bin/mmdebstrap", "makes the system of the practice machines"),
    Package("qemu-utils", "/usr/bin/qemu-img", "makes the disks of the practice machines"),
    Package("binutils", "/usr/bin/as", "assembles the guests of the practice machines"),
    Package("e2fsprogs", "/sbin/mke2fs", "makes their file systems"),
    Package("util-linux", "/usr/bin/setpriv", "ends the making of an image with whoever asked for it"),
)
POLICY = Path("/usr/sbin/policy-rc.d")
REFUSE = "#!/bin/sh\n# Written by vmfab while it installs packages: no service is to start.\nexit 101\n"


def missing(more: tuple[Package, ...] = ()) -> list[Package]:
    """Return the packages that are not there, of those for the cells and `more`."""
    return [package for package in (*PACKAGES, *more) if not _exists(package.proof)]


def _exists(proof: str) -> bool:
    return any(True for _ in Path("/").glob(proof.lstrip("/")))


def require(more: tuple[Package, ...] = ()) -> None:
    """Raise LabRefused when a package is missing; the error says how to get it."""
    lacking = missing(more)
    if lacking:
        names = " ".join(package.name for package in _wanted(lacking))
        command = f"apt-get install --no-install-recommends {names}"
        raise LabRefused(
            f"The practice cluster needs packages that are not installed: {names}.",
            f"Type: {command}" if more else f"Type: sudo ./fab demo (it installs them), or: {command}",
        )


def install(say: Callable[[str], object], more: tuple[Package, ...] = ()) -> None:
    """Install what is missing and say what and why; raises LabError.

    Nothing that comes along is started, now or at the next boot: the machine gets programs, no services.
    """
    lacking = missing(more)
    if not lacking:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        require(more)
    for package in _wanted(lacking):
        say(f"Installing {package.name}: {package.reason}")
    units = _units()
    with _no_services():
        if not _apt(_command(lacking))[0]:
            say("Reading the package lists anew")
            _apt(["apt-get", "update", "-q"])
            done, message = _apt(_command(lacking))
            if not done:
                names = " ".join(package.name for package in _wanted(lacking))
                raise LabError(f"apt-get cannot install {names}: {message}")
    new = sorted(_units() - units)
    if new and shutil.which("systemctl"):
        subprocess.run(["systemctl", "disable", "-q", *new], capture_output=True, check=False)
    require(more)


def _wanted(lacking: list[Package]) -> list[Package]:
    return [package for package in lacking if not package.apart or _known(package.name)]


def _known(name: str) -> bool:
    """Tell whether the package archive has a package."""
    done = subprocess.run(["apt-cache", "show", "-q", name], capture_output=True, check=False)
    return done.returncode == 0 and bool(done.stdout)


def _command(lacking: list[Package]) -> list[str]:
    names = [package.name for package in _wanted(lacking)]
    return ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]


def _units() -> set[str]:
    """Name the services and sockets that packages brought to this machine."""
    folder = Path("/lib/systemd/system")
    found = (path.name for kind in ("service", "socket") for path in folder.glob(f"*.{kind}"))
    return {name for name in found if "@" not in name}


def _apt(words: list[str]) -> tuple[bool, str]:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return done.returncode == 0, errors[-1] if errors else f"exit code {done.returncode}"


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep package scripts from starting services; an administrator's own policy is put back after."""
    saved = POLICY.with_name("policy-rc.d.vmfab-saved")
    ours = POLICY.exists() and POLICY.read_text(encoding="utf-8", errors="replace") == REFUSE
    if POLICY.exists() and not ours:  # ours was left by an installation that was killed
        POLICY.rename(saved)
    POLICY.write_text(REFUSE, encoding="ascii")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
        if saved.exists():
            saved.rename(POLICY)
