"""The rendered hook, run as libvirt runs it, on hosts with a common store."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import pytest

from tasks.cluster import domainxml
from tasks.cluster.model import FileId
from tests.lab.guard.hooks import HookCluster, HookHost, disk, domain
from tests.unit.onhost.fakes import fake_qemu


def qcow2(backing: str = "", data_file: str = "") -> bytes:
    """The header of a qcow2 image, version 3."""
    extension = b""
    if data_file:
        name = data_file.encode()
        extension = struct.pack(">II", 0x44415441, len(name)) + name + b"\0" * (-len(name) % 8)
    extension += struct.pack(">II", 0, 0)
    at = 104 + len(extension) if backing else 0
    fields = struct.pack(
        ">4sIQIIQIIQQIIQQQQII",
        *(b"QFI\xfb", 3, at, len(backing), 16, 1 << 20, 0, 0, 0, 0, 0, 0, 0),
        *(4 if data_file else 0, 0, 0, 4, 104),
    )
    return fields + extension + backing.encode()


# one VM


def test_a_start_claims_and_an_end_gives_back(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    before = time.time()
    assert one.start(xml) == ""
    record = cluster.owners()["web.img"]
    assert before - 1 < record.pop("time") <= time.time()
    uuid = domainxml.parse(xml).uuid
    inode = (cluster.store / "web.img").stat().st_ino
    assert record == {
        "image": f"store:{inode}",
        "path": str(cluster.mount / "web.img"),
        "host": "vmhost1",
        "vm": "web",
        "uuid": uuid,
        "boot_id": one.boot_id,
    }
    assert one.list == ["web"]
    refusal = two.start(xml)
    assert refusal.startswith("vmfab guard on vmhost2: web is not started: its image ")
    assert f"web.img is owned by vmhost1 (VM web, UUID {uuid}, since " in refusal
    assert cluster.owner("web.img") == "vmhost1"
    assert (one.list, two.list) == (["web"], [])
    one.stop(xml)
    assert cluster.owners() == {}
    assert one.list == []
    assert two.start(xml) == ""
    assert cluster.owner("web.img") == "vmhost2"


def test_a_refusal_is_logged_on_the_store_and_in_syslog(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    refusal = two.start(xml)
    (line,) = cluster.log
    why = refusal.partition("is not started: ")[2]
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+\d{4} vmhost2 refused web \(.*\): " + re.escape(why), line
    )
    assert "vmfab-guard: " + refusal in two.syslog
    assert one.syslog == ""


def test_other_calls_do_nothing(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    for operation in ("start", "stopped", "restore", "attach", "something-new"):
        done = one.call(operation, xml)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (cluster.store / ".vmfab").exists()


@pytest.mark.parametrize(
    "xml", ["", "<domain>", "<network><name>x</name></network>", "<domain><name>x</name></domain>"]
)
def test_what_is_not_understood_is_not_started_and_never_ends_a_vm(one: HookHost, xml: str) -> None:
    done = one.call("prepare", xml)
    assert (done.returncode, done.stdout) == (1, "")
    assert "its definition is not understood" in done.stderr
    for operation in ("migrate", "started", "reconnect", "stopped", "release"):
        done = one.call(operation, xml)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# the store


def test_without_the_mount_nothing_starts(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    local = domain(str(one.disk / "qemu"))
    one.sh('umount "$1"; : >"$1/web.img"', cluster.mount)
    for refused in (xml, local):
        assert one.start(refused).endswith(f"{cluster.mount} is not mounted")
    assert one.sh('ls -A "$1"', cluster.mount) == "web.img\n"
    assert one.start(domain(name="diskless")) == ""


def test_a_read_only_store_refuses(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.sh('mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"', cluster.mount)
    assert one.start(xml).endswith("is read-only")
    assert cluster.owners() == {}


def test_a_full_store_refuses_and_leaves_nothing_half(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(*(cluster.image(f"{n}.img") for n in range(3)))
    assert one.start(xml) == ""
    one.stop(xml)
    fill = cluster.store / "fill"
    space = os.statvfs(cluster.store)
    # Two blocks stay: enough for the first owner file, not for the third.
    with fill.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (space.f_bavail - 2) * space.f_bsize)
    assert one.start(xml).endswith("is full")
    assert cluster.owners() == {}
    fill.unlink()
    assert one.start(xml) == ""


def test_a_store_that_does_not_answer_refuses_in_time(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    slow = cluster.host("vmhost2", deadline=1)
    one.start(xml)
    with (cluster.store / ".vmfab/locks/owners").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begin = time.monotonic()
        assert slow.call("prepare", xml).stderr.endswith("does not answer within 1 s\n")
        assert slow.call("release", xml).returncode == 0
        assert time.monotonic() - begin < 20
    assert slow.syslog.count("does not answer within 1 s") == 2
    assert cluster.owner("web.img") == "vmhost1"
    slow.render(20)
    assert slow.start(domain(cluster.image("other.img"), name="other")) == ""


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"host": 1}', "not json"])
def test_an_owner_file_that_is_not_understood_refuses(cluster: HookCluster, one: HookHost, text: str) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    (file,) = (cluster.store / ".vmfab/owners").iterdir()
    file.write_text(text)
    assert "is not understood" in one.start(xml)
    assert file.read_text() == text
    # It holds up nobody else.
    other = domain(cluster.image("other.img"), name="other")
    assert one.start(other) == ""
    one.stop(other)
    assert list((cluster.store / ".vmfab/owners").iterdir()) == [file]


# what an image is


def test_the_same_image_by_any_name(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    image = cluster.image("web.img")
    one.start(domain(image))
    (cluster.store / "link").symlink_to("web.img")
    (cluster.store / "hard").hardlink_to(cluster.store / "web.img")
    (cluster.store / "folder").mkdir()
    two.sh(
        'mkdir "$1"; mount --bind "$2" "$1"; : >"$1.file"; mount --bind "$3" "$1.file"',
        two.disk / "m",
        cluster.mount,
        image,
    )
    spellings = [
        f"{cluster.mount}/link",
        f"{cluster.mount}/hard",
        f"{cluster.mount}/folder/../web.img",
        f"{cluster.mount}//web.img",
        f"{two.disk}/m/web.img",
        f"{two.disk}/m.file",
    ]
    for path in spellings:
        refusal = two.start(domain(path, name="copy"))
        assert f"its image {path} is owned by vmhost1 (VM web" in refusal
    for xml in (
        domain(more="<os><nvram>" + spellings[0] + "</nvram></os>", name="copy"),
        domain(f"<memory model='nvdimm'><source><path>{spellings[0]}</path></source></memory>", name="copy"),
        domain(
            name="copy",
            more=f"<qemu:commandline><qemu:arg value='file={spellings[0]},if=virtio'/></qemu:commandline>",
        ),
    ):
        assert "is owned by vmhost1" in two.start(xml)
    # On the same host another VM is kept away as well.
    assert "is owned by vmhost1 (VM web" in one.start(domain(spellings[0], name="copy"))
    assert cluster.owner("web.img") == "vmhost1"


def test_what_is_only_read_or_shared_is_free(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    image = cluster.image("disk.img")
    own = cluster.image("own.img")
    for host, name in ((one, "a"), (two, "b")):
        xml = domain(
            disk(image, "<readonly/>"),
            disk(image, "<shareable/>"),
            disk(image, device="cdrom"),
            disk(image, "<transient shareBacking='yes'/>"),
            "<disk type='file' device='cdrom'><target dev='hdc'/></disk>",
            name=name,
        )
        assert host.start(xml) == ""
    assert cluster.owners() == {}
    assert one.start(domain(own)) == ""


def test_network_disks(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    def net(protocol: str, name: str, *hosts: str) -> str:
        servers = "".join(f"<host name='{h}' port='1'/>" for h in hosts)
        source = f"<source protocol='{protocol}' name='{name}'>{servers}</source>"
        return f"<disk type='network' device='disk'>{source}<target dev='vda'/></disk>"

    assert one.start(domain(net("rbd", "pool/web", "m1"), net("nbd", "x", "s1"))) == ""
    assert "owned by vmhost1" in two.start(domain(net("rbd", "pool/web", "m2"), name="b"))
    assert "owned by vmhost1" in two.start(domain(net("nbd", "x", "s1"), name="b"))
    assert two.start(domain(net("rbd", "pool/other", "m1"), net("nbd", "x", "s2"), name="b")) == ""


def test_block_devices_are_known_by_their_serial(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    for host, minor in ((one, 7), (two, 9)):
        node = host.disk / "lun"
        os.mknod(node, 0o60600, os.makedev(240, minor))
        host.sh('mkdir -p /run/udev/data; echo "E:ID_SERIAL=36001405" >"/run/udev/data/b240:$1"', minor)
    assert one.start(domain(disk(str(one.disk / "lun"), kind="block"))) == ""
    (record,) = cluster.owners().values()
    assert record["image"] == "block:wwid:36001405"
    assert "owned by vmhost1" in two.start(domain(disk(str(two.disk / "lun"), kind="block"), name="b"))


def test_volumes_of_a_pool_are_the_files_that_they_are(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    image = cluster.image("web.img")
    pool = f"<pool type='dir'><name>p</name><target><path>{cluster.mount}</path></target></pool>"
    one.sh('mkdir -p /run/libvirt/storage; echo "$1" >/run/libvirt/storage/p.xml', pool)
    volume = "<disk type='volume' device='disk'><source pool='p' volume='web.img'/><target dev='vda'/></disk>"
    assert one.start(domain(volume)) == ""
    assert "owned by vmhost1" in two.start(domain(image, name="b"))


def test_local_images_are_each_hosts_own(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    paths = [host.disk / "local.img" for host in (one, two)]
    for path in paths:
        path.write_text("")
    (two.disk / "same.img").hardlink_to(paths[0])
    assert one.start(domain(str(paths[0]))) == ""
    assert "owned by vmhost1" in one.start(domain(str(paths[0]), name="b"))
    assert two.start(domain(str(two.disk / "same.img"), name="c")) == ""


def test_a_missing_image_refuses(cluster: HookCluster, one: HookHost) -> None:
    assert one.start(domain(f"{cluster.mount}/no.img")).endswith("no.img is not there")
    nvram = f"<os><nvram>{cluster.mount}/new_VARS.fd</nvram></os>"
    assert one.start(domain(cluster.image("web.img"), more=nvram)) == ""


def test_keys_are_those_of_the_planner(cluster: HookCluster, one: HookHost) -> None:
    """The laptop's idea of an image and the hook's are one, else an audit would compare words."""
    image, local = cluster.image("web.img"), one.disk / "local.img"
    local.write_text("")
    xml = domain(
        image,
        disk(str(local)),
        "<disk type='network' device='disk'><source protocol='rbd' name='p/x'><host name='m'/></source>"
        "</disk>",
        "<disk type='network' device='disk'><source protocol='nbd' name='x'><host name='m' port='1'/>"
        "<host transport='unix' socket='/s'/></source></disk>",
        "<disk type='volume' device='disk'><source pool='q' volume='v'/></disk>",
    )
    found = local.stat()
    files = {
        image: FileId(image, image, True, True, f"store:{(cluster.store / 'web.img').stat().st_ino}"),
        str(local): FileId(str(local), str(local), True, False, f"vmhost1:{found.st_dev}:{found.st_ino}"),
    }
    assert one.start(xml) == ""
    owned = {record["image"] for record in cluster.owners().values()}
    assert owned == domainxml.writable_keys(domainxml.parse(xml), files)


# overlays


def test_a_base_may_be_read_by_many_and_written_by_none(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    base = cluster.image("base.img")
    overlays = {}
    for name in ("a", "b"):
        middle = cluster.image(f"{name}-mid.qcow2", qcow2("base.img"))
        overlays[name] = domain(
            disk(cluster.image(f"{name}.qcow2", qcow2(middle)), driver="qcow2"), name=name
        )
    golden = domain(base, name="golden")
    assert one.start(golden) == ""
    assert "base.img is owned by vmhost1 (VM golden" in two.start(overlays["a"])
    one.stop(golden)
    assert two.start(overlays["a"]) == ""
    assert one.start(overlays["b"]) == ""
    refusal = one.start(golden)
    assert "its image " + base + " is the base of vmhost2 (VM a" in refusal
    two.stop(overlays["a"])
    assert "is the base of vmhost1 (VM b" in one.start(golden)
    one.stop(overlays["b"])
    assert one.start(golden) == ""
    assert list((cluster.store / ".vmfab/bases").iterdir()) == []


def test_a_base_named_in_the_definition_counts(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    base = cluster.image("base.img")
    backing = f"<backingStore type='file'><format type='raw'/><source file='{base}'/></backingStore>"
    one.start(domain(base, name="golden"))
    assert "owned by vmhost1" in two.start(domain(disk(cluster.image("a.img"), backing)))


@pytest.mark.parametrize(
    "name",
    ["base.img", "file:base.img", 'json:{"driver":"raw","file":{"driver":"file","filename":"base.img"}}'],
)
def test_spellings_of_a_backing_file(cluster: HookCluster, one: HookHost, two: HookHost, name: str) -> None:
    one.start(domain(cluster.image("base.img"), name="golden"))
    overlay = disk(cluster.image("a.qcow2", qcow2(name)), driver="qcow2")
    assert "owned by vmhost1 (VM golden" in two.start(domain(overlay))


def test_odd_chains(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    ring = domain(disk(cluster.image("ring.qcow2", qcow2("ring.qcow2")), driver="qcow2"))
    assert one.start(ring).endswith("have no end")
    gone = domain(disk(cluster.image("gone.qcow2", qcow2("gone.img")), driver="qcow2"))
    assert one.start(gone).endswith("gone.img is not there")
    # A raw disk may hold whatever its guest wrote into it.
    assert one.start(domain(cluster.image("raw.img", qcow2("gone.img")), name="raw")) == ""
    data = cluster.image("data.raw")
    split = disk(cluster.image("split.qcow2", qcow2(data_file="data.raw")), driver="qcow2")
    assert one.start(domain(split, name="split")) == ""
    assert "owned by vmhost1 (VM split" in two.start(domain(data, name="thief"))


# crashes


def test_after_a_crash_only_the_same_host_starts_it_again(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    one.boot()
    assert one.list == ["web"]
    assert "owned by vmhost1" in two.start(xml)
    assert one.start(xml) == ""
    assert cluster.owners()["web.img"]["boot_id"] == one.boot_id
    one.boot()
    # Nothing of the last boot runs here any more, whatever it was called.
    assert one.start(domain(f"{cluster.mount}/web.img", name="successor")) == ""


def test_a_release_gives_back_only_what_is_its_own(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    two.stop(xml)
    one.stop(domain(f"{cluster.mount}/web.img", name="copy"))
    assert cluster.owner("web.img") == "vmhost1"
    one.boot()
    one.stop(xml)
    assert cluster.owner("web.img") == "vmhost1"


def test_a_process_that_lives_keeps_its_images(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    """libvirt has lost track of it: neither a start nor its failure may let anybody else in."""
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    lost = fake_qemu(domainxml.parse(xml).uuid)
    try:
        assert one.start(xml).endswith(f"its process {lost.pid} is still alive here")
        assert "stay owned by vmhost1" in one.syslog
        assert cluster.owner("web.img") == "vmhost1"
        assert "owned by vmhost1" in two.start(xml)
    finally:
        lost.kill()
        lost.wait()
        if lost.stdout:
            lost.stdout.close()
    assert one.start(xml) == ""


def test_all_images_or_none(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    one.start(domain(cluster.image("b.img"), name="b"))
    many = domain(cluster.image("a.img"), f"{cluster.mount}/b.img", cluster.image("c.img"))
    assert "b.img is owned" in two.start(many)
    assert list(cluster.owners()) == ["b.img"]


# live migration


def test_a_live_migration_hands_over(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    three = cluster.host("vmhost3")
    one.start(xml)
    assert two.arrive(xml) == ""
    assert cluster.owner("web.img") == "vmhost1>vmhost2"
    assert "being migrated to vmhost2" in three.start(xml)
    assert "being migrated to vmhost2" in three.arrive(xml)
    assert "being migrated to vmhost2" in two.start(xml)
    assert (
        cluster.owner("web.img") == "vmhost1"
    )  # that refused start looked like giving up: back to the source
    assert two.arrive(xml) == ""
    one.stop(xml)
    assert cluster.owner("web.img") == "vmhost2"
    assert (one.list, two.list) == ([], ["web"])
    assert cluster.owners()["web.img"]["boot_id"] == two.boot_id
    assert "owned by vmhost2" in one.start(xml)
    two.stop(xml)
    assert cluster.owners() == {}


def test_a_destination_that_gives_up_returns_it(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    assert two.arrive(xml) == ""
    two.stop(xml)
    assert cluster.owner("web.img") == "vmhost1"
    assert (one.list, two.list) == (["web"], [])
    assert two.arrive(xml) == ""
    one.stop(xml)
    assert cluster.owner("web.img") == "vmhost2"


def test_only_an_announced_arrival_is_one(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    # Announced, but prepared by another request: somebody typed a start meanwhile.
    two.call("migrate", xml)
    refusals: list[str] = []
    thread = threading.Thread(target=lambda: refusals.append(two.start(xml)))
    thread.start()
    thread.join()
    assert "owned by vmhost1" in refusals[0]
    # The announcement is used up by that.
    assert "owned by vmhost1" in two.start(xml)
    # Announced for another VM.
    two.call("migrate", domain(f"{cluster.mount}/web.img", name="copy"))
    assert "owned by vmhost1" in two.start(xml)
    # Announced too long ago.
    two.call("migrate", xml)
    note = ElementTree.fromstring(xml).findtext("uuid")
    two.sh(
        'cd /run/vmfab/arriving; read -r at rest <"$1" || :; '
        'echo "$(awk "BEGIN {print $at - 16}") $rest" >"$1"',
        note,
    )
    assert "owned by vmhost1" in two.start(xml)
    # An image of another VM is not let go by anybody's migration.
    copy = domain(f"{cluster.mount}/web.img", name="copy")
    assert "owned by vmhost1" in two.arrive(copy)
    assert cluster.owner("web.img") == "vmhost1"


def test_the_source_dies_in_a_migration(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    two.arrive(xml)
    one.boot()
    # It may have arrived: only the destination's end tells.
    assert "being migrated to vmhost2" in one.start(xml)
    two.stop(xml)
    assert cluster.owner("web.img") == "vmhost1"
    assert one.start(xml) == ""


def test_overlays_migrate_with_their_bases(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    cluster.image("base.img")
    xml = domain(disk(cluster.image("web.qcow2", qcow2("base.img")), driver="qcow2"))
    one.start(xml)
    assert two.arrive(xml) == ""
    one.stop(xml)
    assert "is the base of vmhost2" in one.start(domain(f"{cluster.mount}/base.img", name="golden"))
    two.stop(xml)
    assert one.start(domain(f"{cluster.mount}/base.img", name="golden")) == ""


# the list of running VMs


def test_the_list_keeps_its_other_lines(cluster: HookCluster, one: HookHost) -> None:
    path = one.disk / "root/running_vms"
    path.write_bytes(b"mail\r\n\nweb\r\nlast")
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    assert path.read_bytes() == b"mail\r\n\nweb\r\nlast"
    one.stop(xml)
    assert path.read_bytes() == b"mail\r\n\nlast"
    one.start(xml)
    assert path.read_bytes() == b"mail\r\n\nlast\nweb\n"
    assert path.stat().st_mode & 0o777 == 0o600
    one.start(domain(cluster.image("ü.img"), name="Büro Süd"))
    assert one.list[-1] == "Büro Süd"


def test_a_start_that_fails_leaves_the_list_alone(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    path = two.disk / "root/running_vms"
    path.write_text("web\n")
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    assert two.start(xml) != ""
    one.stop(xml)
    # QEMU fails after the claim.
    assert two.call("prepare", xml).returncode == 0
    two.stop(xml)
    assert path.read_text() == "web\n"
    assert cluster.owners() == {}


def test_a_host_that_goes_down_keeps_its_list(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    one.sh(": >/run/vmfab/stopping")
    one.stop(xml)
    assert one.list == ["web"]
    assert cluster.owners() == {}


def test_reconnect_notes_the_vm_and_never_fails(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    assert one.call("reconnect", xml).returncode == 0
    assert one.list == ["web"]
    one.sh('umount "$1"', cluster.mount)
    (one.disk / "root/running_vms").unlink()
    (one.disk / "root").rmdir()
    assert one.call("reconnect", xml).returncode == 0
    assert "reconnect was not noted" in one.syslog


# adoption


def test_look_and_claim(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    (found,) = json.loads(one.call("vmfab-look", xml).stdout)
    assert (found["path"], found["base"], found["owner"]) == (f"{cluster.mount}/web.img", False, None)
    assert not (cluster.store / ".vmfab").exists()
    ended = one.call("vmfab-claim", xml, "{}")
    assert (ended.returncode, cluster.owners()) == (1, {})
    assert "does not run here any more" in ended.stderr
    process = fake_qemu(domainxml.parse(xml).uuid)
    try:
        assert one.call("vmfab-claim", xml, "{}").returncode == 0
        assert (cluster.owner("web.img"), one.list) == ("vmhost1", ["web"])
        refused = two.call("vmfab-claim", xml, "{}")
        assert refused.returncode == 1
        assert "owned by vmhost1" in refused.stderr
        (found,) = json.loads(two.call("vmfab-look", xml).stdout)
        stale = json.dumps({found["image"]: found["owner"]})
        assert two.call("vmfab-claim", xml, stale).returncode == 0
        assert cluster.owner("web.img") == "vmhost2"
        # What has changed since it was looked at is not replaced.
        assert one.call("vmfab-claim", xml, stale).returncode == 1
        assert cluster.owner("web.img") == "vmhost2"
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def test_forget_gives_back_all_that_is_a_hosts_own(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    cluster.image("base.img")
    overlay = disk(cluster.image("a.qcow2", qcow2("base.img")), driver="qcow2")
    one.start(domain(overlay, name="a"))
    two.start(domain(cluster.image("b.img"), name="b"))
    web = domain(cluster.image("web.img"))
    one.start(web)
    two.arrive(web)
    done = one.call("vmfab-forget", "")
    assert done.returncode == 1
    assert "VM web is being migrated from vmhost1 to vmhost2" in done.stderr
    two.stop(web)
    assert one.call("vmfab-forget", "").returncode == 0
    assert {name: cluster.owner(name) for name in cluster.owners()} == {"b.img": "vmhost2"}
    assert list((cluster.store / ".vmfab/bases").iterdir()) == []


# many at once


def test_of_many_starts_at_once_exactly_one_wins(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    hosts = [one, two, cluster.host("vmhost3"), cluster.host("vmhost4")]
    image = cluster.image("web.img")
    (cluster.store / "link").symlink_to("web.img")
    paths = [image, f"{cluster.mount}/link", f"{cluster.mount}/./web.img"]
    for number in range(3):
        tries = [
            (host, domain(paths[n % 3], name=f"vm{n % 2}-{h}"))
            for n in range(4)
            for h, host in enumerate(hosts)
        ]
        random.Random(number).shuffle(tries)
        with ThreadPoolExecutor(len(tries)) as pool:
            results = list(pool.map(lambda t: t[0].call("prepare", t[1]), tries))
        winners = [t for t, done in zip(tries, results, strict=True) if done.returncode == 0]
        # libvirt itself lets only one start of a VM begin on a host: the same one again is no second.
        assert len({(host.name, domainxml.parse(xml).uuid) for host, xml in winners}) == 1
        assert cluster.owner("web.img" if "web.img" in cluster.owners() else "link") == winners[0][0].name
        winners[0][0].call("release", winners[0][1])
        assert cluster.owners() == {}


class Run:
    """What a random story has running: {vm: host}, and migrations under way {vm: (source, destination)}."""

    def __init__(self) -> None:
        self.running: dict[str, HookHost] = {}
        self.moving: dict[str, HookHost] = {}


@pytest.mark.parametrize("seed", range(4))
def test_random_stories_keep_the_law(cluster: HookCluster, one: HookHost, two: HookHost, seed: int) -> None:
    """Whatever is typed and whatever breaks, an image has one writer, and a VM at rest can be started."""
    dice = random.Random(seed)
    hosts = [one, two, cluster.host("vmhost3")]
    images = [cluster.image(f"{n}.img") for n in range(3)]
    # vm0 and copy share an image, vm1 and vm2 one of two.
    vms = {
        "vm0": domain(images[0], name="vm0"),
        "copy": domain(images[0], name="copy"),
        "vm1": domain(images[1], images[2], name="vm1"),
        "vm2": domain(images[2], name="vm2"),
    }
    uses = {"vm0": {0}, "copy": {0}, "vm1": {1, 2}, "vm2": {2}}
    run = Run()

    def busy(vm: str) -> bool:
        return any(uses[vm] & uses[other] for other in run.running)

    for _ in range(40):
        vm, host = dice.choice(list(vms)), dice.choice(hosts)
        xml = vms[vm]
        where, to = run.running.get(vm), run.moving.get(vm)
        match dice.choice(("start", "start", "stop", "migrate", "arrived", "gave up", "power")):
            case "start" if where is not host and to is not host:
                free = not busy(vm)
                said = host.start(xml)
                if not said:
                    assert free, (
                        f"{vm} started on {host.name} beside {[(v, h.name) for v, h in run.running.items()]}"
                    )
                    run.running[vm] = host
            case "stop" if where is not None and to is None:
                where.stop(xml)
                del run.running[vm]
            case "migrate" if where is not None and to is None and where is not host:
                assert host.arrive(xml) == ""
                run.moving[vm] = host
            case "arrived" if where is not None and to is not None:
                run.running[vm] = run.moving.pop(vm)
                where.stop(xml)
            case "gave up" if to is not None:
                to.stop(xml)
                del run.moving[vm]
            case "power":
                # Not in the middle of a migration: that leaves it open where the VM is, see above.
                if host in run.moving.values() or any(run.running[v] is host for v in run.moving):
                    continue
                host.boot()
                run.running = {v: h for v, h in run.running.items() if h is not host}
        for name, place in run.running.items():
            for number in uses[name]:
                there = f">{run.moving[name].name}" if name in run.moving else ""
                assert cluster.owner(f"{number}.img") == place.name + there
    for vm in list(run.moving):
        run.moving.pop(vm).stop(vms[vm])
    for vm, place in list(run.running.items()):
        place.stop(vms[vm])
    for host in hosts:
        host.boot()
    # Each image is free or names a host, and that host may start its VM.
    for record in cluster.owners().values():
        host = next(h for h in hosts if h.name == record["host"])
        assert host.start(vms[record["vm"]]) == ""
        host.stop(vms[record["vm"]])
    assert cluster.owners() == {}
