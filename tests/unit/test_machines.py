"""The practice machines without a machine: recipe, sources, package archive, command line, files."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tasks.cluster.inventory import inventory
from tasks.lab.machines import archive, belongings, build, initrd, keyring, mirrors, qemu, recipe, wires
from tasks.lab.problem import LabError, LabRefused

BOOKWORM, TRIXIE = recipe.choose("bookworm"), recipe.choose("trixie")


@pytest.mark.parametrize(
    ("os_release", "name"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME="Debian GNU/Linux 12"\n', "bookworm"),
        ("ID=ubuntu\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble\n", "noble"),
        ('ID=linuxmint\nVERSION_CODENAME="virginia"\nUBUNTU_CODENAME=jammy\n', "jammy"),
    ],
)
def test_the_computers_own_release(os_release: str, name: str) -> None:
    assert recipe.computers(os_release) == recipe.choose(name)


def test_an_unknown_release_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(LabRefused, match="Fedora") as raised:
        recipe.computers('ID=fedora\nPRETTY_NAME="Fedora 40"\n')
    assert "bookworm|trixie" in str(raised.value.hint)
    with pytest.raises(LabRefused, match="'potato'"):
        recipe.choose("potato")


def test_the_kernels_modules_are_a_package_of_their_own_where_the_release_packs_them_so() -> None:
    assert recipe.choose("noble").modules("6.8.0-1-generic") == "linux-modules-extra-6.8.0-1-generic"
    assert recipe.choose("resolute").modules("7.0.0-1-generic") == BOOKWORM.modules("6.1.0-1-amd64") == ""


def test_the_digest_changes_with_release_and_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recipe.digest(BOOKWORM) == recipe.digest(BOOKWORM) != recipe.digest(TRIXIE)
    before = recipe.digest(BOOKWORM)
    here = tmp_path / "machines"
    for name in recipe.MAKERS:
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes((recipe.HERE / name).read_bytes())
    monkeypatch.setattr(recipe, "HERE", here)
    assert recipe.digest(BOOKWORM) == before
    with (here / "files/bare").open("a") as file:
        file.write("# more\n")
    assert recipe.digest(BOOKWORM) != before


TARGETS = """\
Debian|http://mirror.example/debian/|bookworm|main
Debian|http://mirror.example/debian/|bookworm|contrib
Debian|http://mirror.example/debian/|bookworm-updates|main
Debian|http://mirror.example/debian-security/|bookworm-security|main
Debian Backports|http://mirror.example/debian/|bookworm-backports|main
Google|https://packages.example/apt/|bookworm|main
|http://elsewhere.example/|nodistro|main
"""


def test_sources_are_the_computers_own_spelled_for_the_release() -> None:
    assert mirrors.chosen(TARGETS, BOOKWORM) == [
        "http://mirror.example/debian bookworm",
        "http://mirror.example/debian bookworm-updates",
        "http://mirror.example/debian-security bookworm-security",
    ]
    assert mirrors.chosen(TARGETS, TRIXIE)[1] == "http://mirror.example/debian trixie-updates"
    assert mirrors.chosen(TARGETS, recipe.choose("noble")) == []


def test_apts_ways_to_its_archives_are_taken_along() -> None:
    dump = (
        'APT::Architecture "amd64";\nAcquire::http::Proxy "http://proxy.example:3128";\n'
        'Acquire::https "";\nAcquire::https::CaInfo "/etc/ca.pem";\nAcquire::Languages "none";\n'
    )
    assert mirrors.reaches(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::CaInfo "/etc/ca.pem";',
    ]


def ar(*parts: tuple[str, bytes]) -> bytes:
    out = archive.MAGIC
    for name, data in parts:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data
        out += b"\n" * (len(data) % 2)
    return out


def tar(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, text in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text)
            made.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def control_of(name: str) -> str:
    return (
        f"Package: {name}\nVersion: 1:2\nArchitecture: all\nMaintainer: N <n@lab.example>\nDescription: odd\n"
    )


def archive_of(tmp_path: Path, name: str, files: dict[str, str]) -> str:
    """Make an archive of one package; gives its line of sources.list."""
    deb = tmp_path / f"{name}_1%3a2_all.deb"
    packed = ar(
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", gzip.compress(tar({"control": control_of(name)}))),
        ("data.tar.gz", gzip.compress(tar(files))),
    )
    deb.write_bytes(packed)
    archive.make([deb], tmp_path / "archive")
    return f"deb [trusted=yes] file:{tmp_path}/archive ./"


def test_keys_of_another_distribution_come_out_of_their_package(tmp_path: Path) -> None:
    name = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
    source = archive_of(tmp_path, "ubuntu-keyring", {name: "keys"})
    found = keyring.fetch("ubuntu", [source], tmp_path / "keys")
    assert (found.relative_to(tmp_path / "keys"), found.read_text()) == (Path(name), "keys")


@pytest.mark.parametrize(
    ("package", "why"),
    [
        ("odd", "E: Unable to locate package ubuntu-keyring"),
        ("ubuntu-keyring", "the package ubuntu-keyring has no ubuntu-archive-keyring.gpg"),
    ],
)
def test_keys_that_cannot_be_had_are_missed_in_one_sentence(tmp_path: Path, package: str, why: str) -> None:
    source = archive_of(tmp_path, package, {"odd": "1"})
    with pytest.raises(LabRefused, match="keys of Ubuntu's packages") as raised:
        keyring.fetch("ubuntu", [source], tmp_path / "keys")
    assert why in str(raised.value)


def test_keys_come_only_from_an_archive_whose_own_keys_are_here(tmp_path: Path) -> None:
    source = archive_of(tmp_path, "ubuntu-keyring", {"odd": "1"})
    signed = source.replace("trusted=yes", f"signed-by={tmp_path}/missing.gpg")
    with pytest.raises(LabRefused, match="not signed"):
        keyring.fetch("ubuntu", [signed], tmp_path / "keys")


def test_apt_finds_a_package_of_the_archive_and_dpkg_reads_it(tmp_path: Path) -> None:
    source = archive_of(tmp_path, "odd", {"odd": "1"})
    there = tmp_path / "archive/odd_1-2_all.deb"
    assert subprocess.run(["dpkg-deb", "-f", there], capture_output=True, text=True).stdout == control_of(
        "odd"
    )
    listed = subprocess.run(["dpkg-deb", "-c", there], capture_output=True, text=True, check=True).stdout
    assert listed.endswith("./odd\n")
    root = tmp_path / "root"
    for folder in ("etc/apt/apt.conf.d", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "status").touch()
    (root / "etc/apt/sources.list").write_text(f"{source}\n")
    apt = ["-o", f"Dir={root}", "-o", f"Dir::State::status={root}/status", "-o", "APT::Sandbox::User=root"]
    done = subprocess.run(["apt-get", "update", *apt], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    plan = ["apt-get", "install", "--print-uris", "--no-install-recommends", "-y", *apt, "odd"]
    assert "odd_1-2_all.deb" in subprocess.run(plan, capture_output=True, text=True, check=True).stdout


def test_what_is_no_package_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="not a Debian package"):
        archive.plain(b"\x7fELF")
    with pytest.raises(ValueError, match="compression unknown: lz4"):
        archive.plain(ar(("control.tar.lz4", b"")))


def machine(*, kvm: bool) -> qemu.Machine:
    return qemu.Machine(
        "vmhost1", [("lan11", "02:77:00:00:00:0b"), ("san11", "02:77:00:00:01:0b")], 2048, 1, kvm
    )


def test_qemu_gets_two_cards_with_macs_of_their_own_and_a_console_in_a_file() -> None:
    words = " ".join(qemu.command(machine(kvm=False)))
    assert "tap,id=net0,ifname=lan11,script=no,downscript=no" in words
    assert "virtio-net-pci,netdev=net1,mac=02:77:00:00:01:0b,addr=3" in words
    assert "-accel tcg,thread=multi" in words
    assert "file,id=console,path=console.log,append=on" in words
    assert "-no-reboot" not in words
    assert "-accel kvm -cpu host" in " ".join(qemu.command(machine(kvm=True)))


def test_the_cards_are_where_their_names_say() -> None:
    words = qemu.command(machine(kvm=False))
    slots = [word.partition("addr=")[2].partition(",")[0] for word in words if "virtio-net" in word]
    assert [f"enp0s{slot}" for slot in slots] == list(qemu.NICS)


def test_no_two_machines_share_a_mac_address_or_a_tap() -> None:
    numbers = [wires.STORAGE, *range(wires.FIRST_HOST, wires.FIRST_HOST + 8)]
    cables = [cable for number in numbers for cable in wires.cables(number)]
    assert len({tap for tap, _, _ in cables}) == len({mac for _, _, mac in cables}) == 2 * len(numbers)


def test_the_inventory_can_be_read_and_has_what_setup_needs(tmp_path: Path) -> None:
    text = belongings.inventory({"vmhost1": 11, "vmhost2": 12}, wires.STORAGE, kvm=False)
    (tmp_path / "ssh_config").touch()
    found = inventory.understand(text, tmp_path / "hosts.ini")
    assert list(found.hosts) == ["vmhost1", "vmhost2"]
    assert found.hosts["vmhost2"].address == "10.77.0.12"
    assert "vmhost2 ansible_host=10.77.0.12 ansible_user=root vmfab_storage_address=10.77.1.12\n" in text
    assert found.mount == "/vmstorage"
    assert [(one.name, one.mount, one.address) for one in found.stores.values()] == [
        ("vmstorage", "/vmstorage", "10.77.1.10"),
        ("datengrab", "/datengrab", "10.77.1.10"),
    ]


def test_a_machine_knows_the_others_but_not_itself_by_its_address() -> None:
    text = belongings.hosts("vmhost1", {"storage": 10, "vmhost1": 11, "vmhost2": 12})
    assert "127.0.1.1 vmhost1.lab.example vmhost1\n" in text
    assert "10.77.0.12 vmhost2\n" in text
    assert "10.77.0.11" not in text


def test_the_target_asks_for_a_password_only_when_told_to() -> None:
    assert "incominguser" not in belongings.target("vmstorage")
    assert "    incominguser vmfab secret\n" in belongings.target("vmstorage", "vmfab", "secret")


def test_each_store_has_a_target_and_a_disk_of_its_own() -> None:
    files = belongings.exports(8192)
    assert (
        "lab:vmstorage>\n    backing-store /srv/vmstorage.img\n" in files["etc/tgt/conf.d/vmstorage.conf"][1]
    )
    assert (
        "lab:datengrab>\n    backing-store /srv/datengrab.img\n" in files["etc/tgt/conf.d/datengrab.conf"][1]
    )
    made = files["etc/systemd/system/tgt.service.d/luns.conf"][1]
    assert "truncate --size=8192M /srv/vmstorage.img\n" in made
    assert "truncate --size=256M /srv/datengrab.img\n" in made


def test_a_machines_own_part_of_the_initramfs_has_its_files_with_their_modes(tmp_path: Path) -> None:
    part = initrd.personal({"etc/hostname": (0o644, "vmhost1\n"), "root/.ssh/id": (0o600, "key")})
    out = subprocess.run(
        [*(["busybox"] if Path("/bin/busybox").exists() else []), "cpio", "-itv"],
        input=part, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    modes = {line.split()[-1]: line.split()[0] for line in out.splitlines() if "machine" in line}
    assert modes["machine/etc/hostname"] == "-rw-r--r--"
    assert modes["machine/root/.ssh/id"] == "-rw-------"
    assert modes["machine/root/.ssh"] == "drwx------"


def test_images_are_built_once_and_appear_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def make(part: Path, release: recipe.Release, say: object) -> None:
        assert not [path for path in part.parent.iterdir() if path.name.startswith("bookworm")]
        (part / "vmlinuz").touch()
        built.append(part)

    monkeypatch.setattr(build, "_build", make)
    (tmp_path / "machines/part-left").mkdir(parents=True)
    images = build.provide(tmp_path, BOOKWORM, str)
    assert images.kernel.exists()
    assert build.provide(tmp_path, BOOKWORM, str) == images
    assert len(built) == 1
    assert sorted(path.name for path in (tmp_path / "machines").iterdir()) == [images.folder.name, "lock"]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(part: Path, release: recipe.Release, say: object) -> None:
        (part / "tree").mkdir()
        raise LabError("no archive")

    monkeypatch.setattr(build, "_build", fail)
    with pytest.raises(LabError, match="no archive"):
        build.provide(tmp_path, BOOKWORM, str)
    assert [path.name for path in (tmp_path / "machines").iterdir()] == ["lock"]


def test_images_of_an_older_recipe_go_when_nobody_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "_build", lambda part, release, say: None)
    for name, days in (("bookworm-old", 2), ("bookworm-new", 0), ("trixie-old", 2)):
        folder = tmp_path / "machines" / name
        folder.mkdir(parents=True)
        then = time.time() - days * 24 * 3600 - 60
        os.utime(folder, (then, then))
    images = build.provide(tmp_path, BOOKWORM, str)
    left = {path.name for path in (tmp_path / "machines").iterdir()}
    assert left == {"lock", "bookworm-new", "trixie-old", images.folder.name}
