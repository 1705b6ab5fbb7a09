"""libvirt's domain XML, read: what a VM is, which images it writes, and what ties it to one host.

Written for libvirt's own output (`virsh dumpxml`), and strict with anything else: what cannot be understood
raises ValueError, so that a definition that was misread is never taken for one without disks.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID
from xml.dom import minidom
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers.expat import ExpatError
from xml.sax.saxutils import escape, quoteattr

from tasks.cluster.model import FileId

#: Network protocols whose image names mean the same image whichever of the service's hosts is asked. Two
#: definitions may list different monitors or portals for one image: these hosts are no part of its identity.
CLUSTER_WIDE_NAMES = frozenset({"rbd", "iscsi", "gluster", "sheepdog", "vxhs"})
#: Attribute of a disk's <source> that holds its path on the host, by type of the disk.
PATH_ATTRIBUTES = {"file": "file", "block": "dev", "dir": "dir"}
#: Interfaces that hand a piece of this host's hardware or a socket of this host to the guest.
HOST_INTERFACES = frozenset({"hostdev", "vdpa", "vhostuser"})

_QEMU = "{http://libvirt.org/schemas/domain/qemu/1.0}"
_RAW_FILE = re.compile(r"(?:^|[,.])(?:file|filename|file\.filename)=((?:[^,]|,,)+)")


@dataclass(frozen=True, slots=True)
class Source:
    """Where an image lies: a path on the host, a network image, or a volume of a storage pool.

    `kind` is libvirt's type of the disk: file, block, dir, network, volume, nvme, vhostuser, vhostvdpa.
    """

    kind: str
    path: str = ""
    protocol: str = ""
    name: str = ""
    hosts: tuple[str, ...] = ()
    pool: str = ""
    volume: str = ""

    def __str__(self) -> str:
        if self.kind == "network":
            return f"{self.protocol}:{self.name}" + (f" at {', '.join(self.hosts)}" if self.hosts else "")
        if self.kind == "volume":
            return f"volume {self.volume} of pool {self.pool}"
        return self.path or self.kind

    def key(self, files: Mapping[str, FileId]) -> str:
        """The identity of the image; empty for hardware that belongs to one host."""
        if self.kind == "network":
            hosts = "" if self.protocol in CLUSTER_WIDE_NAMES else ",".join(sorted(self.hosts))
            return f"net:{self.protocol}:{self.name}@{hosts}"
        if self.kind == "volume":
            return f"volume:{self.pool}/{self.volume}"
        if not self.path:
            return ""
        return files[self.path].key if self.path in files else f"path:{self.path}"


@dataclass(frozen=True, slots=True)
class Disk:
    """One drive of a VM. `source` is None for an empty drive.

    `device` is libvirt's disk, lun, cdrom or floppy; nvdimm for persistent memory kept in a file; argument
    for a drive that stands in raw QEMU arguments. `target` is the name the guest's bus gives it (vda).
    `also_writes` holds the destination of a running block job and external data files, `backing` the images
    it reads through.
    """

    target: str
    device: str
    source: Source | None
    readonly: bool = False
    shareable: bool = False
    transient: bool = False
    also_writes: tuple[Source, ...] = ()
    backing: tuple[Source, ...] = ()

    @property
    def removable(self) -> bool:
        return self.device in ("cdrom", "floppy")

    def written(self) -> tuple[Source, ...]:
        """The images that only one VM at a time may have open, because this drive writes them."""
        if self.source is None or self.readonly or self.shareable:
            return ()
        return (self.source, *self.also_writes)

    def __str__(self) -> str:
        return f"{self.device} {self.target} ({'empty' if self.source is None else self.source})"


@dataclass(frozen=True, slots=True)
class Tpm:
    """A TPM: its backend (emulator, passthrough, external) and path; empty means libvirt's local folder."""

    backend: str
    path: str


@dataclass(frozen=True, slots=True)
class DomainXml:
    """What vmfab reads from a definition. Texts are empty where the definition is silent.

    `memory_kib` is what the guest can ever use (libvirt's <memory>), not what the balloon leaves it now.
    `hostdevs` are the pieces of this host's hardware it uses, in words. `direct` are host network devices
    used through macvtap. `nvram` is None when it has no UEFI variables or libvirt has not yet chosen a file;
    `wants_nvram` tells the two apart.
    """

    uuid: str
    name: str
    memory_kib: int
    vcpus: int
    arch: str
    machine: str
    emulator: str
    disks: tuple[Disk, ...]
    bridges: frozenset[str]
    networks: frozenset[str]
    direct: frozenset[str]
    hostdevs: tuple[str, ...]
    nvram: Source | None
    wants_nvram: bool
    tpms: tuple[Tpm, ...]
    kernel: str
    initrd: str
    dtb: str
    loader: str
    filesystems: tuple[str, ...]
    cpu_mode: str
    #: what libvirt does when the guest reboots: restart, destroy, preserve, rename-restart
    on_reboot: str


