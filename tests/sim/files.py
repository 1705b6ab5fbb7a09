"""The files of a simulated host as one of its programs sees them: the store, its own disk, /proc."""

from __future__ import annotations

import errno
import os
import posixpath
import zlib
from typing import TYPE_CHECKING

from tests.sim.store import MOUNT

if TYPE_CHECKING:
    from tests.sim.guests import Guest
    from tests.sim.host import SimHost

RUNNING_VMS = "/root/running_vms"
#: where libvirt keeps definitions, and what it knows of running VMs
DEFINED, RUNNING = "/etc/libvirt/qemu", "/run/libvirt/qemu"
#: Numbers of a program's process, of the child that it forks, and of libvirtd, which calls it.
PID, CHILD, LIBVIRTD = 1500, 1501, 1400
BELOW = ".vmfab/"
#: numbers of the file systems, as in the agent's answers
STORE_DEVICE, OWN_DEVICE = 64768, 2049


class StoreHangs(BaseException):
    """The process is stuck in the file system, in a sleep that no signal ends."""


class Tree:
    """Reads and writes by absolute path; every failure is the OSError that Linux gives."""

    def __init__(self, host: SimHost) -> None:
        self._host = host

    def read(self, path: str) -> bytes:
        """Raises FileNotFoundError, IsADirectoryError, StoreHangs."""
        inside = self._inside(path)
        if inside is not None:
            return self._read_store(path, inside)
        if path.startswith("/proc/"):
            return self._read_proc(path)
        if path == RUNNING_VMS and self._host.running_vms is not None:
            return self._host.running_vms.encode("utf-8", "surrogateescape")
        if path in self._host.own_files:
            return self._host.own_files[path]
        if path in self._host.disk.files:
            return self._host.disk.files[path][0].encode("utf-8", "surrogateescape")
        if path.startswith((DEFINED, RUNNING)):
            return self._read_libvirts(path)
        raise _error(errno.ENOENT, path)

    def write(self, path: str, data: bytes) -> None:
        """Replace what is in a file. Raises OSError (full, read-only, no such folder), StoreHangs."""
        inside = self._inside(path)
        if inside is None:
            if path == RUNNING_VMS:
                self._host.running_vms = data.decode("utf-8", "surrogateescape")
            else:
                self._host.own_files[path] = data
            return
        self._writable(path)
        store = self._host.view.store
        if data and store.full:
            raise _error(errno.ENOSPC, path)
        if not inside.startswith(BELOW):
            raise _error(errno.EACCES, path)
        store.files[inside[len(BELOW) :]] = data.decode("utf-8", "surrogateescape")

    def make(self, path: str) -> None:
        """Make an empty file. A full store has no room for another one."""
        if self._inside(path) is not None and self._host.view.store.full:
            raise _error(errno.ENOSPC, path)
        self.write(path, b"")

    def exists(self, path: str) -> bool:
        try:
            self.read(path)
        except FileNotFoundError:
            return False
        except IsADirectoryError:
            return True
        return True

    def remove(self, path: str) -> None:
        """Raises OSError, StoreHangs."""
        self.read(path)
        inside = self._inside(path)
        if inside is not None:
            self._writable(path)
            del self._host.view.store.files[inside[len(BELOW) :]]
        elif path == RUNNING_VMS:
            self._host.running_vms = None
        else:
            del self._host.own_files[path]

    def rename(self, old: str, new: str) -> None:
        """Raises OSError, StoreHangs. Needs no room on the store."""
        data = self.read(old)
        inside = self._inside(new)
        if inside is None:
            self.write(new, data)
        else:
            self._writable(new)
            self._host.view.store.files[inside[len(BELOW) :]] = data.decode("utf-8", "surrogateescape")
        self.remove(old)

    def make_folder(self, path: str) -> None:
        """Raises FileExistsError and other OSErrors, StoreHangs."""
        if self.is_folder(path):
            raise _error(errno.EEXIST, path)
        inside = self._inside(path)
        if inside is not None:
            self._writable(path)
            if self._host.view.store.full:
                raise _error(errno.ENOSPC, path)
            self._host.view.store.folders.add(inside)

    def is_folder(self, path: str) -> bool:
        """Folders of a host's own disk are there when they are asked for."""
        inside = self._inside(path)
        if inside is None:
            return not path.startswith(MOUNT + "/")
        store = self._host.view.store
        return inside == "" or inside in store.folders or any(True for _ in self._below(inside + "/"))

    def names(self, path: str) -> list[str]:
        """What a folder holds. Raises FileNotFoundError, StoreHangs."""
        if not self.is_folder(path):
            raise _error(errno.ENOENT, path)
        inside = self._inside(path)
        if inside is not None:
            folder = inside + "/" if inside else ""
            return sorted({name[len(folder) :].split("/")[0] for name in self._below(folder)})
        if path == "/proc":
            return [str(guest.pid) for guest in self._host.guests]
        if path == f"/proc/{LIBVIRTD}/task":
            return [str(self._host.hook.thread)]
        if path in (DEFINED, RUNNING):
            return [posixpath.basename(name) for name in self._libvirts_files() if name.startswith(path)]
        if path.startswith("/proc/") and path.endswith("/fd"):
            return [str(number) for number, _ in enumerate(self._of_process(path).paths, 10)]
        own = [*self._host.own_files, *([RUNNING_VMS] if self._host.running_vms is not None else [])]
        return sorted({p[len(path) + 1 :].split("/")[0] for p in own if p.startswith(path + "/")})

    def stat(self, path: str) -> tuple[int, int, int]:
        """(device, inode, number of the block device or 0). Raises FileNotFoundError, StoreHangs."""
        inside = self._inside(path)
        if inside is not None:
            image = self._host.view.store.images.get(inside)
            if image is None:
                raise _error(errno.ENOENT, path)
            return STORE_DEVICE, image.ino, 0
        if path.startswith("/proc/"):
            return self.stat(self.link(path))
        image = self._host.local.get(path)
        if image is None:
            raise _error(errno.ENOENT, path)
        return OWN_DEVICE, image.ino, os.makedev(8, image.ino % 256) if path.startswith("/dev/") else 0

    def device(self, path: str) -> int:
        return OWN_DEVICE if self._inside(path) is None else STORE_DEVICE

    # -- help ----------------------------------------------------------------------------------------

    def _inside(self, path: str) -> str | None:
        """The path on the store's file system, "" for its top; None for what lies elsewhere."""
        view = self._host.view
        if not view.mounted or not (path == MOUNT or path.startswith(MOUNT + "/")):
            return None
        if view.hanging:
            raise StoreHangs
        return "" if path == MOUNT else view.inside(path)

    def _below(self, folder: str) -> list[str]:
        store = self._host.view.store
        names = [BELOW + name for name in store.files] + list(store.images) + list(store.folders)
        return [name for name in names if name.startswith(folder)]

    def _writable(self, path: str) -> None:
        if self._host.view.read_only:
            raise _error(errno.EROFS, path)

    def _read_store(self, path: str, inside: str) -> bytes:
        store = self._host.view.store
        if inside.startswith(BELOW) and inside[len(BELOW) :] in store.files:
            return store.files[inside[len(BELOW) :]].encode("utf-8", "surrogateescape")
        if inside in store.images:
            return store.images[inside].header
        if self.is_folder(path):
            raise _error(errno.EISDIR, path)
        raise _error(errno.ENOENT, path)

    def _read_proc(self, path: str) -> bytes:
        if path == "/proc/sys/kernel/random/boot_id":
            return f"{self._host.boot_id}\n".encode()
        if path == "/proc/self/mountinfo":
            line = f"40 1 253:0 / {MOUNT} rw shared:1 - ocfs2 /dev/sdb rw\n"
            return (line if self._host.view.mounted else "").encode()
        if path.startswith("/proc/self/fdinfo/"):
            return f"pos:\t0\nmnt_id:\t{40 if self._host.view.mounted else 1}\n".encode()
        if path == f"/proc/{LIBVIRTD}/stat":
            return f"{LIBVIRTD} (libvirtd) {' '.join(['S'] * 19)} {self._host.boot_id}".encode()
        if path.endswith("/children"):
            return f"{PID} ".encode()
        pid, _, what = path[len("/proc/") :].partition("/")
        if what.startswith("fdinfo/"):
            return f"pos:\t0\nflags:\t{os.O_RDWR | os.O_CLOEXEC:o}\n".encode()
        for guest in self._host.guests:
            if str(guest.pid) == pid and what in ("cmdline", "comm"):
                words = ["qemu-system-x86_64", "-name", f"guest={guest.name}", "-uuid", guest.uuid, ""]
                return "\0".join(words).encode() if what == "cmdline" else b"qemu-system-x86\n"
        raise _error(errno.ENOENT, path)

    def link(self, path: str) -> str:
        """Where /proc/PROCESS/fd/NUMBER leads."""
        folder, _, number = path.rpartition("/")
        return self._of_process(folder).paths[int(number) - 10]

    def _of_process(self, folder: str) -> Guest:
        pid = folder.split("/")[2]
        for guest in self._host.guests:
            if str(guest.pid) == pid:
                return guest
        raise _error(errno.ENOENT, folder)

    # -- what libvirt keeps --------------------------------------------------------------------------

    def stamp(self, path: str) -> int:
        """A number that is another one when a file of libvirt's was written."""
        return zlib.crc32(self._read_libvirts(path))

    def written(self, path: str) -> float:
        """When a definition was last written, by the host's clock; nobody asks about other files."""
        name = posixpath.basename(path).removesuffix(".xml")
        return max((d.written for d in self._host.definitions.values() if d.name == name), default=0.0)

    def _libvirts_files(self) -> list[str]:
        running = [f"{RUNNING}/{guest.name}.xml" for guest in self._host.guests if guest.listed]
        return [*(f"{DEFINED}/{d.name}.xml" for d in self._host.definitions.values()), *running]

    def _read_libvirts(self, path: str) -> bytes:
        name = posixpath.basename(path).removesuffix(".xml")
        if path == f"{DEFINED}/{name}.xml":
            for definition in self._host.definitions.values():
                if definition.name == name:
                    return definition.xml.encode("utf-8", "surrogateescape")
        for guest in self._host.guests:
            if guest.listed and path == f"{RUNNING}/{guest.name}.xml":
                job = (
                    "none" if guest.peer is None else "migration in" if not guest.writes else "migration out"
                )
                return (
                    f"<domstatus state='{guest.state}' reason='{guest.reason}' pid='{guest.pid}'>"
                    f"<job type='none' async='{job}'/>{guest.live.xml}</domstatus>"
                ).encode("utf-8", "surrogateescape")
        raise _error(errno.ENOENT, path)


def folder_of(path: str) -> str:
    return posixpath.dirname(path)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
