"""QEMU processes, read from /proc."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tasks.onhost import images, mounts, processes
from tests.unit.onhost.fakes import fake_qemu

#: Of this process alone: others may be running the same tests.
UUID = str(uuid4())


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("guest=web,debug-threads=on", "web"),
        ("guest=a,,b,debug-threads=on", "a,b"),
        ("guest=a,,,debug-threads=on", "a,"),
        ("guest=-dash,debug-threads=on", "-dash"),
        ("guest=sp ace \"q\" $x 'y',debug-threads=on", "sp ace \"q\" $x 'y'"),
        ("guest=x=y", "x=y"),
        ("web", "web"),
        ("debug-threads=on", ""),
    ],
)
def test_names_on_the_command_line(option: str, name: str) -> None:
    argv = ["/usr/bin/qemu-system-x86_64", "-name", option, "-S", "-uuid", UUID.upper()]
    assert processes.identity(argv) == (UUID, name)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["/usr/bin/qemu-img", "convert"],
        ["/bin/sh", "-c", "qemu-system-x86_64"],
        [
            "/usr/bin/qemu-system-x86_64",
            "-S",
            "-no-user-config",
            "-machine",
            "none,accel=kvm:tcg",
            "-daemonize",
        ],
    ],
)
def test_what_is_no_guest(argv: list[str]) -> None:
    assert processes.identity(argv) is None


@pytest.mark.parametrize("program", ["/usr/bin/kvm", "/usr/libexec/qemu-kvm", "qemu-system-aarch64"])
def test_other_spellings_of_qemu(program: str) -> None:
    assert processes.identity([program, "-M", "virt"]) == ("", "")


def test_a_process_with_its_open_files(tmp_path: Path) -> None:
    image = tmp_path / "dïsk 1.img"
    image.write_bytes(b"x")
    process = fake_qemu(UUID, files=(image,))
    try:
        (found,) = processes.with_uuid(UUID)
        assert (found.pid, found.name) == (process.pid, "web")
        assert found.since() is not None
        opened = [f for f in processes.open_to_write(found) if f.path == str(image)]
        assert [f.ino for f in opened] == [image.stat().st_ino]
        (entry,) = images.look_open(opened, mounts.of(str(image), mounts.table()))
        assert entry is not None
        assert (entry["ino"], entry["dev"], entry["exists"], entry["on_store"]) == (
            image.stat().st_ino,
            image.stat().st_dev,
            True,
            True,
        )
        assert images.look_open(opened, None)[0] == {**entry, "on_store": False}
        image.unlink()
        (deleted,) = images.look_open([f for f in processes.open_to_write(found) if "sk 1" in f.path], None)
        assert deleted is not None
        assert (deleted["ino"], deleted["path"]) == (entry["ino"], str(image))
    finally:
        process.kill()
        process.wait()
    assert processes.with_uuid(UUID) == []
    assert processes.open_to_write(found) == []
    assert found.since() is None
    assert not found.alive()


def test_a_dead_process_that_nobody_has_reaped_is_no_guest() -> None:
    process = fake_qemu(UUID)
    try:
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b""
        assert processes.with_uuid(UUID) == []
    finally:
        process.wait()
