"""The real restart script after a simulated boot: rendered text, real sh, simulated time.

The script runs in a process of its own and gets what it asks a host for (virsh, flock, sleep, date, ...) from
here, by shell functions that stand in for the programs. While it computes, simulated time stands still; where
it waits, time goes on for everybody. What it reads from files (its list, the mounts, the uptime) is written
anew before each answer. Its log and sed, awk, tr, head and mkdir are real, in a folder of this machine.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tasks.cluster.setup import afterboot, guard
from tests.sim.errors import VirshError
from tests.sim.store import MOUNT

if TYPE_CHECKING:
    from tests.sim.host import SimHost

PROGRAMS = """\
exec 6<&0 7>&1 </dev/null >/dev/null
from_host() {
    printf '%s' "$1" >&7
    shift
    for word; do printf '\\037%s' "$word" >&7; done
    printf '\\n' >&7
    read -r code lines <&6
    while [ "$lines" -gt 0 ]; do
        IFS= read -r line_of_host <&6
        printf '%s\\n' "$line_of_host"
        lines=$((lines - 1))
    done
    return "$code"
}
timeout() { patience_of_host=$3; shift 3; "$@"; }
virsh() { shift 3; from_host virsh "$patience_of_host" "$@"; }
touch() { from_host touch "$1" && : >>"$1"; }
sleep() { from_host sleep "$1"; }
date() { from_host date "$1"; }
uname() { from_host uname; }
logger() { shift 3; from_host logger "$@"; }
iscsiadm() { from_host iscsiadm; }
mount() { from_host mount; }
flock() {
    [ "$1" = -n ] && return 0
    from_host flock "$2" "$vm_lock" || return 1
    trap 'from_host unlock "$vm_lock"' EXIT
}
"""


class _Rebooted(Exception):
    """The host has lost its power since; nothing of the script is left."""


class Restart:
    """One run of the script on one host, in a thread of its own."""

    def __init__(self, host: SimHost, text: str, folder: Path) -> None:
        self._host = host
        self._cluster = host.cluster
        self._boot = host.boot_id
        self._folder = folder / host.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._store = folder / "store"
        self._store.mkdir(exist_ok=True)
        places = {
            "/root/running_vms": self._folder / "running_vms",
            "/proc/self/mounts": self._folder / "mounts",
            "/proc/uptime": self._folder / "uptime",
            "/run/restart_running_vms.lock": self._folder / "lock",
            MOUNT: self._store,
        }
        for path, place in places.items():
            text = text.replace(path, str(place))
        self._script = self._folder / "script"
        self._script.write_text(PROGRAMS + text, encoding="utf-8")
        self._held: set[str] = set()

    def run(self) -> None:
        """Run it to its end, or to the end of this boot."""
        log = self._store / "restart_running_vms.log"
        self._write_files()
        with subprocess.Popen(
            ["/bin/sh", str(self._script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(self._folder / "errors").open("ab"),
            env={"PATH": "/usr/bin:/bin", "HOME": "/root"},
        ) as shell:
            try:
                self._serve(shell)
            except _Rebooted:
                pass
            finally:
                shell.kill()
                for key in self._held:
                    self._host.view.store.locks.pop(key, None)
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines()
            here = [line.split(" ", 4)[4] for line in lines if line.split(" ")[3] == self._host.name]
            self._host.boot_log[:] = here

    def _serve(self, shell: subprocess.Popen[bytes]) -> None:
        assert shell.stdin is not None
        assert shell.stdout is not None
        while line := _line(shell.stdout):
            code, text = self._answer(line.split("\x1f"))
            self._write_files()
            lines = text.splitlines()
            shell.stdin.write("".join([f"{code} {len(lines)}\n", *(f"{t}\n" for t in lines)]).encode())
            shell.stdin.flush()

    def _write_files(self) -> None:
        self._still_up()
        view, listed = self._host.view, self._folder / "running_vms"
        (self._folder / "mounts").write_text(
            f"/dev/sdb {self._store} ocfs2 rw 0 0\n" if view.mounted else "", encoding="utf-8"
        )
        (self._folder / "uptime").write_text(f"{self._uptime():.2f} 0.00\n", encoding="utf-8")
        if self._host.running_vms is None:
            listed.unlink(missing_ok=True)
        else:
            listed.write_text(self._host.running_vms, encoding="utf-8", newline="")

    def _uptime(self) -> float:
        return self._cluster.clock.now() - self._host.booted_at

    def _still_up(self) -> None:
        if not self._host.powered or self._host.boot_id != self._boot:
            raise _Rebooted

    def _wait(self, seconds: float) -> None:
        self._cluster.wait(seconds)
        self._still_up()

    # -- the programs --------------------------------------------------------------------------------

    def _answer(self, words: list[str]) -> tuple[int, str]:
        program, args = words[0], words[1:]
        if program == "virsh":
            return self._virsh(float(args[0]), args[1:])
        if program == "sleep":
            self._wait(float(args[0]))
            return 0, ""
        if program == "date":
            return 0, time.strftime(args[0][1:], time.localtime(self._cluster.clock.now()))
        if program == "uname":
            return 0, self._host.name
        if program == "logger":
            self._host.syslog.append(" ".join(args))
            return 0, ""
        if program in ("iscsiadm", "mount"):
            return 1, ""  # a store that is missing here is out of reach, until it is back by itself
        if program == "touch":
            return (1 if self._host.view.problem() else 0), ""
        return self._lock(program, args)

    def _lock(self, program: str, args: list[str]) -> tuple[int, str]:
        key = "locks/" + Path(args[-1]).name
        store = self._host.view.store
        if program == "unlock":
            self._held.discard(key)
            store.locks.pop(key, None)
            return 0, ""
        end = self._cluster.scheduler.time + float(args[0])
        while key in store.locks:
            if self._cluster.scheduler.time >= end:
                return 1, ""
            self._wait(1.0)
        store.locks[key] = self
        store.files[key] = '{"by": "cron", "command": "restart_running_vms", "at": 0}'
        self._held.add(key)
        return 0, ""

    def _virsh(self, patience: float, words: list[str]) -> tuple[int, str]:
        end = self._cluster.scheduler.time + patience
        while self._host.libvirt_frozen and self._cluster.scheduler.time < end:
            self._cluster.wait_for_change(self._host, end - self._cluster.scheduler.time)
            self._still_up()
        if self._host.libvirt_frozen:
            return 124, ""
        if words[0] == "start":
            return self._start(words[-1])
        running = [guest.uuid for guest in self._host.guests if guest.listed]
        known = list(self._host.definitions.values())
        if words == ["list", "--uuid"]:
            return 0, "\n".join(running)
        if words == ["list", "--all", "--uuid", "--name"]:
            return 0, "\n".join(f"{d.uuid} {d.name:<30}" for d in known)
        if words == ["list", "--all", "--with-managed-save", "--uuid"]:
            return 0, "\n".join(d.uuid for d in known if d.managed_save is not None)
        raise AssertionError(f"virsh {words} is not simulated")

    def _start(self, uuid: str) -> tuple[int, str]:
        store = self._host.view
        end = self._cluster.scheduler.time + (guard.DEADLINE if self._host.hook.known else 60.0)
        while (store.hanging or "locks/owners" in store.store.locks) and self._cluster.scheduler.time < end:
            self._wait(0.5)
        try:
            self._host.start(uuid, by="boot")
        except VirshError as error:
            return 1, f"error: {error.message}"
        return 0, ""


def _line(stream: IO[bytes]) -> str:
    return stream.readline().decode("utf-8", "replace").rstrip("\n")


def installed(host: SimHost) -> str:
    """The text of the script that cron runs at a boot of this host; "" when there is none."""
    file = host.disk.files.get(afterboot.SCRIPT)
    entry = f"@reboot {afterboot.SCRIPT}"
    return file[0] if file is not None and entry in (host.disk.crontab or "") else ""
