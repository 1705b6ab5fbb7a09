"""The real restart script under sh, with a virsh that answers from files: all lists, all answers."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path

import pytest

from tasks.cluster.setup import templates
from tasks.lab.namespaces import until

#: Its folder holds: defined (UUID NAME), running and saved (UUIDs), silent, and answers/UUID (shell).
VIRSH = """#!/bin/sh
here=$(dirname "$0")
shift 3
[ -e "$here/silent" ] && exit 1
case $* in
    'list --uuid') cat "$here/running" ;;
    'list --all --uuid --name') cat "$here/defined" ;;
    'list --all --with-managed-save --uuid') cat "$here/saved" ;;
    'start --domain '*)
        echo "$3" >>"$here/starts"
        if [ -e "$here/answers/$3" ]; then . "$here/answers/$3"; fi
        echo "$3" >>"$here/running"
        ;;
    *) echo "not expected: $*" >>"$here/surprises"; exit 2 ;;
esac
"""
#: The storage answers when the file is there; mounted is what fstab has, when somebody has logged in.
ISCSIADM = """#!/bin/sh
here=$(dirname "$0")
echo "iscsiadm $*" >>"$here/tries"
[ -e "$here/storage" ] && touch "$here/session"
"""
MOUNT = """#!/bin/sh
here=$(dirname "$0")
echo "mount $*" >>"$here/tries"
[ -e "$here/session" ] && cat "$here/fstab" >>"$here/mounts"
"""
LOGGER = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/syslog"
"""
#: As libvirt puts it when a hook refuses a start.
HOOK = (
    "error: Failed to start domain 'x'\n"
    "error: Hook script execution failed: internal error: Child process (LC_ALL=C /etc/libvirt/hooks/qemu x "
    "prepare begin -) unexpected exit status 1: vmfab: its image belongs to vmhost2: since 10:00\n"
)


TRYING = "{} is not mounted: trying every 1 s to log in at the storage and to mount it"


def uuid(number: int) -> str:
    return f"11111111-0000-4000-8000-{number:012}"


class Host:
    """A folder in which the script finds all that a host has."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self.mount = folder / "store"
        self.list = folder / "running vms"
        self.mounts = folder / "mounts"
        programs = {"virsh": VIRSH, "logger": LOGGER, "iscsiadm": ISCSIADM, "mount": MOUNT}
        for name, text in programs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.mount.mkdir()
        (folder / "answers").mkdir()
        self.names = names
        # virsh fills short names up with blanks.
        lines = [f"{uuid(number)} {name:<30}\n" for number, name in enumerate(names)]
        (folder / "defined").write_text("".join([*lines, "\n"]), encoding="utf-8")
        for name in ("running", "saved", "starts", "syslog", "tries"):
            (folder / name).touch()
        (folder / "fstab").write_text(f"/dev/sdb {self.mount} ocfs2 rw 0 0\n")
        self.mounts.write_text((folder / "fstab").read_text())
        text = templates.render(
            "restart_running_vms.sh.j2",
            mount=self.mount,
            alias="vmhost1",
            running_vms=self.list,
            lock=folder / "the lock",
            mount_deadline=1,
            retry=1,
            libvirt_deadline=1,
            start_deadline=20,
            pause=0,
        )
        assert text.count("/proc/self/mounts") == 1
        self.script = folder / "script"
        self.script.write_text(text.replace("/proc/self/mounts", f"'{self.mounts}'"))

    def begin(self) -> subprocess.Popen[str]:
        env = {"PATH": f"{self.folder}:/usr/bin:/bin", "HOME": "/root"}
        return subprocess.Popen(
            ["/bin/sh", str(self.script)],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, text: bytes | None = None) -> int:
        if text is not None:
            self.list.write_bytes(text)
        process = self.begin()
        said, _ = process.communicate(timeout=60)
        assert said == ""  # cron would send it as a mail
        assert not (self.folder / "surprises").exists()
        return process.returncode

    def answers(self, number: int, rc: int, words: str) -> None:
        (self.folder / f"words.{number}").write_text(words)
        (self.folder / "answers" / uuid(number)).write_text(f'cat "$here/words.{number}" >&2; exit {rc}\n')

    @property
    def started(self) -> list[str]:
        asked = (self.folder / "starts").read_text().split()
        return [self.names[int(found[-12:])] for found in asked]

    @property
    def log(self) -> list[str]:
        """The log's lines without time and host, which are checked."""
        file = self.mount / "restart_running_vms.log"
        told = []
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            time.strptime(line[:25], "%Y-%m-%d %H:%M:%S %z")
            host, _, words = line[26:].partition(" ")
            assert host == os.uname().nodename
            told.append(words)
        return told

    @property
    def tries(self) -> list[str]:
        """How it tried to reach the storage."""
        return (self.folder / "tries").read_text(encoding="utf-8").splitlines()

    @property
    def syslog(self) -> list[str]:
        return (self.folder / "syslog").read_text(encoding="utf-8").splitlines()

    def lock_of(self, number: int) -> Path:
        folder = self.mount / ".vmfab/locks"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"vm-{uuid(number)}"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(
        tmp_path, "web", "db 01", 'it\'s "$HOME"', "-rf", "größe", "3", "a;b|c", "back\\slash", "*", "web2"
    )


