"""The kernel's freezer: what is in it is in state D, and a signal to end it waits until it is let go."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

#: Freezes its arguments but the first, says so, and lets them go at the end of its input, however that comes.
#: The control groups are mounted for this process alone.
KEEPER = """
set -e
mount -t cgroup -o freezer freezer "$1"
cd "$1"
shift
mkdir "vmfab-$1"
trap '' INT TERM HUP
for pid; do echo "$pid" >"vmfab-$1/cgroup.procs"; done
echo FROZEN >"vmfab-$1/freezer.state"
until grep -q FROZEN "vmfab-$1/freezer.state"; do sleep 0.01; done
echo frozen
read -r end || :
echo THAWED >"vmfab-$1/freezer.state"
for pid in $(cat "vmfab-$1/cgroup.procs"); do echo "$pid" >cgroup.procs || :; done
until rmdir "vmfab-$1" 2>/dev/null; do sleep 0.01; done
"""


@contextmanager
def frozen(pids: Sequence[int], mount: Path) -> Iterator[None]:
    """Freeze these processes; `mount` is a folder that is made here."""
    mount.mkdir()
    words = ["unshare", "--mount", "--propagation=private", "sh", "-c", KEEPER, "sh", mount]
    with subprocess.Popen(
        [*words, *map(str, pids)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdin is not None
        assert keeper.stdout is not None
        try:
            assert keeper.stdout.readline() == "frozen\n"
            yield
        finally:
            keeper.stdin.close()
            assert keeper.wait(60) == 0
