"""Watch the law from outside: no image is ever open for writing in two emulators.

Seen through /proc of the machine itself, without libvirt, ssh or vmfab, so that none of them can be
wrong about it together with the watcher.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType

from tasks.lab import namespaces, witness
from tasks.lab.guests import Guests
from tasks.lab.problem import LabError


class LawBroken(LabError, AssertionError):
    """The law was broken: two emulators on one image, or a disk that proves lost writes."""


@dataclass(frozen=True)
class Emulator:
    """A living QEMU of the lab and the images that it has open for writing."""

    pid: int
    host: str
    uuid: str
    name: str
    incoming: bool
    images: frozenset[str]


@dataclass(frozen=True)
class Start:
    """One attempt to start a guest, as the emulator's wrapper logged it; time in seconds since 1970."""

    time: float
    host: str
    uuid: str
    name: str
    incoming: bool
    outcome: str


def emulators(lab: Guests) -> list[Emulator]:
    """List all living emulators of a lab, whatever libvirt says."""
    leaders = lab.leaders()
    store = lab.store_through(leaders)
    device = store.stat().st_dev
    names = {}
    for path in (store / "images").iterdir():
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            names[path.stat().st_ino] = path.name
    spaces = {
        namespaces.inode(leader.file("pid")): role.partition(":")[2]
        for role, leader in leaders.items()
        if role.startswith("host:")
    }
    found = []
    for pid in namespaces.pids():
        try:
            host = spaces.get(namespaces.inode(f"/proc/{pid}/ns/pid"))
            if host is None:
                continue
            if not os.path.basename(os.readlink(f"/proc/{pid}/exe")).startswith("qemu-system-"):
                continue
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().decode(errors="replace").split("\0")
            images = _images(pid, device, names)
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has just ended, or it is nobody of ours
        if "-uuid" not in words:
            continue  # libvirt asks what this QEMU can do
        name = _after(words, "-name").removeprefix("guest=").removesuffix(",debug-threads=on")
        found.append(Emulator(pid, host, _after(words, "-uuid"), name, "-incoming" in words, images))
    return found


def _after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _images(pid: int, device: int, names: dict[int, str]) -> frozenset[str]:
    """Name the store's files that a process has open for writing; an unlinked one by its inode."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            info = os.stat(f"/proc/{pid}/fd/{fd}")
            if info.st_dev != device:
                continue
            with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                flags = file.read()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(flags.partition("flags:")[2].split()[0], 8) & os.O_ACCMODE:
            found.add(names.get(info.st_ino, f"inode {info.st_ino}"))
    return frozenset(found)


def breaches(found: list[Emulator]) -> list[str]:
    """Say which images two emulators have open; a live migration's waiting destination is allowed."""
    users: dict[str, list[Emulator]] = {}
    for emulator in found:
        for name in emulator.images:
            users.setdefault(name, []).append(emulator)
    wrong = []
    for name, both in users.items():
        if len(both) > 2 or (len(both) == 2 and sum(one.incoming for one in both) != 1):
            where = " and ".join(f"{one.host} ({one.name}, process {one.pid})" for one in both)
            wrong.append(f"{name} is open on {where}")
    return wrong


def starts(lab: Guests) -> list[Start]:
    """Read the log of all attempts to start a guest."""
    try:
        text = (lab.root / "starts/starts.log").read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [Start(**json.loads(line)) for line in text.splitlines()]


def check(lab: Guests) -> None:
    """Raise LawBroken when the law is broken now, or a guest's disk tells that it was."""
    wrong = breaches(emulators(lab))
    for name in lab.images():
        wrong += [f"{name}: {text}" for text in _testimony(lab, name).wrong]
    if wrong:
        raise LawBroken("; ".join(wrong))


def _testimony(lab: Guests, name: str) -> witness.Testimony:
    """Read a disk; one that looks wrong is read again, since a guest may be writing it right now."""
    for _ in range(5):
        said = lab.testimony(name)
        if said.good:
            break
        time.sleep(0.05)
    return said


class Watch(threading.Thread):
    """Look at the law all the time while something happens: `with Watch(lab): ...` raises LawBroken.

    Emulators are looked at ten times a second, the guests' counters once: these must never go back. An
    attempt to start a guest while another host still runs it is a breach also when it fails.
    """

    def __init__(self, lab: Guests, pause: float = 0.1) -> None:
        super().__init__(name="law", daemon=True)
        self._lab = lab
        self._pause = pause
        self._end = threading.Event()
        self._counters: dict[tuple[str, int], int] = {}
        self._first_seen: dict[int, float] = {}
        self._known_starts = len(starts(lab))
        self.wrong: dict[str, float] = {}
        self.looks = 0

    def run(self) -> None:
        """Look until told to end."""
        while not self._end.wait(self._pause):
            try:
                self.look()
            except LabError as error:
                if "not up" not in error.message:
                    self.wrong.setdefault(error.message, time.time())
            except FileNotFoundError:
                continue  # an image was removed, or the lab is going down

    def look(self) -> None:
        """Look once."""
        begin = time.time()
        living = emulators(self._lab)
        for text in breaches(living):
            self.wrong.setdefault(text, time.time())
        self._look_at_starts(living, begin)
        if self.looks % 10 == 0:
            for name in self._lab.images():
                self._look_at(name)
        self.looks += 1

    def _look_at_starts(self, living: list[Emulator], begin: float) -> None:
        """Compare the attempts up to `begin` with those emulators that lived before and after them."""
        attempts = [start for start in starts(self._lab)[self._known_starts :] if start.time < begin]
        self._known_starts += len(attempts)
        for start in attempts:
            for one in living:
                before = self._first_seen.get(one.pid, begin) < start.time
                if before and one.uuid == start.uuid and one.host != start.host and not start.incoming:
                    text = f"{one.name}: started on {start.host} while {one.host} ran it"
                    self.wrong.setdefault(text, time.time())
        self._first_seen = {one.pid: self._first_seen.get(one.pid, begin) for one in living}

    def _look_at(self, name: str) -> None:
        inode = self._lab.image(name).stat().st_ino
        counter = self._lab.testimony(name).counter
        if counter < self._counters.get((name, inode), 0):
            self.wrong.setdefault(f"{name}: the counter went back to {counter}", time.time())
        self._counters[name, inode] = counter

    def finish(self) -> None:
        """End the watch; raises LawBroken with all that was seen."""
        self._end.set()
        self.join()
        if self.wrong:
            raise LawBroken("; ".join(self.wrong))

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.finish()
        except LawBroken:
            if error is None or not isinstance(error, LawBroken):
                raise
