"""Mount the lab's store into a running practice host, from outside.

Run as a file inside the anchor's mount namespace: `python storemount.py STORE HOST_PID TARGET`. The host
itself keeps no second path to the store, exactly as with a real one. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import sys

SYS_OPEN_TREE, SYS_MOVE_MOUNT = 428, 429
AT_FDCWD, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 1, 4
CLONE_NEWNS = 0x20000

libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def main() -> None:
    """Take a copy of the mount here, go over to the host, attach it there."""
    store, pid, target = sys.argv[1:]
    namespace = os.open(f"/proc/{int(pid)}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _checked(libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(store), flags), "open_tree")
    _checked(libc.setns(namespace, CLONE_NEWNS), "setns")
    where = os.fsencode(target)
    _checked(libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, where, MOVE_MOUNT_F_EMPTY_PATH), "move_mount")


if __name__ == "__main__":
    main()
