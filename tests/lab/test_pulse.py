"""How long a guest's counter stands still, on a disk written by hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tasks.lab import image, witness
from tasks.lab.image import RECORD, RING, RING_AT
from tasks.lab.lab import Lab
from tasks.lab.namespaces import until
from tasks.lab.problem import LabError
from tasks.lab.pulse import Pulse


class OneDisk(Lab):
    """A lab that is nothing but one guest's disk."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.path = folder / "web.img"
        image.create(self.path)
        self.write(0, RING - 2)  # the next ones go once round the ring

    def write(self, first: int, last: int) -> None:
        with self.path.open("r+b") as file:
            for counter in range(first, last + 1):
                file.seek(RING_AT + counter % RING * RECORD)
                file.write(b"%12d %-50s\n" % (counter, b"boot"))

    def images(self) -> list[str]:
        return ["web"]

    def image(self, name: str) -> Path:
        return self.path

    def testimony(self, name: str) -> witness.Testimony:
        return witness.read(self.path)


def seen(pulse: Pulse, counter: int) -> None:
    """Wait until it has come to this record."""
    until(lambda: pulse._counters["web"].value == counter, 60, "the look at the disk")


def test_the_longest_pause_is_told_and_forgotten(tmp_path: Path) -> None:
    disk = OneDisk(tmp_path)
    with Pulse(disk, pause=0.01) as pulse:
        time.sleep(0.5)
        assert pulse.pauses()["web"] >= 0.5  # it still lasts
        disk.write(RING - 1, RING + 20)
        seen(pulse, RING + 20)
        assert pulse.pauses()["web"] >= 0.5
        begin = time.monotonic()
        pulse.restart()
        disk.write(RING + 21, RING + 21)
        assert pulse.pauses()["web"] <= time.monotonic() - begin


def test_waiting_ends_when_the_guest_counts_on(tmp_path: Path) -> None:
    disk = OneDisk(tmp_path)
    with Pulse(disk, pause=0.01) as pulse:
        with pytest.raises(LabError, match="in vain for web to count"):
            pulse.wait(0.1)
        disk.write(RING - 1, RING - 1)
        seen(pulse, RING - 1)
        with pytest.raises(LabError):
            pulse.wait(0.1)  # what was written before does not count
        writer = threading.Timer(0.2, disk.write, (RING, RING))
        begin = time.monotonic()
        writer.start()
        pulse.wait(60)
        assert time.monotonic() - begin >= 0.15
