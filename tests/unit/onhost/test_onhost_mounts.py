"""What is mounted where, and which files lie on a mount."""

from __future__ import annotations

from tasks.onhost import mounts

TABLE = mounts.parse(
    "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "60 21 8:16 / /vmstorage rw,noatime shared:30 - ocfs2 /dev/sdb rw,heartbeat=local\n"
    "61 21 254:0 /srv/store /lab\\040store rw - ext4 /dev/vda rw\n"
    "62 21 0:50 / /auto rw - autofs systemd-1 rw\n"
    "63 60 0:51 / /vmstorage/iso ro - nfs4 nas:/iso rw\n"
    "64 21 8:16 /images /mnt/images rw - ocfs2 /dev/sdb rw\n"
    "65 21 8:17 / /frozen rw - ocfs2 /dev/sdc ro,errors=remount-ro\n"
)


def test_only_the_mount_point_itself_is_mounted() -> None:
    found = mounts.at("/vmstorage", TABLE)
    assert found is not None
    assert (found.fstype, found.source, found.read_only) == ("ocfs2", "/dev/sdb", False)
    assert mounts.at("/vmstorage/images", TABLE) is None
    assert mounts.at("/auto", TABLE) is None


def test_a_file_system_that_went_read_only() -> None:
    found = mounts.at("/frozen", TABLE)
    assert found is not None
    assert found.read_only


def test_the_mount_of_a_path() -> None:
    points = {
        p: getattr(mounts.of(p, TABLE), "point", None)
        for p in ("/vmstorage/a", "/vmstorage2", "/vmstorage/iso/x")
    }
    assert points == {"/vmstorage/a": "/vmstorage", "/vmstorage2": "/", "/vmstorage/iso/x": "/vmstorage/iso"}


def on(point: str, path: str) -> bool:
    store = mounts.at(point, TABLE)
    assert store is not None
    return store.holds(mounts.of(path, TABLE), path)


def test_files_on_the_store() -> None:
    assert on("/vmstorage", "/vmstorage/web.img")
    assert on("/vmstorage", "/mnt/images/web.img")  # the same file system, mounted a second time
    assert not on("/vmstorage", "/var/lib/libvirt/images/web.img")
    assert not on("/vmstorage", "/vmstorage/iso/debian.iso")  # another file system within


def test_a_folder_that_is_mounted_as_the_store_is_not_its_whole_file_system() -> None:
    assert on("/lab store", "/lab store/web.img")
    assert on("/lab store", "/srv/store/web.img")
    assert not on("/lab store", "/srv/other/web.img")
    assert not on("/lab store", "/srv/store2/web.img")