def parse(text: str) -> DomainXml:
    """Read a definition.

    Raises ValueError when it is not well-formed, not a <domain>, or lacks what every domain has.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"not well-formed XML ({error})") from None
    if root.tag != "domain":
        raise ValueError(f"the root element is <{root.tag}>, not <domain>")
    name = root.findtext("name") or ""
    if not name:
        raise ValueError("the definition has no <name>")
    kind = root.find("os/type")
    cpu = root.find("cpu")
    return DomainXml(
        uuid=_uuid(root.findtext("uuid")),
        name=name,
        memory_kib=_memory(root),
        vcpus=_number(root.findtext("vcpu") or "1", "vcpu"),
        arch="" if kind is None else kind.get("arch", ""),
        machine="" if kind is None else kind.get("machine", ""),
        emulator=_text(root, "devices/emulator"),
        disks=(*map(_disk, root.iterfind("devices/disk")), *_nvdimms(root), *_raw_disks(root)),
        bridges=_interfaces(root, "bridge", "bridge"),
        networks=_interfaces(root, "network", "network"),
        direct=_interfaces(root, "direct", "dev"),
        hostdevs=tuple(_hostdevs(root)),
        nvram=_nvram(root),
        wants_nvram=_wants_nvram(root),
        tpms=tuple(_tpm(t) for t in root.iterfind("devices/tpm")),
        kernel=_text(root, "os/kernel"),
        initrd=_text(root, "os/initrd"),
        dtb=_text(root, "os/dtb"),
        loader=_text(root, "os/loader"),
        filesystems=tuple(_filesystems(root)),
        cpu_mode="" if cpu is None else cpu.get("mode", ""),
        on_reboot=_text(root, "on_reboot") or "restart",
    )


def writable_keys(xml: DomainXml, files: Mapping[str, FileId]) -> frozenset[str]:
    """The identities of all images that the VM may write, and that nobody else may have open.

    `files` is what the host found behind the paths; a path that is not in it stands for itself. UEFI
    variables count only when they lie on the shared store: a local file is out of every other host's reach,
    and its path is the same on each host without being the same file.
    """
    keys = {source.key(files) for disk in xml.disks for source in disk.written()}
    if xml.nvram is not None and xml.nvram.path in files and files[xml.nvram.path].on_store:
        keys.add(xml.nvram.key(files))
    return frozenset(keys - {""})


def for_target(text: str, optional_media: Collection[str] = ()) -> str:
    """The XML to define on the target, from the source's inactive XML with security info.

    It is the same text: inactive XML holds nothing of the running instance, and what ties a definition to its
    host (devices, local files) is refused before, never edited away. Autostart is no part of the XML.
    The only change: drives named in `optional_media` (cdrom and floppy, by target name) may start without
    their medium (startupPolicy='optional'), so the VM starts where the file is missing and finds it again
    when it comes back. Raises ValueError as `parse` does, and for a name that is no removable drive.
    """
    drives = {d.target for d in parse(text).disks if d.removable and d.source is not None}
    if unknown := sorted(set(optional_media) - drives):
        raise ValueError(f"no removable drive with a medium: {', '.join(unknown)}")
    if not optional_media:
        return text
    document = minidom.parseString(text.encode())
    for disk in document.getElementsByTagName("disk"):
        target = disk.getElementsByTagName("target")
        if target and target[0].getAttribute("dev") in optional_media:
            for node in disk.childNodes:
                if isinstance(node, minidom.Element) and node.tagName == "source":
                    node.setAttribute("startupPolicy", "optional")
    return str(document.documentElement.toxml()) + "\n" if document.documentElement else text


def canonical(text: str, *, hide_secrets: bool = False) -> str:
    """A definition in a form in which equal definitions are equal texts, one element a line.

    Levelled out: white space, comments, quotes, order of attributes, order of elements of different names
    (order among equal names counts in libvirt: disks, interfaces, boot), order of CPU features, units of
    memory, spelling of the UUID. <metadata> keeps its order. `hide_secrets` masks passwords, for showing.
    Raises ValueError when it is not well-formed.
    """
    try:
        root = minidom.parseString(text.encode()).documentElement
    except ExpatError as error:
        raise ValueError(f"not well-formed XML ({error})") from None
    if root is None:
        raise ValueError("no XML element")
    return "\n".join(_lines(root, 0, hide_secrets)) + "\n"


# -- canonical form ------------------------------------------------------------------------------------


def _lines(node: minidom.Element, depth: int, hide: bool) -> Iterator[str]:
    attributes = {str(key): str(value) for key, value in node.attributes.items()}
    content = "".join(c.data for c in node.childNodes if isinstance(c, minidom.Text)).strip()
    if node.tagName in ("memory", "currentMemory", "maxMemory") and content:
        content = str(_kib(content, attributes.pop("unit", "KiB")))
    elif node.tagName == "uuid" and depth == 1:
        content = _uuid(content)
    if hide and "passwd" in attributes:
        attributes["passwd"] = "(hidden)"
    children = [c for c in node.childNodes if isinstance(c, minidom.Element)]
    if node.tagName != "metadata":
        children.sort(key=_place)
    indent = "  " * depth
    tag = node.tagName + "".join(f" {key}={quoteattr(attributes[key])}" for key in sorted(attributes))
    if not children:
        yield f"{indent}<{tag}>{escape(content)}</{node.tagName}>" if content else f"{indent}<{tag}/>"
        return
    yield f"{indent}<{tag}>{escape(content)}"
    for child in children:
        yield from _lines(child, depth + 1, hide)
    yield f"{indent}</{node.tagName}>"


def _place(node: minidom.Element) -> tuple[str, str]:
    feature_of_cpu = node.tagName == "feature" and node.hasAttribute("policy")
    return node.tagName, node.getAttribute("name") if feature_of_cpu else ""


# -- single values -------------------------------------------------------------------------------------


def _text(root: Element, path: str) -> str:
    return (root.findtext(path) or "").strip()


def _uuid(text: str | None) -> str:
    """libvirt takes a UUID in any case and without hyphens; the answer is spelled as libvirt prints it."""
    if not text or not text.strip():
        return ""
    try:
        return str(UUID(text.strip()))
    except ValueError:
        raise ValueError(f"not a UUID: {text.strip()!r}") from None


def _number(text: str, what: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError(f"<{what}> is {text!r}, not a number")
    return int(digits)


def _kib(text: str, unit: str) -> int:
    """Memory in KiB, rounded up; units as libvirt's virScaleInteger takes them."""
    number, u = _number(text, "memory"), unit.strip().lower()
    if u in ("b", "byte", "bytes"):
        scale = 1
    else:
        power = "kmgtpe".find(u[:1]) + 1 if u else 0
        base = {"": 1024, "ib": 1024, "b": 1000}.get(u[1:])
        if not power or base is None:
            raise ValueError(f"unknown unit of memory: {unit!r}")
        scale = base**power
    return -(-number * scale // 1024)


def _memory(root: Element) -> int:
    total = root.find("memory")
    if total is not None and total.text:
        return _kib(total.text, total.get("unit", "KiB"))
    cells = [c for c in root.iterfind("cpu/numa/cell") if c.get("memory")]
    if not cells:
        raise ValueError("the definition has no <memory>")
    return sum(_kib(c.get("memory", ""), c.get("unit", "KiB")) for c in cells)


# -- disks ---------------------------------------------------------------------------------------------


def _source(kind: str, node: Element | None) -> Source | None:
    """The <source> of a disk of type `kind`; None when there is none, or it names nothing (empty drive)."""
    if node is None:
        return None
    if kind == "network":
        hosts = tuple(_network_host(h) for h in node.iterfind("host"))
        return Source(kind, protocol=node.get("protocol", ""), name=node.get("name", ""), hosts=hosts)
    if kind == "volume":
        return Source(kind, pool=node.get("pool", ""), volume=node.get("volume", ""))
    if kind in PATH_ATTRIBUTES:
        path = node.get(PATH_ATTRIBUTES[kind], "")
        return Source(kind, path=path) if path else None
    return Source(kind)


def _network_host(node: Element) -> str:
    if node.get("transport") == "unix":
        return f"unix:{node.get('socket', '')}"
    port = node.get("port", "")
    return node.get("name", "") + (f":{port}" if port else "")


def _disk(node: Element) -> Disk:
    kind = node.get("type", "file")
    device = node.get("device", "disk")
    target = node.find("target")
    source = node.find("source")
    also = []
    for child in (node.find("mirror"), None if source is None else source.find("dataStore")):
        if child is not None and (found := _source(child.get("type", "file"), child.find("source"))):
            also.append(found)
    transient = node.find("transient")
    return Disk(
        target="" if target is None else target.get("dev", ""),
        device=device,
        source=_source(kind, source),
        # libvirt makes every cdrom read-only, said or not
        readonly=device == "cdrom" or node.find("readonly") is not None,
        # shareBacking: the guest writes to an overlay of its own, and others may use the image meanwhile
        shareable=node.find("shareable") is not None
        or (transient is not None and transient.get("shareBacking") == "yes"),
        transient=transient is not None,
        also_writes=tuple(also),
        backing=tuple(_backing(node)),
    )


def _backing(node: Element) -> Iterator[Source]:
    store = node.find("backingStore")
    while store is not None:
        if found := _source(store.get("type", "file"), store.find("source")):
            yield found
        store = store.find("backingStore")


def _nvdimms(root: Element) -> Iterator[Disk]:
    for number, node in enumerate(root.iterfind("devices/memory")):
        path = _text(node, "source/path")
        if path:
            readonly = node.find("target/readonly") is not None
            yield Disk(f"memory{number}", "nvdimm", Source("file", path=path), readonly=readonly)


def _raw_disks(root: Element) -> Iterator[Disk]:
    """Files named in raw QEMU arguments. In QEMU's lists a comma within a value is doubled."""
    for number, node in enumerate(root.iterfind(f"{_QEMU}commandline/{_QEMU}arg")):
        value = node.get("value", "")
        readonly = re.search(r"(?:^|,)(?:readonly|read-only)=on(?:,|$)", value) is not None
        for match in _RAW_FILE.finditer(value):
            path = match[1].replace(",,", ",")
            if path.startswith("/"):
                yield Disk(f"arg{number}", "argument", Source("file", path=path), readonly=readonly)


# -- what ties a VM to a host --------------------------------------------------------------------------


def _interfaces(root: Element, kind: str, attribute: str) -> frozenset[str]:
    names: set[str] = set()
    for node in root.iterfind("devices/interface"):
        source = node.find("source")
        if node.get("type") == kind and source is not None:
            names.add(source.get(attribute, ""))
    return frozenset(names - {""})


def _hostdevs(root: Element) -> Iterator[str]:
    for node in root.iterfind("devices/hostdev"):
        yield f"{node.get('type', 'host')} device {_address(node)}".strip()
    for node in root.iterfind("devices/interface"):
        if node.get("type") in HOST_INTERFACES:
            yield f"network interface of type {node.get('type')} {_address(node)}".strip()
    for node in root.iterfind("devices/disk"):
        if node.get("type") in ("nvme", "vhostuser", "vhostvdpa"):
            yield f"disk of type {node.get('type')} {_address(node)}".strip()
    # A console is the first serial port again.
    for tag in ("serial", "parallel", "channel"):
        for node in root.iterfind(f"devices/{tag}"):
            source = node.find("source")
            if node.get("type") == "dev" and source is not None:
                yield f"{tag} port {source.get('path', '')}"
    for node in root.iterfind("devices/input"):
        source = node.find("source")
        if node.get("type") in ("passthrough", "evdev") and source is not None:
            yield f"input device {source.get('evdev') or source.get('dev', '')}"


def _address(node: Element) -> str:
    """Which device of the host a <source> means, in as few words as it takes to find it."""
    source = node.find("source")
    if source is None:
        return ""
    address, vendor, product = source.find("address"), source.find("vendor"), source.find("product")
    adapter = source.find("adapter")
    if vendor is not None and product is not None:
        return f"{vendor.get('id', '')}:{product.get('id', '')}"
    if adapter is not None:
        return adapter.get("name", "")
    if address is not None:
        if address.get("uuid"):
            return address.get("uuid", "")
        if address.get("bus") and address.get("slot"):
            parts = [int(address.get(k, "0"), 16) for k in ("domain", "bus", "slot", "function")]
            return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)
        return " ".join(f"{k} {v}" for k, v in address.items())
    return source.get("dev") or source.get("path") or source.get("wwpn") or ""