# -- the list: row 19 of the fault table ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("web\ndb 01\n", ["web", "db 01"]),
        ("web\ndb 01", ["web", "db 01"]),
        ("web\r\ndb 01\r\n", ["web", "db 01"]),
        ("\n\n  \nweb\n\t\n\r\n\ndb 01\n\n", ["web", "db 01"]),
        ("web  \ndb 01\t\n", ["web", "db 01"]),
        ("web\nweb\r\nweb \ndb 01\nweb", ["web", "db 01"]),
        ('it\'s "$HOME"\n-rf\ngröße\n3\na;b|c\nback\\slash\n*\n', None),
        ("db 01\nweb\n", ["db 01", "web"]),
        ("we\0b\n", ["web"]),
    ],
)
def test_every_list_is_understood(host: Host, text: str, names: list[str] | None) -> None:
    expected = text.splitlines() if names is None else names
    assert host.run(text.encode()) == 0
    assert host.started == expected
    assert host.log == [
        *(f"{name}: started" for name in expected),
        f"done: {len(expected)} started, 0 ran already, 0 refused, 0 failed, 0 left off, 0 unknown",
    ]
    assert host.syslog == []


def test_no_list_is_told_apart_from_an_empty_one(host: Host) -> None:
    assert host.run() == 0
    assert host.run(b"") == 0
    assert host.run(b"\n \r\n") == 0
    empty = f"{host.list} names no VM: nothing to start"
    assert host.log == [f"there is no {host.list}: nothing to start", empty, empty]
    assert host.started == []


def test_a_list_that_is_no_file_is_told(host: Host) -> None:
    host.list.mkdir()
    assert host.run() == 1
    assert host.log == [f"nothing was started: {host.list} cannot be read"]


def test_unknown_names_do_not_hold_up_the_others(host: Host) -> None:
    assert host.run(b"we\n\x1b[31mevil\nweb\n11111111-0000-4000-8000-000000000001\nWEB\ndb 01") == 1
    assert host.started == ["web", "db 01"]
    why = "unknown: no VM of this name is defined here"
    assert host.log == [
        f"we: {why}",
        f"?[31mevil: {why}",
        "web: started",
        f"11111111-0000-4000-8000-000000000001: {why}",
        f"WEB: {why}",
        "db 01: started",
        "done: 2 started, 0 ran already, 0 refused, 0 failed, 0 left off, 4 unknown",
    ]


def test_what_was_evacuated_stays_where_it_is(host: Host) -> None:
    folder = host.mount / ".vmfab/evacuated"
    folder.mkdir(parents=True)
    (folder / "vmhost1").write_text(f"{uuid(0)} web\n{uuid(2)} it's x\n")
    (folder / "vmhost2").write_text(f"{uuid(1)} db 01\n")
    assert host.run(b"web\ndb 01\n") == 1
    assert host.started == ["db 01"]
    why = "it was evacuated while this host was down; fab -H vmhost1 undrain brings it back"
    assert host.log == [
        f"web: left off: {why}",
        "db 01: started",
        "done: 1 started, 0 ran already, 0 refused, 0 failed, 1 left off, 0 unknown",
    ]


