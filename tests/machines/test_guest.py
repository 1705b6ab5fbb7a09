"""The machines' guest writes what the witness understands, obeys its button, and betrays a double run."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.lab import image, packages, witness
from tasks.lab.namespaces import until
from tests.machines.guests import assemble, disk


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    packages.require(packages.MACHINES)
    return assemble(tmp_path_factory.mktemp("guest"))


@pytest.fixture
def image_file(tmp_path: Path, program: bytes) -> Path:
    path = tmp_path / "guest.img"
    disk(path, program)
    return path


def said(path: Path) -> witness.Testimony:
    with path.open("rb") as file:
        return witness.judge(file.read(image.END))


def await_counter(path: Path, number: int) -> None:
    until(lambda: said(path).counter >= number, 60.0, f"the counter to be {number}", 0.1)


@contextmanager
def guest(path: Path, monitor: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run it as libvirt would, but without QEMU's own lock on the image: OCFS2 does not know that either."""
    drive = f"file={path},format=raw,if=virtio,file.locking=off"
    words = [
        "qemu-system-x86_64",
        "-accel",
        "tcg",
        "-machine",
        "pc",
        "-m",
        "16",
        "-nodefaults",
        "-display",
        "none",
    ]
    process = subprocess.Popen([*words, "-drive", drive, "-qmp", f"unix:{monitor},server=on,wait=off"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def press_button(monitor: Path) -> None:
    """Press the power button. A connection that ends before the answer takes its question with it."""
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rw") as lines:
        connection.connect(str(monitor))
        for word in ("qmp_capabilities", "system_powerdown"):
            lines.write(json.dumps({"execute": word}))
            lines.flush()
            while '"return"' not in lines.readline():
                pass


def test_it_counts_over_two_boots_and_goes_off_when_told(image_file: Path, tmp_path: Path) -> None:
    for boot in (1, 2):
        with guest(image_file, tmp_path / "monitor") as process:
            await_counter(image_file, 3 * boot)
            press_button(tmp_path / "monitor")
            assert process.wait(30) == 0
    found = said(image_file)
    assert found.good, found.wrong
    assert [boot.number for boot in found.boots] == [1, 2]
    assert found.boots[1].start >= 3


def test_two_at_once_are_seen_from_the_disk(image_file: Path, tmp_path: Path) -> None:
    with guest(image_file, tmp_path / "one"):
        await_counter(image_file, 3)
        with guest(image_file, tmp_path / "two"):
            until(lambda: len(said(image_file).boots) == 2, 60.0, "the second boot", 0.1)
            await_counter(image_file, said(image_file).counter + 3)
    assert any("two writers" in text for text in said(image_file).wrong)
