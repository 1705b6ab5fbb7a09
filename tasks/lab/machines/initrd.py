"""The machines' initramfs: what their disk needs, and what makes each of them the machine that it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tasks.lab.guestkernel import Cpio, busybox_initramfs, modules_of

MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
APPLETS = ("sh", "cp", "echo", "insmod", "mount", "sleep", "switch_root", "sync", "umount")
INIT = Path(__file__).parent / "files/machine-init"


def common(tree: Path) -> bytes:
    """Return the part that all machines share, with the modules of the kernel in a tree."""
    folders = ("bin", "dev", "proc", "root", "modules")
    return busybox_initramfs(folders, APPLETS, INIT, modules_of(tree / "usr/lib/modules", MODULES))


def personal(files: Mapping[str, tuple[int, str]]) -> bytes:
    """Return the part of one machine: files by their path on its disk, each with mode and text."""
    archive = Cpio()
    folders = {str(parent) for path in files for parent in PurePosixPath("machine", path).parents}
    for folder in sorted(folders - {"."}):
        archive.add(folder, 0o040700 if folder.endswith("/.ssh") or folder == "machine/root" else 0o040755)
    for path, (mode, text) in files.items():
        archive.add(f"machine/{path}", 0o100000 | mode, text.encode())
    return archive.finish()
