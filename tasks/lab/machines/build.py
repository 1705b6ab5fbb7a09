"""Build the machines' images once: a bare host, the storage machine, kernel, initramfs, package archive."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.lab.machines import archive, initrd, mirrors
from tasks.lab.machines.recipe import HERE, STORAGE_PACKAGES, Release, digest
from tasks.lab.namespaces import CLEAN_ENV
from tasks.lab.problem import LabError

#: GiB of a machine's disk; it is sparse.
DISK = 12
#: Seconds since their last use for which images of an older recipe are kept.
KEPT = 24 * 3600.0
#: A half-built folder begins so; it is removed by the next build.
PART = "part-"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


@dataclass(frozen=True)
class Images:
    """A finished set of images. Its files never change."""

    folder: Path

    @property
    def host(self) -> Path:
        """Return the disk of a bare host."""
        return self.folder / "host.img"

    @property
    def storage(self) -> Path:
        """Return the disk of the storage machine."""
        return self.folder / "storage.img"

    @property
    def kernel(self) -> Path:
        """Return the kernel of all machines."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Return the initramfs, without what is each machine's own."""
        return self.folder / "initrd"

    @property
    def archive(self) -> Path:
        """Return the folder with the packages for the hosts."""
        return self.folder / "archive"


def provide(cache: Path, release: Release, say: Callable[[str], object]) -> Images:
    """Return the images of a release, built in `cache` if they are not there yet; raises LabError.

    They appear all at once, and only when they are complete. Those that nobody used for a day, made by an
    older recipe, go away then.
    """
    home = cache / "machines"
    home.mkdir(parents=True, exist_ok=True)
    wanted = home / f"{release.name}-{digest(release)}"
    if wanted.is_dir():
        os.utime(wanted)
        return Images(wanted)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if wanted.is_dir():
            return Images(wanted)
        for left in home.glob(f"{PART}*"):
            shutil.rmtree(left)
        begin = time.monotonic()
        say(f"Building the image of a bare {release.family.capitalize()} host ({release.name})")
        part = Path(tempfile.mkdtemp(prefix=PART, dir=home))
        try:
            _build(part, release, say)
            for old in home.glob(f"{release.name}-*"):
                if old.stat().st_mtime < time.time() - KEPT:
                    shutil.rmtree(old)
            part.rename(wanted)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        say(f"The image is built, in {time.monotonic() - begin:.0f} s")
    return Images(wanted)


def _build(part: Path, release: Release, say: Callable[[str], object]) -> None:
    tree, debs = part / "tree", part / "debs"
    for name in ("host", "storage"):
        (debs / name).mkdir(parents=True)
    _bootstrap(part, release)
    say("Making the disks and the package archive")
    kernels = sorted((tree / "boot").glob("vmlinuz-*"))
    if not kernels:
        raise LabError(f"There is no kernel in the image of {release.name}.")
    shutil.copyfile(kernels[-1], part / "vmlinuz")
    (part / "initrd").write_bytes(initrd.common(tree))
    archive.make(sorted((debs / "host").glob("*.deb")), part / "archive")
    _disk(tree, part / "host.img")
    shutil.copytree(debs / "storage", tree / "debs")
    packages = [f"/debs/{path.name}" for path in (tree / "debs").glob("*.deb")]
    policy = tree / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
    policy.chmod(0o755)
    _run(["chroot", str(tree), "dpkg", "-i", *packages])
    policy.unlink()
    shutil.rmtree(tree / "debs")
    _disk(tree, part / "storage.img")
    shutil.rmtree(tree)
    shutil.rmtree(debs)
    part.chmod(0o755)


def _bootstrap(part: Path, release: Release) -> None:
    """Make the tree of a bare host, and beside it the packages that are to be had later."""
    options = part / "apt.conf"
    options.write_text("".join(f"{line}\n" for line in mirrors.options()), encoding="utf-8")
    apt = 'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -y -q --no-install-recommends --download-only install'
    extra = release.modules('$(ls "$1/usr/lib/modules")')
    fetch = [
        f'{apt} {" ".join(packages)} && mv "$1"/var/cache/apt/archives/*.deb {part}/debs/{name}/'
        for name, packages in (("host", (*release.host_packages, extra)), ("storage", STORAGE_PACKAGES))
    ]
    with tempfile.TemporaryDirectory(dir=part) as keys:
        _run([
            "mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase",
            f"--include={','.join(release.include)}", f"--aptopt={options}",
            "--aptopt=Acquire::Languages none", "--dpkgopt=force-unsafe-io",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            *(f"--customize-hook={hook}" for hook in fetch), f"--customize-hook={HERE}/files/bare \"$1\"",
            '--customize-hook=rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap '
            '"$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap',
            release.name, str(part / "tree"), *mirrors.sources(release, Path(keys)),
        ])  # fmt: skip


def _disk(tree: Path, image: Path) -> None:
    """Write a tree into the file system of a sparse disk."""
    _run([
        "mke2fs", "-q", "-t", "ext4", "-O", "^metadata_csum", "-m", "0", "-L", "root", "-d", str(tree),
        str(image), f"{DISK}G",
    ])  # fmt: skip


def _run(words: Sequence[str], timeout: float = 1800.0) -> None:
    """Run a step in namespaces of its own, which end with it, with us, and with all mounts in them."""
    apart = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    proxies = {name: os.environ[name] for name in _both(_PROXIES) if name in os.environ}
    try:
        done = subprocess.run(
            [*apart, "--mount-proc", "--propagation=private", *words], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", timeout=timeout, check=False, cwd="/",
            env={**CLEAN_ENV, **proxies, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise LabError(f"No end of {words[0]} within {timeout:g} s.") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise LabError(f"{words[0]} failed while building the practice machines: {' / '.join(said[-4:])}")


def _both(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield from (name, name.upper())
