"""The packages that a cluster host needs: what is missing, and its installation with apt-get."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.cluster.asking.hostfiles import Ended
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Failed, HostError, Refused, Unknown
from tasks.cluster.setup import releases
from tasks.cluster.setup.releases import Package, Release
from tasks.cluster.setup.steps import AGAIN, AlreadySo, Booted, Change, Finding, Step, run

#: What the package manager wrote, on the host.
LOG = "/var/log/vmfab/packages.log"
#: /etc/os-release may be a link to it.
OS_RELEASE = "/usr/lib/os-release"
#: Where dpkg keeps what it had not yet written down when it was killed.
JOURNAL = "/var/lib/dpkg/updates"
#: Seconds that a package manager which runs already may take, as unattended upgrades do.
LOCKED = 600.0
#: Seconds between two attempts.
PAUSE = 5.0
#: Seconds for reading the archive's lists, and for an installation on a slow line and a slow disk.
UPDATE = 900.0
INSTALL = 3600.0
_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    # Ubuntu's needrestart would restart services that have nothing to do with this, and may ask.
    "NEEDRESTART_SUSPEND": "1",
}
_QUIET = ["-o", "Dpkg::Use-Pty=0", "-o", "APT::Color=0", "-o", f"DPkg::Lock::Timeout={LOCKED:.0f}"]
_UNFINISHED = ("unpacked", "half-configured", "triggers-awaited", "triggers-pending")


def step(host: str, clock: Clock) -> Step:
    """What `host.packages` installs on a host; which release it runs is looked at there."""
    return Step("packages", (Booted(), Finished(clock), Installed(clock), KernelModules(clock)))


def release(ops: HostOps) -> Release:
    """The release that a host runs. Raises Refused for one that is not known."""
    return releases.release_of(ops.host, ops.file_read(OS_RELEASE).text or "")


@dataclass(frozen=True, slots=True)
class Finished:
    """No installation was cut off: as long as one was, nothing else can be installed."""

    clock: Clock

    def look(self, ops: HostOps) -> Finding:
        release(ops)
        states = _query(ops, "${db:Status-Status} ${Package}\n").splitlines()
        half = [name for state, _, name in (line.partition(" ") for line in states) if state in _UNFINISHED]
        journal = run(ops, ["find", JOURNAL, "-type", "f", "-name", "[0-9]*"]).out.split()
        if not half and not journal:
            return AlreadySo("dpkg", "has finished all it began")
        why = f"told to finish what was cut off ({', '.join(half) or 'its journal is not empty'})"

        def finish(ops: HostOps) -> str:
            _worked(
                ops, self.clock, ["dpkg", "--force-confdef", "--force-confold", "--configure", "-a"], INSTALL
            )
            return ""

        return Change("dpkg", why, finish)


@dataclass(frozen=True, slots=True)
class Installed:
    """The packages that every cluster host needs are installed."""

    clock: Clock

    def look(self, ops: HostOps) -> Finding:
        wanted = releases.packages(release(ops))
        there = installed(ops, [package.name for package in wanted])
        missing = [package for package in wanted if package.name not in there]
        if not missing:
            return AlreadySo("packages", f"all {len(wanted)} are installed")
        return _installation(self.clock, missing)


@dataclass(frozen=True, slots=True)
class KernelModules:
    """The kernel that runs has OCFS2, and so has a newer one, which the next boot takes."""

    clock: Clock

    def look(self, ops: HostOps) -> Finding:
        running = run(ops, ["uname", "-r"]).out.strip()
        kernels = tuple(dict.fromkeys((running, _newest(ops, running))))
        lacking = [kernel for kernel in kernels if not _has_ocfs2(ops, kernel)]
        if not lacking:
            return AlreadySo("kernel", f"OCFS2 is there for {', '.join(kernels)}")
        known = release(ops)
        if known.modules:
            whole = [
                Package(known.modules_for(kernel), f"OCFS2 for the kernel {kernel}") for kernel in lacking
            ]
            return _installation(self.clock, whole)
        if running in lacking:
            raise Refused(
                f"{ops.host}'s kernel {running} has no OCFS2.",
                f"Install {releases.KERNELS[known.id]} there instead of a cloud kernel, reboot, and type the "
                "same again.",
            )
        raise Refused(
            f"{ops.host} boots the kernel {lacking[0]} next, which has no OCFS2 ({running} runs).",
            f"Type there: apt-get remove linux-image-{lacking[0]}; then the same again.",
        )


def _newest(ops: HostOps, running: str) -> str:
    """The newest kernel that can be booted; the running one if none is newer."""
    there = run(ops, ["find", "/boot", "/lib/modules", "-maxdepth", "1", "-printf", "%f\n"]).out.split("\n")
    # One that was removed may have left its folder of modules, one made by hand its file with another ending.
    both = [name for name in there if f"vmlinuz-{name}" in there]
    return max([running, *both], key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _has_ocfs2(ops: HostOps, kernel: str) -> bool:
    return bool(run(ops, ["find", f"/lib/modules/{kernel}/", "-name", "ocfs2.ko*"]).out.strip())


def installed(ops: HostOps, names: Sequence[str]) -> frozenset[str]:
    """Which of these packages are installed, with all that belongs to it."""
    lines = _query(ops, "${db:Status-Status} ${Package}\n", *names).splitlines()
    return frozenset(
        name for state, _, name in (line.partition(" ") for line in lines) if state == "installed"
    )


def _query(ops: HostOps, form: str, *names: str) -> str:
    """What dpkg-query prints; it ends with 1 when it does not know one of the names."""
    ended = run(ops, ["dpkg-query", "--show", f"--showformat={form}", *names])
    if ended.rc > 1:
        raise Refused(f"{ops.host}: dpkg-query cannot be asked: {ended.said}.")
    return ended.out


def _installation(clock: Clock, missing: Sequence[Package]) -> Change:
    names = [package.name for package in missing]
    wide = max(map(len, names))

    def install(ops: HostOps) -> str:
        _worked(ops, clock, ["apt-get", "update", *_QUIET], UPDATE)
        keep = ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
        how = ["--yes", "--no-install-recommends", "--no-remove", *_QUIET, *keep]
        _worked(ops, clock, ["apt-get", "install", *how, *names], INSTALL)
        return f"what apt-get wrote is in {LOG}"

    listed = "".join(f"+ {package.name:{wide}}  {package.why}\n" for package in missing)
    number = f"{len(names)} package{'s' if len(names) > 1 else ''}"
    return Change(number, "installed, and what they depend on", install, listed)


def _worked(ops: HostOps, clock: Clock, argv: Sequence[str], timeout: float) -> None:
    """Let a package manager do its work, after those that work already. Raises Failed, Unknown."""
    until = clock.monotonic() + LOCKED
    while True:
        try:
            ended = ops.work(argv, timeout=timeout, log=LOG, env=_ENVIRONMENT)
        except HostError as error:
            if error.kind != "deadline":
                raise
            raise Unknown(f"{ops.host}: {error.detail}.", f"When it has ended: {AGAIN.lower()}") from error
        if ended.rc == 0:
            return
        if not _locked(ended) or clock.monotonic() > until:
            raise Failed(
                f"{ops.host}: {argv[0]} failed: {complaint(ended)}.",
                f"All it wrote is in {LOG} on {ops.host}. {AGAIN}",
            )
        ops.tell(f"{argv[0]} waits for another package manager")
        clock.sleep(PAUSE)


def _locked(ended: Ended) -> bool:
    return "Could not get lock" in ended.out or "lock was locked by another process" in ended.out


def complaint(ended: Ended) -> str:
    """What apt-get or dpkg complained about, in one line."""
    lines = [line.strip() for line in ended.out.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith(("E:", "dpkg: error", "dpkg:"))]
    return "; ".join(errors[-3:] or lines[-1:]) or f"it ended with {ended.rc}"
