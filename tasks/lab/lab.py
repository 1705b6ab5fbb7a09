"""A whole practice cluster: up, down, status."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from tasks.lab import hostfiles, kvm, packages
from tasks.lab.faults import Faults
from tasks.lab.guests import Guests, Sample, samples
from tasks.lab.namespaces import run
from tasks.lab.problem import LabError, LabRefused

PROJECT = Path(__file__).resolve().parents[2]
#: What vmfab puts on a host's own disk.
SET_UP = (
    "root/running_vms",
    "var/spool/cron/crontabs/root",
    "usr-local/bin/restart_running_vms",
    "etc/logrotate.d/restart_running_vms",
    "etc/logrotate.d/vmfab-guard",
    "usr-local/sbin/vmfab-liveness",
    "usr-local/sbin/vmfab-tend",
)
LIVENESS = "vmfab-liveness.service"


def default_root() -> Path:
    """Return the lab's folder: $VMFAB_LAB, else .lab in the project."""
    return Path(os.environ.get("VMFAB_LAB") or PROJECT / ".lab")


@dataclass(frozen=True)
class HostStatus:
    """What the lab knows about one host. `running` and `defined` are None where libvirtd does not answer."""

    name: str
    address: str
    on: bool
    running: tuple[str, ...] | None = None
    defined: tuple[str, ...] | None = None


