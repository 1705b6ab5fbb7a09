"""The machines' initramfs: what their disk needs, and what makes each of them the machine that it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from tasks.lab.guestkernel import Cpio, modules_of
from tasks.lab.problem import LabError

MODULES = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")
APPLETS = ("sh", "cp", "echo", "insmod", "mount", "sleep", "switch_root", "sync", "umount")
INIT = Path(__file__).parent / "files/machine-init"


def common(tree: Path) -> bytes:
    """Return the part that all machines share, with the modules of the kernel in a tree."""
    archive = Cpio()
    for folder in ("bin", "dev", "proc", "root", "modules"):
        archive.add(folder, 0o040755)
    busybox = shutil.which("busybox")
    if busybox is None:
        raise LabError("busybox is not installed.", "Type: apt-get install busybox-static")
    archive.add("bin/busybox", 0o100755, Path(busybox).read_bytes())
    for applet in APPLETS:
        archive.add(f"bin/{applet}", 0o120777, b"busybox")
    archive.add("init", 0o100755, INIT.read_bytes())
    for number, (name, data) in enumerate(modules_of(tree / "usr/lib/modules", MODULES)):
        archive.add(f"modules/{number:02}-{name}.ko", 0o100644, data)
    return archive.finish()


def personal(files: Mapping[str, tuple[int, str]]) -> bytes:
    """Return the part of one machine: files by their path on its disk, each with mode and text."""
    archive = Cpio()
    folders = {str(parent) for path in files for parent in PurePosixPath("machine", path).parents}
    for folder in sorted(folders - {"."}):
        archive.add(folder, 0o040700 if folder.endswith("/.ssh") or folder == "machine/root" else 0o040755)
    for path, (mode, text) in files.items():
        archive.add(f"machine/{path}", 0o100000 | mode, text.encode())
    return archive.finish()
