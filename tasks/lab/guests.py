"""The practice VMs: define, start, find, remove, and what their disks say."""

from __future__ import annotations

import shutil
import uuid as uuids
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from tasks.lab import guestkernel, image, namespaces, witness
from tasks.lab.cells import Cells
from tasks.lab.problem import LabError, LabRefused

XML = """\
<domain type='{kind}'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>/vmstorage/boot/vmlinuz</kernel>
    <initrd>/vmstorage/boot/initrd</initrd>
    <cmdline>console=ttyS0 quiet panic=1 {quick} vmfab.acpi={acpi} vmfab.name={word}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file={image}/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='br0'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <controller type='usb' model='none'/>
    <serial type='pty'><log file='/var/log/libvirt/console-{uuid}.log' append='on'/></serial>
    <memballoon model='none'/>
  </devices>
</domain>
"""
ACPI_NAMES = ("now", "never")


@dataclass(frozen=True)
class Sample:
    """One of the VMs that `lab.up` makes: how it takes a shutdown, and for what it stands."""

    name: str
    acpi: str


# The first half lands on vmhost1, so that draining it shows every kind.
SAMPLES = tuple(
    Sample(name, acpi)
    for name, acpi in (
        ("web", "now"), ("db", "5"), ("legacy", "never"), ("mail", "now"),
        ("wiki", "now"), ("git", "now"), ("ldap", "2"), ("backup", "now"),
    )
)  # fmt: skip


def samples(count: int) -> list[Sample]:
    """Return this many sample VMs with different names."""
    more = (Sample(f"vm-{number:02}", "now") for number in range(len(SAMPLES) + 1, count + 1))
    return [*SAMPLES[:count], *more]


class Guests(Cells):
    """A lab with VMs in it."""

    def install_guest_kernel(self) -> None:
        """Put the guests' kernel and initramfs on the store, where they are missing."""
        with self.cache_locked():
            for source, name in zip(guestkernel.provide(self.cache), ("vmlinuz", "initrd"), strict=True):
                target = self.store / "boot" / name
                if not target.exists():
                    shutil.copyfile(source, target)

    def image(self, name: str) -> Path:
        """Return the path of a VM's image as this machine's root sees it."""
        return self.store / "images" / f"{name}.img"

    def images(self) -> list[str]:
        """Name the VMs that have an image."""
        return sorted(path.stem for path in (self.store / "images").glob("*.img"))

    def xml(
        self, name: str, *, acpi: str = "now", memory_mib: int = 128, uuid: str = "", image_of: str = ""
    ) -> str:
        """Return the XML of a practice VM; `image_of` lets it use another VM's image."""
        if acpi not in ACPI_NAMES and not acpi.isdigit():
            raise LabRefused(f"acpi is {acpi!r}; it must be now, never or a number of seconds.")
        uuid = uuid or str(uuids.uuid4())
        return XML.format(
            kind="kvm" if self.settings().kvm else "qemu",
            name=escape(name),
            uuid=uuid,
            memory=memory_mib,
            acpi=acpi,
            quick=guestkernel.QUICK,
            word="".join(c if c.isascii() and c.isalnum() else "-" for c in name),
            image=quoteattr(f"/vmstorage/images/{image_of or name}.img"),
            mac="52:54:00:{}:{}:{}".format(*(uuid.replace("-", "")[at : at + 2] for at in (0, 2, 4))),
        )

    def define_vm(self, host: str, xml: str) -> None:
        """Define a VM on a host from its XML."""
        path = self.disk(host) / "var/tmp" / f"{uuids.uuid4()}.xml"
        path.write_text(xml, encoding="utf-8")
        try:
            self.virsh(host, "define", f"/var/tmp/{path.name}")
        finally:
            path.unlink()

    def add_vm(
        self, name: str, host: str, *, acpi: str = "now", memory_mib: int = 128, start: bool = True,
        uuid: str = "", booted: bool = False,
    ) -> str:  # fmt: skip
        """Make a VM with a fresh image on a host; returns its UUID.

        `booted` waits until the guest itself runs (it writes its counter).
        """
        uuid = uuid or str(uuids.uuid4())
        image.create(self.image(name))
        self.define_vm(host, self.xml(name, acpi=acpi, memory_mib=memory_mib, uuid=uuid))
        if start:
            self.virsh(host, "start", uuid)
            if booted:
                self.wait_counting(name)
        return uuid

    def running(self, host: str) -> list[str]:
        """Name the VMs that libvirt runs on a host, sorted."""
        return sorted(line for line in self.virsh(host, "list", "--name").splitlines() if line)

    def defined(self, host: str) -> list[str]:
        """Name the VMs that a host knows, sorted."""
        return sorted(line for line in self.virsh(host, "list", "--all", "--name").splitlines() if line)

    def testimony(self, name: str) -> witness.Testimony:
        """Read what a VM's disk says."""
        return witness.read(self.image(name))

    def wait_counting(self, name: str, seconds: float = 90.0) -> None:
        """Wait until a guest has written its counter once more than now; raises LabError."""
        image = self.image(name)
        following = witness.read(image).counter + 1
        namespaces.until(lambda: witness.holds(image, following), seconds, f"{name} to write", 0.1)

    def remove_guests(self) -> None:
        """Destroy and undefine all VMs on all hosts that are on, and remove their images."""
        with ThreadPoolExecutor(max_workers=max(1, len(self.hosts))) as pool:
            list(pool.map(self._remove_guests_of, filter(self.is_on, self.hosts)))
        for path in (self.store / "images").iterdir():
            path.unlink()

    def _remove_guests_of(self, host: str) -> None:
        found = self.virsh(host, "list", "--all", "--uuid").split()
        for uuid in found:
            self.virsh(host, "destroy", uuid, check=False)
            flags = ("--managed-save", "--snapshots-metadata", "--checkpoints-metadata", "--nvram")
            # A transient VM is gone by now.
            self.virsh(host, "undefine", uuid, *flags, check=False)
        if found and (left := self.virsh(host, "list", "--all", "--uuid").split()):
            raise LabError(f"Practice host {host} does not forget {', '.join(left)}.")
