"""QEMU's command line for a machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.lab.guestkernel import EMULATED

#: Files in a machine's folder. QEMU is started in that folder: the path of a socket may not be long.
DISK, INITRD, KERNEL, CONSOLE, SERIAL = "disk.qcow2", "initrd", "vmlinuz", "console.log", "serial"
#: Where the cards sit, so that they have the same names under every release: enp0s2 (LAN), enp0s3.
NICS = ("enp0s2", "enp0s3")
APPEND = (
    "root=/dev/vda console=ttyS1,115200 quiet loglevel=4 systemd.show_status=no "
    f"{EMULATED} transparent_hugepage=never rcupdate.rcu_expedited=1"
)


@dataclass(frozen=True)
class Machine:
    """What tells one machine from another."""

    name: str
    cables: Iterable[tuple[str, str]]  # tap and MAC address, the LAN first
    memory_mib: int
    cpus: int
    kvm: bool


def command(machine: Machine) -> list[str]:
    """Return the words that run a machine until its power is taken or it switches itself off.

    A reboot inside boots the same kernel again. The first serial line is free: whoever plays the device at
    its other end connects to the socket. The second is the console, kept in a file.
    """
    accelerator = ["-accel", "kvm", "-cpu", "host"] if machine.kvm else [
        # Few features: each one that a program finds is one that must be emulated.
        "-accel", "tcg,thread=multi,tb-size=256",
        "-cpu", "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq",
    ]  # fmt: skip
    words = [
        "qemu-system-x86_64", "-name", machine.name, "-no-user-config", "-nodefaults", "-display", "none",
        "-machine", "q35,sata=off,smbus=off,vmport=off", *accelerator,
        "-smp", str(machine.cpus), "-m", f"{machine.memory_mib}",
        "-kernel", KERNEL, "-initrd", INITRD, "-append", APPEND,
        # A machine's flush reaches the file, not this computer's disk: only a power cut here would matter.
        "-drive", f"if=none,id=disk,file={DISK},format=qcow2,cache=unsafe,discard=unmap",
        "-device", "virtio-blk-pci,drive=disk,addr=4", "-device", "virtio-rng-pci,addr=5",
    ]  # fmt: skip
    for number, (tap, mac) in enumerate(machine.cables):
        words += ["-netdev", f"tap,id=net{number},ifname={tap},script=no,downscript=no"]
        words += ["-device", f"virtio-net-pci,netdev=net{number},mac={mac},addr={2 + number},romfile="]
    return [
        *words,
        "-chardev", f"socket,id=line,path={SERIAL},server=on,wait=off", "-serial", "chardev:line",
        "-chardev", f"file,id=console,path={CONSOLE},append=on", "-serial", "chardev:console",
    ]  # fmt: skip
