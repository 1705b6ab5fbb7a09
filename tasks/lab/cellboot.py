"""Turn a fresh set of namespaces into a practice host, then become its PID 1 (tini).

Run as a file, not imported: `python cellboot.py SPEC.json` inside new mount, pid, uts, ipc and network
namespaces. Standard library only. Everything is undone by the kernel when the namespaces end.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import uuid
from pathlib import Path

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_PIVOT_ROOT = 155
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """Call mount(2); raises OSError."""
    encoded = (None if text is None else text.encode() for text in (kind, data))
    kind_bytes, data_bytes = encoded
    if libc.mount(source.encode(), os.fsencode(target), kind_bytes, ctypes.c_ulong(flags), data_bytes):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source}: {os.strerror(code)}", str(target))


def bind(source: str | Path, target: Path, read_only: bool = False) -> None:
    """Bind `source` over `target`, which is made when it is missing."""
    source = Path(source)
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    elif not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(str(source), target, None, MS_BIND | MS_REC)
    if read_only:
        mount("none", target, None, MS_BIND | MS_REMOUNT | MS_RDONLY)


def build(root: Path, spec: dict[str, str]) -> None:
    """Mount the host's whole file system below `root`."""
    mount("none", Path("/"), None, MS_REC | MS_PRIVATE)
    bind(spec["disk"], root)
    bind("/usr", root / "usr", read_only=True)
    bind(Path(spec["disk"], "usr-local"), root / "usr/local")
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        original = Path("/", name)
        if original.is_symlink():
            if not (root / name).is_symlink():
                (root / name).symlink_to(original.readlink())
        elif original.is_dir():
            bind(original, root / name, read_only=True)
    for name, kind, flags, data in (
        ("proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, None),
        ("sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, None),
        ("dev", "tmpfs", MS_NOSUID, "mode=755,size=64k"),
        ("run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"),
        ("tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777"),
    ):
        (root / name).mkdir(exist_ok=True)
        mount(kind, root / name, kind, flags, data)
    devices(root / "dev", spec["kvm"] == "yes")
    # virsh console locks the device there.
    (root / "run/lock").mkdir(mode=0o1777)
    boot_id = root / "run/boot_id"
    boot_id.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
    bind(boot_id, root / "proc/sys/kernel/random/boot_id", read_only=True)
    # The real emulator stays reachable beside its data files; a wrapper stands where libvirt finds it.
    bind("/usr", root / "opt/lab/usr", read_only=True)
    for name in ("faults", "starts"):
        bind(spec[name], root / "opt/lab" / name)
    for name in ("rc", "service", "reboot-jobs"):
        bind(Path(spec["files"], name), root / "opt/lab" / name, read_only=True)
    bind(Path(spec["files"], "systemctl"), root / "usr/local/bin/systemctl", read_only=True)
    bind(Path(spec["files"], "qemu-wrapper"), root / "usr/bin/qemu-system-x86_64", read_only=True)
    for path in (root / "usr/bin").glob("qemu-system-*"):
        if path.name != "qemu-system-x86_64":
            bind(root / "dev/null", path)  # libvirt would lose a second asking each of them what it can do
    if spec["store"]:
        bind(spec["store"], root / "vmstorage")
    else:
        (root / "vmstorage").mkdir(exist_ok=True)


def devices(dev: Path, kvm: bool) -> None:
    """Fill /dev with the few devices that a practice host needs."""
    for name in DEVICES + (("kvm",) if kvm else ()):
        bind(Path("/dev", name), dev / name)
    (dev / "pts").mkdir()
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "shm").mkdir()
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")
    (dev / "fd").symlink_to("/proc/self/fd")
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        (dev / name).symlink_to(f"/proc/self/fd/{number}")


def enter(root: Path) -> None:
    """Make `root` the root and let go of the machine's own file system."""
    os.chdir(root)
    if libc.syscall(SYS_PIVOT_ROOT, b".", b"."):
        raise OSError(ctypes.get_errno(), "pivot_root")
    if libc.umount2(b".", MNT_DETACH):
        raise OSError(ctypes.get_errno(), "umount of the old root")
    os.chdir("/")


def main() -> None:
    """Build the host, then run its rc script under tini."""
    spec = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    marks = {name: os.environ[name] for name in ("VMFAB_LAB_ROOT", "VMFAB_LAB_ROLE")}
    socket.sethostname(spec["name"])
    root = Path(spec["root"])
    build(root, spec)
    enter(root)
    path = "/usr/sbin:/usr/bin:/sbin:/bin"
    os.execve("/usr/bin/tini", ["tini", "--", "/opt/lab/rc"], {**marks, "PATH": path})


if __name__ == "__main__":
    main()