def test_the_list_stays_as_it_is(host: Host) -> None:
    text = b"web\r\n\nunknown\ndb 01"
    host.run(text)
    assert host.list.read_bytes() == text


def test_the_list_may_change_while_it_works(host: Host) -> None:
    # What a hook may do: write the list anew at each start.
    (host.folder / "answers" / uuid(0)).write_text(f"printf 'web\\n3\\ndb 01\\n' >'{host.list}'\n")
    assert host.run(b"web\ndb 01\n-rf\n") == 1
    assert host.started == ["web", "db 01"]
    assert host.log[2] == f"-rf: left off: it has been taken off {host.list} meanwhile"


# -- what libvirt says ------------------------------------------------------------------------------------


def test_each_end_has_its_line(host: Host) -> None:
    (host.folder / "running").write_text(f"{uuid(0)}\n")
    (host.folder / "saved").write_text(f"{uuid(1)}\n")
    host.answers(2, 1, HOOK)
    host.answers(3, 1, "error: Failed to start domain '-rf'\nerror: Cannot access storage file\n")
    host.answers(4, 1, "error: Domain is already active\n")
    host.answers(5, 0, "")
    assert host.run("\n".join(host.names[:6]).encode()) == 1
    assert host.started == list(host.names[2:6])
    assert host.log == [
        "web: runs already",
        "db 01: left off: it has a managed save, and its disk may have changed since; if it has not: "
        f"virsh start {uuid(1)}, else first: virsh managedsave-remove {uuid(1)}",
        'it\'s "$HOME": refused: vmfab: its image belongs to vmhost2: since 10:00',
        "-rf: failed: Failed to start domain '-rf' Cannot access storage file",
        "größe: runs already",
        "3: started",
        "done: 1 started, 2 ran already, 1 refused, 1 failed, 1 left off, 0 unknown",
    ]


def test_a_start_without_an_answer_is_not_asked_again(host: Host) -> None:
    (host.folder / "answers" / uuid(0)).write_text("exec sleep 30\n")
    host.script.write_text(host.script.read_text().replace("ask 20 start", "ask 2 start"))
    assert host.run(b"web\nweb2\n") == 1
    assert host.started == ["web", "web2"]
    assert host.log[:2] == [
        f"web: failed: no answer within 20 s, it may still start; look at: virsh domstate {uuid(0)}",
        "web2: started",
    ]


def test_a_second_run_starts_nothing_twice(host: Host) -> None:
    assert host.run(b"web\ndb 01\n") == 0
    assert host.run() == 0
    assert host.started == ["web", "db 01"]
    assert host.log[-1] == "done: 0 started, 2 ran already, 0 refused, 0 failed, 0 left off, 0 unknown"


def test_two_runs_exclude_each_other(host: Host) -> None:
    (host.folder / "answers" / uuid(0)).write_text(f"until [ -e '{host.folder}/go' ]; do sleep 0.1; done\n")
    host.list.write_bytes(b"web\n")
    text = host.script.read_text()
    host.script.write_text(
        text.replace("timeout -k 5", "timeout -k 60").replace("ask 1 start", "ask 60 start")
    )
    first = host.begin()
    until = time.monotonic() + 30
    while not host.started and time.monotonic() < until:
        time.sleep(0.02)
    assert host.run() == 1
    (host.folder / "go").touch()
    first.communicate(timeout=30)
    assert first.returncode == 0
    assert host.started == ["web"]
    assert host.log[0] == "another run is under way; this one does nothing"


# -- vmfab at work ----------------------------------------------------------------------------------------


def test_a_vm_that_vmfab_works_on_is_left_to_it(host: Host) -> None:
    host.script.write_text(host.script.read_text().replace("flock -w 30 8", "flock -w 0 8"))
    with host.lock_of(0).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write('{"by": "ann"}\n')
        lock.flush()
        assert host.run(b"web\ndb 01\n") == 1
    assert host.started == ["db 01"]
    assert host.log[0] == 'web: left off: vmfab is working on it: {"by": "ann"}'


