"""Kernel and initramfs of the practice guests: the distribution's kernel, busybox, a few modules."""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tasks.lab.problem import LabError

FILES = Path(__file__).parent / "files"
META_PACKAGES = {
    "debian": ("linux-image-cloud-amd64", "linux-image-amd64"),
    "ubuntu": ("linux-image-virtual", "linux-image-generic"),
}
#: For the kernel's command line. An emulated processor leaks nothing, and pays dearly for mitigations, for
#: memory wiped in advance, and for a clock that is not its own. What is not tested need not be emulated.
EMULATED = "nokaslr mitigations=off init_on_alloc=0 cryptomgr.notests tsc=reliable nowatchdog audit=0"
#: A guest needs neither keys to check modules with nor ciphers. All of it is a third of its boot.
QUICK = (
    f"{EMULATED} "
    "initcall_blacklist=load_system_certificate_list,init_encrypted,crypto_kdf108_init,init_kprobe_trace"
)
MODULES = ("virtio_pci", "virtio_blk", "evdev", "button")
APPLETS = (
    "sh", "cat", "cut", "date", "dd", "echo", "env", "free", "grep", "head", "insmod", "ip", "kill", "ls",
    "mkfifo", "mount", "poweroff", "printf", "ps", "reboot", "seq", "setsid", "sleep", "sort", "sync", "tail",
    "top", "tr", "uptime", "vi", "wc",
)  # fmt: skip


def provide(cache: Path) -> tuple[Path, Path]:
    """Return the paths of kernel and initramfs, made once in `cache` (needs the package archive)."""
    folder = cache / "guest"
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    recipe = [FILES / "guest-init", Path(__file__)]
    if not kernel.exists():
        _fetch(folder)
    if not initrd.exists() or initrd.stat().st_mtime < max(path.stat().st_mtime for path in recipe):
        part = initrd.with_suffix(".part")
        part.write_bytes(_initramfs(folder / "unpacked"))
        part.rename(initrd)
    return kernel, initrd


def _fetch(folder: Path) -> None:
    """Download and unpack the kernel's packages; nothing is installed on this machine."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        try:
            _download(scratch)
        except LabError:
            # No package lists yet, or they name a kernel that the archive has replaced since.
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, check=False)
            _download(scratch)
        unpacked = scratch / "unpacked"
        for deb in sorted(scratch.glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(deb), str(unpacked)], check=True)
        shutil.rmtree(folder / "unpacked", ignore_errors=True)
        unpacked.rename(folder / "unpacked")
    images = sorted((folder / "unpacked/boot").glob("vmlinuz-*"))
    if not images:
        raise LabError("There is no kernel in the packages for the practice guests.")
    part = folder / "vmlinuz.part"
    shutil.copyfile(images[-1], part)
    part.rename(folder / "vmlinuz")


def _download(folder: Path) -> None:
    packages = kernel_packages()
    command = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *packages]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise LabError(f"The guests' kernel ({', '.join(packages)}) cannot be downloaded: {reason}")


def kernel_packages() -> list[str]:
    """Find the names of the newest kernel's real packages behind this distribution's meta package."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    family = "ubuntu" if re.search(r'^ID(_LIKE)?="?.*ubuntu', release, re.M) else "debian"
    for meta in META_PACKAGES[family]:
        shown = subprocess.run(
            ["apt-cache", "depends", "--important", meta], capture_output=True, text=True, check=False
        )
        images = re.findall(r"Depends: (linux-image-\S*\d\S*)", shown.stdout)
        if images:
            if family == "debian":
                return images[:1]
            return [images[0], re.sub("^linux-image-(unsigned-)?", "linux-modules-", images[0])]
    raise LabError("The package archive knows no kernel for the practice guests.")


def _initramfs(unpacked: Path) -> bytes:
    folders = ("bin", "dev", "proc", "sys", "modules")
    return busybox_initramfs(folders, APPLETS, FILES / "guest-init", modules_of(unpacked, MODULES))


def busybox_initramfs(
    folders: Iterable[str], applets: Iterable[str], init: Path, modules: Iterable[tuple[str, bytes]]
) -> bytes:
    """Return an initramfs of this computer's busybox: its applets in bin, `init`, numbered kernel modules.

    Raises LabError when there is no busybox.
    """
    archive = Cpio()
    for folder in folders:
        archive.add(folder, 0o040755)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox is not installed.", "Type: apt-get install busybox-static")
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    for applet in applets:
        archive.add(f"bin/{applet}", 0o120777, b"busybox")
    archive.add("init", 0o100755, init.read_bytes())
    for number, (name, data) in enumerate(modules):
        archive.add(f"modules/{number:02}-{name}.ko", 0o100644, data)
    return archive.finish()


def modules_of(unpacked: Path, names: Iterable[str]) -> list[tuple[str, bytes]]:
    """Return the wanted modules and what they depend on, in load order; built-in ones have no file."""
    files = {path.name.split(".")[0].replace("-", "_"): path for path in unpacked.glob("**/*.ko*")}
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered or name not in files:
            return
        data = _plain(files[name])
        found = re.search(rb"\0depends=([^\0]*)\0", data)
        for needed in found.group(1).decode().split(",") if found else ():
            visit(needed.replace("-", "_"))
        ordered[name] = data

    for name in names:
        visit(name)
    return list(ordered.items())


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return data


class Cpio:
    """A writer of the kernel's initramfs format (cpio "newc")."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, name: str, mode: int, data: bytes = b"") -> None:
        """Add a file, folder or symbolic link (its target is `data`), owned by root."""
        self._count += 1
        raw = name.encode() + b"\0"
        numbers = (self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(raw), 0)
        head = b"070701" + b"".join(b"%08X" % number for number in numbers) + raw
        self._parts.append(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))

    def finish(self) -> bytes:
        """Return the whole archive."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)
