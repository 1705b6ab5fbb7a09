"""Reading domain XML: recorded output of libvirt 9.0 (tests/data/domains), and properties."""

from __future__ import annotations

import random
import re
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cluster.domainxml import DomainXml, canonical, for_target, parse, writable_keys
from tasks.cluster.model import FileId

DATA = Path(__file__).resolve().parents[1] / "data" / "domains"
RECORDED = sorted(p.stem for p in DATA.glob("*.xml"))
#: what XML 1.0 can hold and a path or name may
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=20)


def recorded(name: str) -> str:
    return (DATA / f"{name}.xml").read_text(encoding="utf-8")


def made(devices: str = "", *, os: str = "", name: str = "a") -> DomainXml:
    return parse(
        f"<domain type='kvm'><name>{escape(name)}</name><memory>1024</memory>"
        f"<os><type arch='x86_64' machine='pc'>hvm</type>{os}</os><devices>{devices}</devices></domain>"
    )


def disk(source: str, *, kind: str = "file", device: str = "disk", inside: str = "") -> str:
    return f"<disk type='{kind}' device='{device}'>{source}<target dev='vda'/>{inside}</disk>"


# -- recorded definitions ------------------------------------------------------------------------------


def test_everyday_definition() -> None:
    xml = parse(recorded("q35-file"))
    assert (xml.uuid, xml.name, xml.vcpus) == ("00000004-0000-4000-8000-000000000004", "web", 2)
    assert xml.memory_kib == 2 << 20
    assert (xml.arch, xml.machine, xml.cpu_mode) == ("x86_64", "pc-q35-7.2", "custom")
    assert xml.emulator == "/usr/bin/qemu-system-x86_64"
    assert (xml.bridges, xml.networks, xml.direct) == ({"br0"}, {"storage"}, set())
    assert [(d.target, d.device, str(d.source)) for d in xml.disks] == [
        ("vda", "disk", "/vmstorage/web.qcow2"),
        ("vdb", "disk", "/vmstorage/shared-quorum.img"),
        ("vdc", "disk", "/vmstorage/golden.img"),
        ("sda", "cdrom", "/var/lib/libvirt/images/debian-12.iso"),
        ("sdb", "cdrom", "None"),
    ]
    assert [d.target for d in xml.disks if d.written()] == ["vda"]
    assert (xml.hostdevs, xml.nvram, xml.wants_nvram, xml.tpms, xml.filesystems) == ((), None, False, (), ())


def test_odd_names_and_paths_are_read_as_they_are() -> None:
    xml = parse(recorded("i440fx-odd-name"))
    assert xml.name == '-Bücher & "Co" $HOME it\'s'
    assert xml.memory_kib == 512 << 10
    assert writable_keys(xml, {}) == {
        "path:/dev/disk/by-path/ip-192.168.0.10:3260-iscsi-x-lun-1",
        "path:/vmstorage/a & b's.img",
    }
    assert xml.direct == {"eno1"}


def test_uefi_variables_and_firmware() -> None:
    xml = parse(recorded("uefi"))
    assert str(xml.nvram) == "/var/lib/libvirt/qemu/nvram/win11_VARS.fd"
    assert xml.wants_nvram
    assert xml.loader == "/usr/share/OVMF/OVMF_CODE.fd"


def test_what_belongs_to_the_host() -> None:
    xml = parse(recorded("host-devices"))
    assert xml.hostdevs == (
        "pci device 0000:3b:00.1",
        "usb device 0x0529:0x0001",
        "mdev device c2177883-f1bb-47f0-914d-32a22e3a8804",
        "network interface of type hostdev 0000:5e:02.3",
        "serial port /dev/ttyS0",
    )
    assert xml.filesystems == ("/srv/data",)
    assert (xml.kernel, xml.initrd) == ("/boot/vmlinuz", "/vmstorage/boot/initrd")


def test_images_that_are_no_plain_files() -> None:
    xml = parse(recorded("network-disks"))
    # vdf gives its image to others while it runs (shareBacking): it writes to an overlay of its own
    assert writable_keys(xml, {}) == {
        "net:rbd:vms/ceph-root@",
        "net:nbd:export@store:10809",
        "net:nbd:@unix:/run/nbd.sock",
        "volume:default/ceph.img",
        "path:/vmstorage/clone.qcow2",
    }
    clone = next(d for d in xml.disks if d.target == "vde")
    assert [str(s) for s in clone.backing] == ["/var/lib/libvirt/images/base.qcow2"]


def test_images_in_raw_arguments_count() -> None:
    xml = parse(recorded("raw-arguments"))
    assert writable_keys(xml, {}) == {"path:/vmstorage/raw,one.img"}
    assert "/vmstorage/readonly.img" in {str(d.source) for d in xml.disks}