class Lab(Faults, Guests):
    """A practice cluster. `Lab(default_root()).up()` makes it, `.down()` leaves nothing behind."""

    def up(
        self, hosts: int = 4, vms: int = 8, *, store_mib: int = 2048, say: Callable[[str], object] = str
    ) -> None:
        """Bring up what is not up yet; raises LabError.

        Hosts and VMs that are missing are made, hosts that are off are switched on. VMs that exist are left
        as they are. A lab whose processes are gone (crash, reboot) starts from nothing.
        """
        if os.geteuid() != 0:
            raise LabRefused("The practice cluster needs root.", "Type: sudo ./fab lab.up")
        packages.require()
        self.root.mkdir(parents=True, exist_ok=True)
        with self._lock():
            if "anchor" not in self.leaders():
                self._clean()
            self._prepare(hosts, store_mib, say)
            say(f"Switching on {_count(len(self.hosts), 'host')}")
            self._each(self.hosts, self._bring_up)
            self._keep_capabilities()
            self._make_vms(vms, say)

    def _prepare(self, hosts: int, store_mib: int, say: Callable[[str], object]) -> None:
        for folder in ("cells", "keys", "log", "starts"):
            (self.root / folder).mkdir(exist_ok=True)
        old = self.settings()
        names = [*old.hosts, *(f"vmhost{number}" for number in range(len(old.hosts) + 1, hosts + 1))]
        if not old.hosts:
            say("Looking whether KVM works here")
            self.save(replace(old, hosts=names, store_mib=store_mib, kvm=kvm.works(self.cache)))
            how = "with KVM" if self.settings().kvm else "in software: KVM does not work here"
            say(f"Guests run {how}")
        else:
            self.save(replace(old, hosts=names))
        self._make_keys()
        self._write_laptop_files()
        self.start_anchor(self.settings().store_mib)
        say("Preparing the guests' kernel")
        self.install_guest_kernel()

    def _bring_up(self, host: str) -> None:
        self.make_disk(host, self.root / "keys", self._known_hosts())
        if not self.is_on(host):
            self._seed_capabilities(host)
        self.power_on(host)

    def _each(self, hosts: Sequence[str], action: Callable[[str], None]) -> None:
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
            list(pool.map(action, hosts))

    # VMs

    def _make_vms(self, count: int, say: Callable[[str], object]) -> None:
        """Make the sample VMs that were not made before; one that was made half is completed."""
        made = self.settings().samples
        wanted: dict[str, list[Sample]] = {host: [] for host in self.hosts}
        others = self.hosts[1:] or self.hosts
        for number, sample in enumerate(samples(count)):
            host = self.hosts[0] if number < (count + 1) // 2 else others[number % len(others)]
            if sample.name not in made:
                wanted[host].append(sample)
        missing = [sample.name for several in wanted.values() for sample in several]
        if not missing:
            return
        say(f"Starting {_count(len(missing), 'VM')}")
        images = self.images()

        def make(host: str) -> None:
            defined, running = self.defined(host), self.running(host)
            for sample in wanted[host]:
                if sample.name not in defined:
                    if sample.name in images:
                        self.image(sample.name).unlink()  # nothing has ever run from it
                    self.add_vm(sample.name, host, acpi=sample.acpi)
                elif sample.name not in running:
                    self.virsh(host, "start", sample.name)

        self._each(self.hosts, make)
        self.save(replace(self.settings(), samples=[*made, *missing]))

    # libvirt asks QEMU what it can do when it first starts: seconds per host, the same answer everywhere.

    def _capabilities(self, host: str) -> Path:
        return self.disk(host) / "var/cache/libvirt/qemu/capabilities"

    def _seed_capabilities(self, host: str) -> None:
        # libvirt itself checks that what it finds there fits its own and QEMU's version.
        if (self.cache / "capabilities").is_dir():
            shutil.copytree(self.cache / "capabilities", self._capabilities(host), dirs_exist_ok=True)

    def _keep_capabilities(self) -> None:
        found = self._capabilities(self.hosts[0])
        if found.is_dir():
            shutil.copytree(found, self.cache / "capabilities", dirs_exist_ok=True)

    # keys and the laptop's files

    def _make_keys(self) -> None:
        keys = self.root / "keys"
        names = ["id_ed25519", *(f"{host}_host_key" for host in self.hosts)]
        for name in names:
            if not (keys / name).exists():
                words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"vmfab-lab {name}"]
                run([*words, "-f", str(keys / name)])

    def _known_hosts(self) -> str:
        lines = []
        for host in self.hosts:
            kind, key = (self.root / "keys" / f"{host}_host_key.pub").read_text(encoding="ascii").split()[:2]
            lines.append(f"{host},{self.address(host)} {kind} {key}\n")
        return "".join(lines)

    def _write_laptop_files(self) -> None:
        """Write hosts.ini, ssh_config, the key and known_hosts; hosts made before learn about new ones."""
        key, known = self.root / "id_ed25519", self.root / "known_hosts"
        key.touch(mode=0o600)
        shutil.copyfile(self.root / "keys/id_ed25519", key)
        known.write_text(self._known_hosts(), encoding="ascii")
        lines = [f"{host} ansible_host={at} ansible_user=root\n" for host, at in self.addresses().items()]
        inventory = f"[vmhosts]\n{''.join(lines)}\n[all:vars]\nvmfab_ssh_config=ssh_config\n"
        (self.root / "hosts.ini").write_text(inventory, encoding="ascii")
        blocks = [f"Host {host}\n    HostName {self.address(host)}\n" for host in self.hosts]
        common = "\n    ".join([
            "Host vmhost* 10.77.0.*", "User root", f"IdentityFile {_quoted(key)}", "IdentitiesOnly yes",
            f"UserKnownHostsFile {_quoted(known)}", "StrictHostKeyChecking yes\n",
        ])  # fmt: skip
        (self.root / "ssh_config").write_text("".join(blocks) + common, encoding="utf-8")
        for host in self.hosts:
            etc = self.disk(host) / "etc"
            if etc.exists():
                (etc / "hosts").write_text(hostfiles.hosts_file(self.addresses()), encoding="ascii")
                (etc / "ssh/ssh_known_hosts").write_text(self._known_hosts(), encoding="ascii")

    # status

    def status(self) -> list[HostStatus]:
        """Say what each host is and runs; an empty list means that the lab is down."""
        if "anchor" not in self.leaders():
            return []
        with ThreadPoolExecutor(max_workers=max(1, len(self.hosts))) as pool:
            return list(pool.map(self._status, self.hosts))

    def _status(self, host: str) -> HostStatus:
        if not self.is_on(host):
            return HostStatus(host, self.address(host), on=False)
        try:
            lists = [self.virsh(host, "list", *which, "--name", timeout=5.0) for which in ((), ("--all",))]
        except LabError:
            return HostStatus(host, self.address(host), on=True)
        running, defined = (tuple(sorted(filter(None, text.splitlines()))) for text in lists)
        return HostStatus(host, self.address(host), on=True, running=running, defined=defined)

    def mend_all(self) -> None:
        """Put right all that was broken: every host on, connected, with its store and its daemons."""
        self.unfill_store()
        self._each(self.hosts, self.mend)

    def remove_guard(self, host: str) -> None:
        """Take vmfab's hook and its liveness service off a host, where they are."""
        etc = self.disk(host) / "etc"
        hook, unit = etc / "libvirt/hooks/qemu", etc / f"systemd/system/{LIVENESS}"
        if unit.exists():
            self.run_on(host, ["/usr/local/bin/systemctl", "disable", "--now", LIVENESS])
            unit.unlink()
        if hook.exists():
            hook.unlink()
            self.run_on(host, ["/usr/local/bin/systemctl", "restart", "libvirtd"])
            self.wait_daemon(host, "libvirtd")

    def restore(self) -> None:
        """Mend all, and remove all VMs and what vmfab keeps on the store and the hosts."""
        self.mend_all()
        self.remove_guests()
        self._each(self.hosts, self.remove_guard)
        for path in self.store.iterdir():
            if path.name not in ("images", "boot"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for host in self.hosts:
            for file in SET_UP:
                (self.disk(host) / file).unlink(missing_ok=True)
            shutil.rmtree(self.disk(host) / "var/backups/vmfab", ignore_errors=True)


def _quoted(path: Path) -> str:
    return f'"{path}"'


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
