"""What a guest's disk proves, on disks written by hand."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tasks.lab import image, witness
from tasks.lab.image import BOOTS_AT, PAGE, PAGES_AT, RECORD, RING, RING_AT
from tasks.lab.problem import LabError

A, B, C = (f"{letter * 8}-0000-4000-8000-000000000000" for letter in "abc")


class Disk:
    """A guest's disk, written as files/guest-init writes it."""

    def __init__(self, path: Path) -> None:
        image.create(path)
        self.path = path
        self.data = bytearray(path.read_bytes())

    def boot(self, number: int, boot_id: str, start: int) -> None:
        at = BOOTS_AT + (number - 1) * RECORD
        self.data[at : at + RECORD] = b"%-63s\n" % (b"%12d %s %12d" % (number, boot_id.encode(), start))

    def write(self, first: int, last: int, boot_id: str) -> None:
        for counter in range(first, last + 1):
            at = RING_AT + counter % RING * RECORD
            self.data[at : at + RECORD] = b"%12d %-50s\n" % (counter, boot_id.encode())

    def write_page(self, page: int, first: int, last: int, boot_id: str) -> None:
        for counter in range(first, last + 1):
            at = PAGES_AT + page * PAGE + counter % 64 * RECORD
            self.data[at : at + RECORD] = b"%12d %-50s\n" % (counter, boot_id.encode())

    def read(self) -> witness.Testimony:
        self.path.write_bytes(self.data)
        return witness.read(self.path)


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "x.img")


def test_a_new_disk_has_nothing_to_say(disk: Disk) -> None:
    assert disk.read() == witness.Testimony((), 0, ())


def test_one_record_is_looked_up_without_reading_all(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, RING + 5, A)
    disk.read()
    assert witness.holds(disk.path, RING + 5)
    assert witness.holds(disk.path, 6)
    assert not witness.holds(disk.path, 5)  # written over
    assert not witness.holds(disk.path, RING + 6)


def test_boots_one_after_another_are_good(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, 20, A)
    disk.boot(2, B, 20)
    disk.write(21, 5000, B)  # once round the ring
    disk.boot(3, C, 5000)
    said = disk.read()
    assert said.good
    assert said.counter == 5000
    assert [boot.boot_id for boot in said.boots] == [A, B, C]


def test_two_writers_are_seen(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, 20, A)
    disk.boot(2, B, 20)
    disk.write(21, 30, B)
    disk.write(31, 33, A)  # the first one still lives
    assert "two writers: 3 records" in disk.read().wrong[0]


def test_a_boot_that_saw_an_older_disk_is_seen(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, 20, A)
    disk.boot(2, B, 10)  # as if records 11..20 had not been there yet
    disk.write(11, 15, B)
    assert any("two writers" in text for text in disk.read().wrong)


def test_a_writer_whose_traces_were_overwritten_is_seen(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, 40, A)
    disk.write_page(10, 1, 40, A)
    disk.boot(2, B, 20)
    disk.write(21, 60, B)
    disk.write_page(11, 21, 60, B)
    assert disk.read().wrong == ("two writers: boot 1 wrote up to 40, boot 2 began at 20",)


def test_a_writer_whose_boot_record_was_overwritten_is_seen(disk: Disk) -> None:
    disk.boot(1, B, 0)
    disk.write(1, 40, B)
    disk.write_page(10, 1, 40, B)
    disk.write_page(11, 1, 30, A)
    assert disk.read().wrong == (f"two writers: boot {A} is not in the list",)


def test_any_lost_write_is_seen(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.write(1, 9000, A)
    good = bytes(disk.data)
    for _ in range(20):
        counter = random.randrange(9000 - RING + 1, 9000)  # the newest has no younger one to prove it
        disk.data[:] = good
        at = RING_AT + counter % RING * RECORD
        disk.data[at : at + RECORD] = b"\0" * RECORD
        assert disk.read().wrong == (f"lost: 1 of the records {counter}..{counter}",)
        disk.write(counter - RING, counter - RING, A)  # an old page came back
        assert not disk.read().good


def test_a_lost_boot_record_is_seen(disk: Disk) -> None:
    disk.boot(1, A, 0)
    disk.boot(3, C, 0)
    assert disk.read().wrong == ("boots 2..2 are missing",)


def test_what_is_no_guests_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.img").write_bytes(b"\0" * 400_000)
    with pytest.raises(LabError, match="is not the disk"):
        witness.read(tmp_path / "x.img")