def test_a_vm_that_is_taken_off_the_list_under_its_lock_is_left(host: Host) -> None:
    host.list.write_bytes(b"web\ndb 01\n")
    with host.lock_of(0).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = host.begin()
        # As a move does it: the name goes from the list before the VM starts elsewhere.
        time.sleep(1)
        host.list.write_bytes(b"db 01\n")
    process.communicate(timeout=30)
    assert host.started == ["db 01"]


def test_the_holder_of_the_lock_is_told(host: Host) -> None:
    from tasks.cluster.store.locks import describe_holder

    assert host.run(b"web\n") == 0
    told = describe_holder(host.lock_of(0).read_text())
    assert told.startswith(f"cron on {os.uname().nodename} runs 'restart_running_vms' since 20")


# -- what it waits for ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", ["", "systemd-1 {} autofs rw 0 0\n", "x {}2 ocfs2 rw 0 0\n", "{} /a ocfs2 rw 0 0\n"]
)
def test_without_the_mount_nothing_is_started_and_syslog_tells(host: Host, table: str) -> None:
    host.mounts.write_text(table.format(host.mount))
    assert host.run(b"web\r\n\n-rf\n") == 1
    assert host.started == []
    why = f"{host.mount} was not mounted within 1 s"
    lines = [TRYING.format(host.mount), f"web: not started: {why}", f"-rf: not started: {why}"]
    lines.append(f"nothing was started: {why}; once it is, run {host.script}")
    assert host.syslog == [f"-t restart_running_vms -- {line}" for line in lines]
    assert not any(host.mount.iterdir())


def test_it_waits_for_the_mount_and_libvirt(host: Host) -> None:
    host.script.write_text(
        host.script.read_text()
        .replace("wait_for 1 reach_store", "wait_for 30 reach_store")
        .replace("wait_for 1 libvirt", "wait_for 30 libvirt")
    )
    table = host.mounts.read_text()
    host.mounts.write_text("")
    (host.folder / "silent").touch()
    host.list.write_bytes(b"web\n")
    process = host.begin()
    time.sleep(1)
    host.mounts.write_text(table)
    time.sleep(1)
    assert host.started == []
    (host.folder / "silent").unlink()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert host.log[0] == "web: started"


def test_when_the_storage_is_back_late_it_logs_in_and_mounts(host: Host) -> None:
    text = host.script.read_text()
    host.script.write_text(text.replace("wait_for 1 reach_store", "wait_for 30 reach_store"))
    host.mounts.write_text("")
    host.list.write_bytes(b"web\n")
    process = host.begin()
    until(lambda: host.tries.count("mount -a -t ocfs2") == 2, 30.0, "a second try")
    assert (host.started, host.log) == ([], [])
    (host.folder / "storage").touch()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert host.tries == ["iscsiadm -m node -L automatic", "mount -a -t ocfs2"] * (len(host.tries) // 2)
    assert host.syslog == [f"-t restart_running_vms -- {TRYING.format(host.mount)}"]
    assert host.log[0] == "web: started"


def test_a_store_that_is_mounted_is_left_alone(host: Host) -> None:
    assert host.run(b"web\n") == 0
    assert host.tries == []


def test_a_silent_libvirtd_is_told_for_each_vm(host: Host) -> None:
    (host.folder / "silent").touch()
    assert host.run(b"web\ndb 01") == 1
    why = "libvirtd did not answer within 1 s"
    assert host.log == [
        f"web: not started: {why}",
        f"db 01: not started: {why}",
        f"nothing was started: {why}; once it does, run {host.script}",
    ]
    assert host.started == []


def test_a_log_that_cannot_be_written_goes_to_syslog(host: Host) -> None:
    (host.mount / "restart_running_vms.log").mkdir()
    assert host.run(b"web\n") == 0
    assert host.syslog[0] == "-t restart_running_vms -- web: started"


def test_a_store_that_takes_no_locks_starts_nothing(host: Host) -> None:
    (host.mount / ".vmfab").write_text("in the way\n")
    assert host.run(b"web\n") == 1
    assert host.started == []
    assert host.log[0] == f"web: failed: {host.mount}/.vmfab/locks/vm-{uuid(0)} cannot be written"