# -- identity of images --------------------------------------------------------------------------------


def test_known_path_has_the_key_of_the_file() -> None:
    xml = made(disk("<source file='/vmstorage/link'/>"))
    files = {"/vmstorage/link": FileId("/vmstorage/link", "/vmstorage/real", True, True, "store:7")}
    assert writable_keys(xml, files) == {"store:7"}


def test_cluster_wide_image_is_the_same_with_other_monitors() -> None:
    one, two = (
        made(disk(f"<source protocol='rbd' name='p/i'><host name='{h}'/></source>", kind="network"))
        for h in ("mon1", "mon2")
    )
    assert writable_keys(one, {}) == writable_keys(two, {}) != frozenset()


def test_destination_of_a_block_copy_and_data_file_are_written_too() -> None:
    xml = made(
        disk(
            "<source file='/vmstorage/a'><dataStore type='file'><source file='/vmstorage/a.raw'/></dataStore>"
            "</source>",
            inside="<mirror type='file' job='copy'><source file='/vmstorage/b'/></mirror>",
        )
    )
    assert writable_keys(xml, {}) == {"path:/vmstorage/a", "path:/vmstorage/a.raw", "path:/vmstorage/b"}


def test_nvdimm_is_an_image() -> None:
    xml = made("<memory model='nvdimm'><source><path>/vmstorage/pmem</path></source><target/></memory>")
    assert writable_keys(xml, {}) == {"path:/vmstorage/pmem"}


def test_uefi_variables_are_an_image_only_on_the_store() -> None:
    xml = made(os="<nvram>/x/VARS.fd</nvram>")
    local = FileId("/x/VARS.fd", "/x/VARS.fd", True, False, "h:1:2")
    shared = FileId("/x/VARS.fd", "/vmstorage/VARS.fd", True, True, "store:9")
    assert writable_keys(xml, {}) == writable_keys(xml, {"/x/VARS.fd": local}) == frozenset()
    assert writable_keys(xml, {"/x/VARS.fd": shared}) == {"store:9"}


@pytest.mark.parametrize("inside", ["<readonly/>", "<shareable/>"])
def test_what_only_one_may_write_excludes(inside: str) -> None:
    assert writable_keys(made(disk("<source file='/a'/>", inside=inside)), {}) == frozenset()


def test_hardware_disk_is_a_host_device_without_key() -> None:
    source = "<source type='pci'><address domain='0' bus='0x1' slot='0x2' function='0x3'/></source>"
    xml = made(disk(source, kind="nvme"))
    assert writable_keys(xml, {}) == frozenset()
    assert xml.hostdevs == ("disk of type nvme 0000:01:02.3",)


# -- other parts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("memory", "kib"),
    [
        ("<memory>7</memory>", 7),
        ("<memory unit='KiB'>7</memory>", 7),
        ("<memory unit='bytes'>1025</memory>", 2),
        ("<memory unit='KB'>1024</memory>", 1000),
        ("<memory unit='MiB'>3</memory>", 3 << 10),
        ("<memory unit='M'>3</memory>", 3 << 10),
        ("<memory unit='g'>3</memory>", 3 << 20),
        ("<memory unit='GB'>1</memory>", 976563),
        ("<memory unit='TiB'>1</memory>", 1 << 30),
        ("<cpu><numa><cell memory='1' unit='GiB'/><cell memory='512'/></numa></cpu>", (1 << 20) + 512),
    ],
)
def test_units_of_memory(memory: str, kib: int) -> None:
    assert parse(f"<domain><name>a</name>{memory}</domain>").memory_kib == kib


@pytest.mark.parametrize(
    ("tpm", "seen"),
    [
        ("<backend type='emulator' version='2.0'/>", ("emulator", "")),
        (
            "<backend type='emulator'><source type='dir' path='/s/t'/></backend>",
            ("emulator", "/s/t"),
        ),
        ("<backend type='passthrough'><device path='/dev/tpm0'/></backend>", ("passthrough", "/dev/tpm0")),
    ],
)
def test_tpm(tpm: str, seen: tuple[str, str]) -> None:
    (found,) = made(f"<tpm model='tpm-crb'>{tpm}</tpm>").tpms
    assert (found.backend, found.path) == seen


@pytest.mark.parametrize(
    ("os", "wants"),
    [
        ("", False),
        ("<loader readonly='yes' type='pflash'>/usr/x</loader>", True),
        ("<loader readonly='yes' type='pflash' stateless='yes'>/usr/x</loader>", False),
        ("<loader type='rom'>/usr/x</loader>", False),
        ("<nvram>/v</nvram>", True),
    ],
)
def test_whether_it_has_uefi_variables(os: str, wants: bool) -> None:
    assert made(os=os).wants_nvram is wants