def _nvram(root: Element) -> Source | None:
    node = root.find("os/nvram")
    if node is None:
        return None
    if node.get("type") or node.find("source") is not None:
        return _source(node.get("type", "file"), node.find("source"))
    path = (node.text or "").strip()
    return Source("file", path=path) if path else None


def _wants_nvram(root: Element) -> bool:
    os_node, loader = root.find("os"), root.find("os/loader")
    if os_node is None or (loader is not None and loader.get("stateless") == "yes"):
        return False
    if root.find("os/nvram") is not None or os_node.get("firmware") == "efi":
        return True
    return loader is not None and loader.get("type") == "pflash" and loader.get("readonly") == "yes"


def _tpm(node: Element) -> Tpm:
    backend = node.find("backend")
    if backend is None:
        return Tpm("emulator", "")
    kind = backend.get("type", "emulator")
    for child in (backend.find("source"), backend.find("device")):
        if child is not None and child.get("path"):
            return Tpm(kind, child.get("path", ""))
    return Tpm(kind, "")


def _filesystems(root: Element) -> Iterator[str]:
    for node in root.iterfind("devices/filesystem"):
        source = node.find("source")
        if source is not None:
            for attribute in ("dir", "file", "dev", "socket"):
                if source.get(attribute):
                    yield source.get(attribute, "")
