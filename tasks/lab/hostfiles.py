"""The files on a practice host's own disk: accounts, keys, sshd's and libvirt's settings."""

from __future__ import annotations

import os
import secrets
import shutil
import uuid
from pathlib import Path

# From the machine, where it has them: what programs need to run, and no secrets.
COPIED = (
    "alternatives", "bash.bashrc", "debian_version", "dpkg", "inputrc", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "login.defs", "lsb-release", "nsswitch.conf", "os-release", "pam.conf",
    "pam.d", "profile", "protocols", "python3", "security", "services", "terminfo", "timezone",
)  # fmt: skip
ACCOUNTS = (
    "root:0:0:/root:/bin/bash",
    "daemon:1:1:/usr/sbin:/usr/sbin/nologin",
    "sshd:101:65534:/run/sshd:/usr/sbin/nologin",
    "libvirt-qemu:64055:106:/var/lib/libvirt:/usr/sbin/nologin",
    "ops:1000:1000:/home/ops:/bin/bash",
    "nobody:65534:65534:/nonexistent:/usr/sbin/nologin",
)
GROUPS = {
    "root": 0, "daemon": 1, "adm": 4, "tty": 5, "disk": 6, "sudo": 27, "shadow": 42, "utmp": 43, "kvm": 106,
    "ops": 1000, "libvirt-qemu": 64055, "nogroup": 65534,
}  # fmt: skip

SSHD_CONFIG = """\
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100
Subsystem sftp internal-sftp
"""
QEMU_CONF = """\
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
migration_host = "{address}"
"""
LIBVIRTD_CONF = """\
host_uuid = "{host_uuid}"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
auth_unix_ro = "none"
auth_unix_rw = "none"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""


def hosts_file(addresses: dict[str, str]) -> str:
    """Return the text of /etc/hosts."""
    return "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())


def write(disk: Path, name: str, addresses: dict[str, str], keys: Path, known_hosts: str) -> None:
    """Make the disk of a new host, which knows the others and may log in on them as root.

    `keys` holds the lab's key pair id_ed25519 and the host's own, NAME_host_key.
    """
    etc = disk / "etc"
    for folder in (
        "etc/libvirt/hooks", "etc/ssh", "etc/cron.d", "etc/sudoers.d", "var/lib/libvirt",
        "var/log/libvirt/qemu", "var/cache/libvirt/qemu", "var/spool/cron/crontabs", "var/tmp", "root/.ssh",
        "home/ops/.ssh", "usr", "usr-local/bin", "usr-local/sbin", "usr-local/lib", "mnt", "srv", "opt",
    ):  # fmt: skip
        (disk / folder).mkdir(parents=True, exist_ok=True)
    for entry in COPIED:
        source = Path("/etc", entry)
        if source.is_dir():
            shutil.copytree(
                source, etc / entry, symlinks=True, ignore_dangling_symlinks=True, dirs_exist_ok=True
            )
        elif source.exists() or source.is_symlink():
            shutil.copy2(source, etc / entry, follow_symlinks=False)
    _accounts(etc)
    (disk / "var/run").symlink_to("/run")
    (disk / "var/lock").symlink_to("/run/lock")
    (etc / "mtab").symlink_to("/proc/self/mounts")
    texts = {
        "hostname": f"{name}\n",
        "hosts": hosts_file(addresses),
        "resolv.conf": "",
        "machine-id": f"{secrets.token_hex(16)}\n",
        "fstab": "",
        "ssh/sshd_config": SSHD_CONFIG,
        "ssh/ssh_known_hosts": known_hosts,
        "libvirt/qemu.conf": QEMU_CONF.format(address=addresses[name]),
        "libvirt/libvirtd.conf": LIBVIRTD_CONF.format(host_uuid=uuid.uuid4()),
        "libvirt/libvirt.conf": 'uri_default = "qemu:///system"\n',
    }
    for path, text in texts.items():
        (etc / path).write_text(text, encoding="utf-8")
    _copy_secret(keys / f"{name}_host_key", etc / "ssh/ssh_host_ed25519_key")
    shutil.copy(keys / f"{name}_host_key.pub", etc / "ssh/ssh_host_ed25519_key.pub")
    _copy_secret(keys / "id_ed25519", disk / "root/.ssh/id_ed25519")
    for home in ("root", "home/ops"):
        shutil.copy(keys / "id_ed25519.pub", disk / home / ".ssh/authorized_keys")
    _private(disk / "root", 0)
    _private(disk / "home/ops", 1000)


def _accounts(etc: Path) -> None:
    """Write the accounts: those that the daemons want, and `ops`, who may use sudo."""
    accounts = [line.split(":") for line in ACCOUNTS]
    passwd = "".join(f"{name}:x:{uid}:{gid}::{home}:{shell}\n" for name, uid, gid, home, shell in accounts)
    (etc / "passwd").write_text(passwd, encoding="ascii")
    groups = "".join(f"{name}:x:{gid}:\n" for name, gid in GROUPS.items())
    (etc / "group").write_text(groups, encoding="ascii")
    shadow = etc / "shadow"
    shadow.write_text("".join(f"{line[0]}:*:19000:0:99999:7:::\n" for line in accounts), encoding="ascii")
    shadow.chmod(0o600)
    sudoers = etc / "sudoers"
    sudoers.write_text("root ALL=(ALL:ALL) ALL\nops ALL=(ALL:ALL) NOPASSWD: ALL\n", encoding="ascii")
    sudoers.chmod(0o440)


def _copy_secret(source: Path, target: Path) -> None:
    target.touch(mode=0o600)
    shutil.copyfile(source, target)


def _private(home: Path, uid: int) -> None:
    """Make a home folder as strict as sshd wants it."""
    for path in (home, home / ".ssh", *(home / ".ssh").iterdir()):
        os.chown(path, uid, uid)
    home.chmod(0o700)
    (home / ".ssh").chmod(0o700)
