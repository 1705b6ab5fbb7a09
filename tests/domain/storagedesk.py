"""A simulated cluster with a storage network, and an operator's desk that knows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.cluster.model import Host, StoreHost
from tests.domain.desk import Desk
from tests.sim.cluster import SimCluster
from tests.sim.storage import Lun, Network, Storage, Target

ONE, TWO, THREE = "vmhost1", "vmhost2", "vmhost3"
IQN = "iqn.2024-01.org.example:vmstorage"
PORTAL = "192.168.0.10:3260"
STORE = StoreHost("vmstorage", "192.168.0.10", "/vmstorage", holds_vms=True)
MADE = "0f0f0f0f-0000-4000-8000-000000000001"


def address(number: int) -> str:
    return f"192.168.0.{20 + number}"


class StorageDesk(Desk):
    """The desk of a cluster whose hosts reach one target, with an OCFS2 on its only disk."""

    def __init__(self, sim: SimCluster, *stores: StoreHost) -> None:
        super().__init__(sim)
        self.network = Network([Target(IQN, (PORTAL,), [Lun("ocfs2", "vmstorage", MADE)])])
        hosts = {}
        for number, name in enumerate(sim.hosts, 1):
            hosts[name] = Host(name, f"192.0.2.{number}", storage_address=address(number))
            sim[name].storage = Storage(sim[name], self.network, address(number), hosts[name].address)
        self.inventory = {"hosts": hosts, "stores": {store.name: store for store in stores or (STORE,)}}

    @property
    def target(self) -> Target:
        return self.network.targets[0]

    @property
    def lun(self) -> Lun:
        return self.target.luns[0]

    def at(self, host: str) -> Storage:
        storage = self.sim[host].storage
        assert storage is not None
        return storage

    def let(self, host: str, **changes: object) -> None:
        """Let hosts.ini say something else about a host."""
        self.inventory["hosts"][host] = replace(self.inventory["hosts"][host], **changes)

    def store(self, **changes: object) -> None:
        """Let hosts.ini say something else about the store."""
        self.inventory["stores"] = {STORE.name: replace(STORE, **changes)}  # type: ignore[arg-type]

    def with_chap(self, folder: Path, secret: str, user: str = "vmhosts") -> Path:
        """Let the target want an account, and hosts.ini name it."""
        file = folder / "chap"
        file.write_text(f"{secret}\n")
        file.chmod(0o600)
        self.target.account = (user, secret)
        self.store(chap_user=user, chap_secret_file=str(file))
        return file

    def bring_back(self, host: str) -> None:
        """Mend a host, or let it boot."""
        there = self.sim[host]
        if not there.powered:
            there.power_on()
            self.at(host).boot()
        there.mend()
        # What was carried out late has happened then.
        self.sim.wait(120)

    def files(self, host: str, *, but: Sequence[str] = ()) -> dict[str, tuple[str, int]]:
        """The files of a host, without the copies of replaced ones."""
        files = self.sim[host].disk.files
        return {p: f for p, f in files.items() if not p.startswith("/var/backups/") and p not in but}
