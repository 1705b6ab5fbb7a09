"""libvirt definitions of simulated VMs: XML made, read and completed as libvirt does."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from tests.sim.errors import VirshError


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a VM; `path` is absolute. An empty path is an empty CD drive."""

    path: str
    target: str = "vda"
    shareable: bool = False
    read_only: bool = False
    device: str = "disk"
    block: bool = False

    @property
    def writable(self) -> bool:
        return bool(self.path) and not self.shareable and not self.read_only and self.device == "disk"


def domain_xml(
    name: str,
    uuid: str,
    *,
    memory_mib: int = 1024,
    vcpus: int = 1,
    disks: Sequence[Disk] = (),
    bridge: str = "br0",
    network: str = "",
    machine: str = "pc-q35-8.2",
    password: str = "",
    extra: str = "",
) -> str:
    """A definition as `virsh dumpxml --inactive --security-info` prints it; `extra` goes into <devices>."""
    source = f"<source network={quoteattr(network)}/>" if network else f"<source bridge={quoteattr(bridge)}/>"
    kind = "network" if network else "bridge"
    secret = f" passwd={quoteattr(password)}" if password else ""
    mac = ":".join(["52", "54", "00", uuid[-6:-4], uuid[-4:-2], uuid[-2:]])
    return f"""<domain type='kvm'>
  <name>{escape(name)}</name>
  <uuid>{uuid}</uuid>
  <memory unit='KiB'>{memory_mib * 1024}</memory>
  <currentMemory unit='KiB'>{memory_mib * 1024}</currentMemory>
  <vcpu placement='static'>{vcpus}</vcpu>
  <os>
    <type arch='x86_64' machine='{machine}'>hvm</type>
    <boot dev='hd'/>
  </os>
  <features>
    <acpi/>
    <apic/>
  </features>
  <clock offset='utc'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
{"".join(_disk_xml(d) for d in disks)}    <interface type='{kind}'>
      <mac address='{mac}'/>
      {source}
      <model type='virtio'/>
    </interface>
    <serial type='pty'>
      <target type='isa-serial' port='0'/>
    </serial>
    <graphics type='vnc' port='-1' autoport='yes' listen='127.0.0.1'{secret}/>
{extra}  </devices>
</domain>
"""


def _disk_xml(disk: Disk) -> str:
    kind, attribute = ("block", "dev") if disk.block else ("file", "file")
    source = f"\n      <source {attribute}={quoteattr(disk.path)}/>" if disk.path else ""
    flags = "\n      <readonly/>" if disk.read_only else ""
    flags += "\n      <shareable/>" if disk.shareable else ""
    driver = "raw" if disk.block or disk.device == "cdrom" else "qcow2"
    return f"""    <disk type='{kind}' device='{disk.device}'>
      <driver name='qemu' type='{driver}'/>{source}
      <target dev='{disk.target}' bus='virtio'/>{flags}
    </disk>
"""


@dataclass(slots=True)
class Definition:
    """A definition, read from its XML."""

    xml: str
    uuid: str
    name: str
    memory_kib: int
    vcpus: int
    machine: str
    bridges: tuple[str, ...]
    disks: tuple[Disk, ...]
    autostart: bool = False
    #: the boot that was saved, None without a managed save
    managed_save: str | None = None
    persistent: bool = True
    #: why it is off, as `virsh domstate --reason` says it
    reason: str = "unknown"
    #: when it was written to its host's disk, by the simulation's clock
    written: float = 0.0


_UNITS = {"KiB": 1, "MiB": 1 << 10, "GiB": 1 << 20, "k": 1, "KB": 1, "M": 1 << 10, "G": 1 << 20}


def read(xml: str) -> Definition:
    """Read a definition. Raises VirshError as libvirt does for one it refuses."""
    try:
        tree = ET.fromstring(xml)
    except ET.ParseError as error:
        raise VirshError(
            f"Failed to define domain from /dev/stdin\n(domain_definition):1: {error}"
        ) from error
    if tree.tag != "domain":
        raise VirshError(
            f"Failed to define domain from /dev/stdin\nXML error: unexpected root element <{tree.tag}>"
        )
    name, uuid = tree.findtext("name") or "", tree.findtext("uuid") or ""
    if not name:
        raise VirshError("Failed to define domain from /dev/stdin\nXML error: missing domain name")
    for bad, shown in (("/", "/"), ("\n", "\\n")):
        if bad in name:
            raise VirshError(
                f"Failed to define domain from /dev/stdin\nXML error: name {name} cannot contain '{shown}'"
            )
    memory = tree.find("memory")
    kib = 0
    if memory is not None:
        kib = int(memory.text or 0) * _UNITS.get(memory.get("unit", "KiB"), 1)
    os_type = tree.find("os/type")
    disks = tuple(_read_disk(d) for d in tree.findall("devices/disk"))
    return Definition(
        xml=xml,
        uuid=uuid,
        name=name,
        memory_kib=kib,
        vcpus=int(tree.findtext("vcpu") or 1),
        machine="" if os_type is None else os_type.get("machine", ""),
        bridges=tuple(s.attrib["bridge"] for s in tree.findall("devices/interface/source[@bridge]")),
        disks=disks,
    )


def _read_disk(disk: ET.Element) -> Disk:
    source, target = disk.find("source"), disk.find("target")
    path = "" if source is None else source.get("file") or source.get("dev") or ""
    return Disk(
        path=path,
        target="" if target is None else target.get("dev", ""),
        shareable=disk.find("shareable") is not None,
        read_only=disk.find("readonly") is not None or disk.get("device") in ("cdrom",),
        device=disk.get("device", "disk"),
        block=disk.get("type") == "block",
    )


def completed(definition: Definition, machines: Sequence[str]) -> Definition:
    """As libvirt stores it: aliases of machine types resolved, the id of a running domain dropped."""
    tree = ET.fromstring(definition.xml)
    tree.attrib.pop("id", None)
    os_type = tree.find("os/type")
    for alias, family in (("q35", "pc-q35-"), ("pc", "pc-i440fx-")):
        versions = [m for m in machines if m.startswith(family)]
        if os_type is not None and os_type.get("machine") == alias and versions:
            os_type.set("machine", versions[-1])
    text = ET.tostring(tree, encoding="unicode") + "\n"
    return read(text)


def live(definition: Definition, number: int) -> Definition:
    """The definition of a running domain, with what libvirt adds at the start."""
    tree = ET.fromstring(definition.xml)
    tree.set("id", str(number))
    for index, disk in enumerate(tree.findall("devices/disk"), 1):
        source = disk.find("source")
        if source is not None:
            source.set("index", str(index))
            ET.SubElement(disk, "backingStore")
        ET.SubElement(disk, "alias", name=f"virtio-disk{index - 1}")
    for index, interface in enumerate(tree.findall("devices/interface")):
        ET.SubElement(interface, "target", dev=f"vnet{number * 4 + index}")
        ET.SubElement(interface, "alias", name=f"net{index}")
    return read(ET.tostring(tree, encoding="unicode") + "\n")


def public(xml: str) -> str:
    """The XML without secrets, as dumpxml prints it without --security-info."""
    tree = ET.fromstring(xml)
    for graphics in tree.findall("devices/graphics"):
        graphics.attrib.pop("passwd", None)
    return ET.tostring(tree, encoding="unicode") + "\n"
