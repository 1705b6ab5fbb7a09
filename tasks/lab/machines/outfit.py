"""Give practice machines what makes each of them the one it is, and the laptop what it must know."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from tasks.lab.machines import belongings, initrd, qemu, wires
from tasks.lab.machines.build import Images
from tasks.lab.namespaces import run

STORAGE = "storage"
#: So many hosts at most: each knows all of them from the beginning, those made later too.
MOST = 8


def everybody() -> dict[str, int]:
    """Return the last byte of the addresses of all machines that there may be."""
    hosts = {f"vmhost{number + 1}": wires.FIRST_HOST + number for number in range(MOST)}
    return {STORAGE: wires.STORAGE, **hosts}


def make_keys(keys: Path) -> None:
    """Make the lab's key pair and those of all machines, where they are missing."""
    for name in ("id_ed25519", *(f"{machine}_host_key" for machine in everybody())):
        if not (keys / name).exists():
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vmfab-lab {name}"]
            run([*words, "-f", str(keys / name)])


def known_hosts(keys: Path) -> str:
    """Return the text of known_hosts."""
    lines = []
    for name, number in everybody().items():
        kind, key = (keys / f"{name}_host_key.pub").read_text(encoding="ascii").split()[:2]
        lines.append(f"{name},{wires.lan(number)} {kind} {key}\n")
    return "".join(lines)


def write_laptop_files(root: Path, numbers: Mapping[str, int], *, kvm: bool) -> None:
    """Write hosts.ini, ssh_config, the key and known_hosts for these machines."""
    key, known = root / "id_ed25519", root / "known_hosts"
    key.touch(mode=0o600)
    shutil.copyfile(root / "keys/id_ed25519", key)
    known.write_text(known_hosts(root / "keys"), encoding="ascii")
    hosts = {name: number for name, number in numbers.items() if name != STORAGE}
    (root / "hosts.ini").write_text(belongings.inventory(hosts, numbers[STORAGE], kvm=kvm), encoding="ascii")
    blocks = [f"Host {name}\n    HostName {wires.lan(number)}\n" for name, number in numbers.items()]
    common = "\n    ".join([
        f"Host vmhost* {STORAGE} 10.77.0.*", "User root", f'IdentityFile "{key}"', "IdentitiesOnly yes",
        f'UserKnownHostsFile "{known}"', "StrictHostKeyChecking yes", "ConnectTimeout 20", "LogLevel ERROR\n",
    ])  # fmt: skip
    (root / "ssh_config").write_text("".join(blocks) + common, encoding="utf-8")


def make_machine(root: Path, name: str, images: Images, store_mib: int) -> None:
    """Make a machine's folder below `root`; an existing one stays as it is."""
    folder, keys = root / "machines" / name, root / "keys"
    if folder.exists():
        return
    part = folder.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    texts = [
        (keys / file).read_text(encoding="ascii")
        for file in ("id_ed25519", "id_ed25519.pub", f"{name}_host_key", f"{name}_host_key.pub")
    ]
    files = belongings.common(name, everybody(), uuid.uuid4().hex, belongings.Keys(*texts), known_hosts(keys))
    if name == STORAGE:
        files = {**belongings.exports(store_mib), **files}
    (part / qemu.INITRD).write_bytes(images.initrd.read_bytes() + initrd.personal(files))
    link(str(images.kernel), str(part / qemu.KERNEL))
    disk = images.storage if name == STORAGE else images.host
    backing = ["-F", "raw", "-b", f"../base/{disk.name}"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(part / qemu.DISK)])
    part.rename(folder)


def link(source: str, target: str) -> str:
    """Give a file a second name, or a pointer to it where the disk is another one."""
    try:
        os.link(source, target)
    except OSError:
        Path(target).symlink_to(source)
    return target
