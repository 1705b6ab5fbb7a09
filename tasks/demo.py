"""demo: the stage for what tasks/demoshow.py plays. Made before it, and cleared after it whatever happens."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cli import Operator, Table, vmtask
from tasks.cluster.errors import Failed, Refused, VmfabError

if TYPE_CHECKING:
    from types import FrameType

    from tasks.lab.lab import Lab

PROJECT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@vmtask(help={"keep": "Leave the practice cluster up, and say what to type next."})
def demo(op: Operator, keep: bool = False, yes: bool = False) -> None:
    """Show what vmfab is for on practice hosts, and prove it.

    On this machine alone: installs the Debian packages that are missing (and says which and why), brings up
    four practice hosts with VMs of several kinds, drains one of the hosts, brings its VMs back, and proves
    from the guests' own disks that no write was lost and that no VM ever ran twice. That takes about two
    minutes. Then everything is taken down, also after a failure or Ctrl-C. A cluster made with lab.up is left
    alone. --keep leaves the demo's cluster up; the next demo takes it down first.

    Needs root, because of network namespaces and libvirtd. Without it, it asks and goes on with sudo.

    Exit codes: 0 all of it was verified, 1 something was not as it must be, 2 refused, 130 interrupted.
    """
    if os.geteuid() != 0:
        become_root(op, keep)

    from tasks import demoshow
    from tasks.lab.lab import Lab, default_root

    ours = default_root().resolve()
    lab = Lab(ours.with_name(f"{ours.name}-demo"), cache=ours / "cache")
    begin = time.monotonic()
    with tidy_ends(), alone(lab):
        shutil.rmtree(logs(lab), ignore_errors=True)
        try:
            demoshow.Show(op, lab).play()
        except BaseException as error:
            end(op, lab, keep, error)
            raise
        end(op, lab, keep, None)
    op.say(f"Everything above was verified; it took {time.monotonic() - begin:.0f} s.", "green")


def become_root(op: Operator, keep: bool) -> None:
    """Start again with sudo, after a question. Raises Refused on a no and where there is no sudo."""
    from tasks.lab import packages

    sudo = shutil.which("sudo")
    if sudo is None:
        raise Refused("The demo needs root, and there is no sudo here.", "Type as root: ./fab demo")
    op.say("The demo needs root, because its practice hosts are made of namespaces with a libvirtd in each.")
    lacking = packages.missing()
    if lacking:
        rows = [(package.name, package.reason) for package in lacking]
        op.output.table(Table(("package", "why"), rows, title="It will install with apt-get:"))
    op.confirm("Go on with sudo?")
    lab = os.environ.get("VMFAB_LAB")
    words = [sudo, *(["env", f"VMFAB_LAB={lab}"] if lab else []), str(PROJECT / "fab"), "demo", "--yes"]
    os.execv(sudo, words + (["--keep"] if keep else []))


@contextmanager
def tidy_ends() -> Iterator[None]:
    """Let a closed terminal and a polite kill end the demo as Ctrl-C does, and each only once.

    What follows the first is the clearing away, which must not be interrupted half-way.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def interrupt(number: int, frame: FrameType | None) -> None:
        for other in heard:
            signal.signal(other, lambda number, frame: None)
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def alone(lab: Lab) -> Iterator[None]:
    """Keep other demos out; what an earlier one left is taken down. Raises Refused while one is running."""
    held = [_lock(lab.root)]
    try:
        if lab.leaders():
            # Kept on purpose, or killed without mercy.
            lab.down()
            held.append(_lock(lab.root))
        yield
    finally:
        for fd in held:
            os.close(fd)


def _lock(root: Path) -> int:
    """Lock a folder, which is made where it is missing; the lock goes when the process ends."""
    root.mkdir(parents=True, exist_ok=True)
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Refused(f"Another demo is running in {root}.", "Wait for its end.") from None
    return fd


def end(op: Operator, lab: Lab, keep: bool, error: BaseException | None) -> None:
    """Take the cluster down, or leave it up and say what to type. Raises Failed when something is left."""
    if error is not None and lab.leaders():
        op.warn("Interrupted." if isinstance(error, KeyboardInterrupt) else "The demo failed.")
        keep_logs(lab)
        op.say(f"The logs of the practice hosts are in {logs(lab)}.")
    if keep and lab.leaders():
        stays(op, lab)
        return
    # The terminal sends Ctrl-C to every program that clears away as well.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    lab.down()
    if lab.leaders() or lab.root.exists():
        raise Failed(f"Something of the practice cluster is left in {lab.root}.", "Type: sudo ./fab demo")
    op.say("The practice cluster is down: no process, no mount, no file of it is left.")


def logs(lab: Lab) -> Path:
    """Where the logs of a demo that failed are kept until the next one."""
    return lab.root.with_name(f"{lab.root.name}-logs")


def keep_logs(lab: Lab) -> None:
    """Copy the logs to where they outlive the cluster, as far as they can be read."""
    wanted = {"lab": lab.root / "log", "starts": lab.root / "starts"}
    wanted |= {host: lab.disk(host) / "var/log/libvirt" for host in lab.hosts}
    with suppress(VmfabError):
        wanted["moves"] = lab.store / ".vmfab/moves"
    for name, folder in wanted.items():
        with suppress(OSError, shutil.Error):
            shutil.copytree(folder, logs(lab) / name, dirs_exist_ok=True)


def stays(op: Operator, lab: Lab) -> None:
    """Say how to go on with a cluster that stays up."""
    at = f"VMFAB_LAB={lab.root}"
    op.say()
    op.say("The practice cluster stays up. Try things on it, and take it down at the end:", "bold")
    for words in ("--lab status", "--lab migrate web --to vmhost3", "--lab -H vmhost2 drain", "lab.down"):
        op.say(f"  {at} ./fab {words}")
