"""The guests of practice machines, and the law as it shows from their disks and from all hosts' processes."""

from __future__ import annotations

import base64
import gzip
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.lab import image, witness
from tasks.lab.witness import Testimony

if TYPE_CHECKING:
    from tasks.lab.machines.machines import Machines

SOURCE = Path(__file__).with_name("guest.S")
FOLDER = "/vmstorage/images"
XML = """\
<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>16</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{image}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <source bridge='br0'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
"""


def assemble(folder: Path) -> bytes:
    """Make the guest's program."""
    made = folder / "guest.o"
    subprocess.run(["as", "--32", "-o", made, SOURCE], check=True)
    words = [
        "ld",
        "-m",
        "elf_i386",
        "--oformat",
        "binary",
        "-Ttext",
        "0x7c00",
        "-o",
        folder / "guest.bin",
        made,
    ]
    subprocess.run(words, check=True)
    return (folder / "guest.bin").read_bytes()


def disk(path: Path, program: bytes) -> None:
    """Write an empty disk of a guest, with its program."""
    image.create(path)
    with path.open("r+b") as file:
        file.write(program)


@dataclass(frozen=True)
class Running:
    """A guest's emulator: where it runs, as the host's process table tells."""

    name: str
    host: str


class Guests:
    """The VMs of the story."""

    def __init__(self, machines: Machines, program: bytes, scratch: Path) -> None:
        self._machines = machines
        self._scratch = scratch
        self._program = program
        self.names: list[str] = []

    def xml(self, name: str) -> str:
        return XML.format(name=name, uuid=uuid.uuid4(), image=f"{FOLDER}/{name}.img")

    def make_disk(self, name: str) -> None:
        """Put a new guest's disk on the store, through the first host."""
        path = self._scratch / f"{name}.img"
        disk(path, self._program)
        packed = base64.b64encode(gzip.compress(path.read_bytes(), 1)).decode()
        there = (
            f"mkdir -p {FOLDER} && base64 -d | gunzip >{FOLDER}/{name}.img && chmod 600 {FOLDER}/{name}.img"
        )
        self._machines.run(self._machines.hosts[0], "sh", "-c", there, stdin=packed)
        self.names.append(name)

    def testimony(self, name: str) -> Testimony:
        """What a guest's disk says, as the first host that is on reads it."""
        host = next(host for host in self._machines.hosts if self._machines.is_on(host))
        script = f"head -c {image.END} {FOLDER}/{name}.img | gzip -1 | base64"
        text = self._machines.run(host, "sh", "-c", script).stdout
        return witness.judge(gzip.decompress(base64.b64decode(text)))

    def await_counting(self, name: str, boots: int, seconds: float = 120.0) -> Testimony:
        """Wait until a guest that has booted so often writes on; gives what its disk says then."""
        deadline = time.monotonic() + seconds
        first = self.testimony(name)
        while time.monotonic() < deadline:
            said = self.testimony(name)
            assert len(said.boots) <= boots, f"{name} has booted {len(said.boots)} times, not {boots}"
            if len(said.boots) == boots and said.counter > max(first.counter, said.boots[-1].start):
                return said
            time.sleep(1)
        raise AssertionError(f"{name} does not run: {self.testimony(name)}")

    def running(self) -> list[Running]:
        """The emulators of all hosts that are on, whatever libvirt says."""
        found = []
        for host in self._machines.hosts:
            if self._machines.is_on(host):
                lines = self._machines.run(
                    host, "pgrep", "-a", "^qemu-system", check=False
                ).stdout.splitlines()
                found += [
                    Running(name, host) for name in self.names for line in lines if f"guest={name}," in line
                ]
        return found

    def where(self) -> dict[str, str]:
        """The host of each guest that runs; one that runs twice breaks the law."""
        found: dict[str, str] = {}
        for one in self.running():
            assert one.name not in found, f"{one.name} runs on {found[one.name]} and on {one.host}"
            found[one.name] = one.host
        return found

    def check_law(self, boots: dict[str, int]) -> None:
        """No write was lost, nobody else has written, each guest was started so often and not once more."""
        self.where()
        for name, number in boots.items():
            said = self.testimony(name)
            if not said.good:  # it may have been writing right then
                time.sleep(2)
                said = self.testimony(name)
            assert said.good, f"{name}: {said.wrong}"
            assert len(said.boots) == number, f"{name} has booted {len(said.boots)} times, not {number}"