def test_firmware_that_libvirt_chooses_has_uefi_variables() -> None:
    xml = parse("<domain><name>a</name><memory>1</memory><os firmware='efi'><type>hvm</type></os></domain>")
    assert xml.wants_nvram
    assert xml.nvram is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not well-formed"),
        ("<domain><name>a</name>", "not well-formed"),
        ("<network><name>a</name></network>", "<network>, not <domain>"),
        ("<domain><memory>1</memory></domain>", "no <name>"),
        ("<domain><name>a</name></domain>", "no <memory>"),
        ("<domain><name>a</name><memory>lots</memory></domain>", "not a number"),
        ("<domain><name>a</name><memory unit='ells'>1</memory></domain>", "unknown unit"),
        ("<domain><name>a</name><memory>1</memory><uuid>7</uuid></domain>", "not a UUID"),
        ("<domain><name>a</name><memory>1</memory><vcpu>x</vcpu></domain>", "<vcpu>"),
    ],
)
def test_what_is_not_understood_raises(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(text)


@given(name=TEXT, path=TEXT)
def test_any_name_and_path_survives(name: str, path: str) -> None:
    source = f"<source file={quoteattr('/vmstorage/' + path)}/>"
    xml = made(disk(source), name=name)
    assert xml.name == name
    assert writable_keys(xml, {}) == {f"path:/vmstorage/{path}"}


# -- for_target ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_target_gets_the_same_text(name: str) -> None:
    assert for_target(recorded(name)) == recorded(name)


def test_optional_media_is_the_only_change() -> None:
    text = recorded("q35-file")
    changed = for_target(text, ["sda"])
    iso = "<source file='/var/lib/libvirt/images/debian-12.iso'"
    assert canonical(changed) == canonical(text.replace(iso, iso + " startupPolicy='optional'"))


def test_optional_media_keeps_raw_arguments_and_secrets() -> None:
    changed = for_target(recorded("raw-arguments"), ["sda"])
    assert "<qemu:arg value=" in changed
    assert writable_keys(parse(changed), {}) == writable_keys(parse(recorded("raw-arguments")), {})
    assert "s3cret" in for_target(recorded("q35-file"), ["sda"])


@pytest.mark.parametrize("drive", ["vda", "sdb", "nonsense"])
def test_only_media_can_be_optional(drive: str) -> None:
    with pytest.raises(ValueError, match=drive):
        for_target(recorded("q35-file"), [drive])


# -- canonical -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDED)
def test_canonical_is_stable_and_means_the_same(name: str) -> None:
    text = recorded(name)
    assert canonical(canonical(text)) == canonical(text)
    assert parse(canonical(text)) == parse(text)


@given(st.randoms(use_true_random=False))
def test_order_of_different_elements_does_not_matter(shuffler: random.Random) -> None:
    parts = ["<a/>", "<b x='1' y='2'/>", "<memory unit='MiB'>1</memory>", "<name>n</name>"]
    shuffler.shuffle(parts)
    left = canonical(f"<domain>{''.join(parts)}</domain>")
    right = "<domain><!-- c -->\n <name> n </name><memory>1024</memory><b y=\"2\" x='1'></b><a/></domain>"
    assert left == canonical(right)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("<d><disk n='1'/><disk n='2'/></d>", "<d><disk n='2'/><disk n='1'/></d>"),
        ("<d><boot dev='hd'/><boot dev='network'/></d>", "<d><boot dev='network'/><boot dev='hd'/></d>"),
        ("<d><name>a</name></d>", "<d><name>b</name></d>"),
        ("<d><name>&lt;a/&gt;</name></d>", "<d><name><a/></name></d>"),
        ("<d x='1'/>", "<d x='2'/>"),
        ("<metadata><b/><a/></metadata>", "<metadata><a/><b/></metadata>"),
    ],
)
def test_what_counts_makes_a_difference(one: str, two: str) -> None:
    assert canonical(one) != canonical(two)


def test_order_of_cpu_features_does_not_matter() -> None:
    features = ["<feature policy='require' name='vmx'/>", "<feature policy='disable' name='aes'/>"]
    one, two = (f"<cpu>{''.join(order)}</cpu>" for order in (features, features[::-1]))
    assert canonical(one) == canonical(two)


def test_secrets_are_hidden_on_request() -> None:
    assert "s3cret" in canonical(recorded("q35-file"))
    assert "s3cret" not in canonical(recorded("q35-file"), hide_secrets=True)


def test_canonical_of_broken_xml_raises() -> None:
    with pytest.raises(ValueError, match="not well-formed"):
        canonical("<domain>")
