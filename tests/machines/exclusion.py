"""Whether a lock that one machine holds keeps another one out."""

from __future__ import annotations

import shlex
from subprocess import PIPE, Popen

from tasks.lab.machines.machines import Machines

#: Takes an exclusive lock by flock(2), or by fcntl(2) as QEMU does, says whether it got it, and keeps it.
TRY_LOCK = """
import fcntl, sys
file = open(sys.argv[2], "r+b")
try:
    {"flock": fcntl.flock, "fcntl": fcntl.lockf}[sys.argv[1]](file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("got", flush=True)
except OSError:
    print("refused", flush=True)
sys.stdin.read()
"""


def tries(machines: Machines, way: str, path: str, holder: str, other: str) -> tuple[str, str]:
    """What `other` hears while `holder` has the lock on a file, and after: "got" or "refused".

    `way` is flock or fcntl. The file is made and removed.
    """
    machines.run(holder, "touch", path)
    words = ["python3", "-c", TRY_LOCK, way, path]
    with Popen([*machines.ssh(holder), shlex.join(words)], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "got\n"
        meanwhile = machines.run(other, *words).stdout.strip()
        process.communicate("")
    after = machines.run(other, *words).stdout.strip()
    machines.run(holder, "rm", path)
    return meanwhile, after
