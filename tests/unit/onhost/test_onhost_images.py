"""Paths in definitions, and what lies behind them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.onhost import images, mounts
from tasks.onhost.problem import Problem
from tests.unit.onhost.recorded import recorded

XML = """<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><os>
<loader>/usr/share/OVMF.fd</loader><nvram template='/usr/share/V.fd'>/var/nvram/a_VARS.fd</nvram>
<kernel>/boot/k</kernel><initrd>/boot/i</initrd></os><devices>
<disk type='file'><source file='/vmstorage/a &amp; b.qcow2'/>
<backingStore type='file'><source file='/vmstorage/base'/>
</backingStore><mirror type='file'><source file='/vmstorage/copy'/></mirror></disk>
<disk type='block'><source dev='/dev/vg/lv'/></disk>
<disk type='network'><source protocol='rbd' name='pool/x'/></disk>
<disk type='file' device='cdrom'/><filesystem><source dir='/srv/share'/></filesystem>
<memory model='nvdimm'><source><path>/vmstorage/nv</path></source></memory>
<interface type='direct'><source dev='eth0'/></interface></devices><qemu:commandline>
<qemu:arg value='-drive'/><qemu:arg value='file=/vmstorage/raw,,1,format=raw'/></qemu:commandline>
</domain>"""


def test_paths_named_by_a_definition() -> None:
    assert images.named(XML) == {
        *("/usr/share/OVMF.fd", "/var/nvram/a_VARS.fd", "/boot/k", "/boot/i", "/vmstorage/a & b.qcow2"),
        *(
            "/vmstorage/base",
            "/vmstorage/copy",
            "/dev/vg/lv",
            "/srv/share",
            "/vmstorage/nv",
            "/vmstorage/raw,1",
        ),
    }
    assert images.named(recorded("dumpxml-running.xml")) == {"/vmstorage/2.img"}
    with pytest.raises(Problem):
        images.named("<domain>")


def test_the_same_file_by_several_paths(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    disk = tmp_path / "real" / "grün 1.img"
    disk.write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    other, missing = str(tmp_path / "link" / "grün 1.img"), str(tmp_path / "real" / ".." / "none")
    table = mounts.table()
    found = images.look([str(disk), other, missing], table, mounts.of(str(disk), table))
    assert found[other] == found[str(disk)]
    assert found[other]["ino"] == disk.stat().st_ino
    assert found[missing]["exists"] is False
    assert found[missing]["real"] == str(tmp_path / "none")
    assert all(entry["on_store"] for entry in found.values())
    assert images.look([other], table, None)[other]["on_store"] is False
    assert images.look([], table, None) == {}
