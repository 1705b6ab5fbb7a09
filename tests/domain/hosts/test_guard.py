"""host.guard on the simulated cluster, whose hosts run the hook that it installs."""

from __future__ import annotations

import pytest

from tasks.hostsetup import guard
from tasks.migrate import migrate
from tests.domain.desk import Desk
from tests.sim.cluster import SimCluster
from tests.sim.errors import VirshError

HOSTS = ("vmhost1", "vmhost2", "vmhost3")


def owners(sim: SimCluster) -> list[str]:
    return sorted(path for path in sim.store.files if path.startswith("owners/"))


def test_it_adopts_what_runs_and_is_content_then(sim: SimCluster) -> None:
    desk = Desk(sim)
    web = sim.add_vm("web", "vmhost1", also_defined_on=("vmhost2",))
    ended = desk.type(guard, hosts=HOSTS, yes=True)
    assert ended.code == 0, ended
    assert "web: vmhost1 is noted as its owner" in ended.out
    with pytest.raises(VirshError, match="is owned by vmhost1"):
        sim["vmhost2"].start(web.uuid)
    assert desk.type(migrate, "web", to="vmhost2", yes=True).code == 0
    with pytest.raises(VirshError, match="is owned by vmhost2"):
        sim["vmhost1"].start(web.uuid)
    again = desk.type(guard, hosts=HOSTS)
    assert (again.code, again.out.count("already so")) == (0, 3), again


def test_it_goes_away_with_its_owner_files(sim: SimCluster) -> None:
    desk = Desk(sim)
    web = sim.add_vm("web", "vmhost1")
    assert desk.type(guard, hosts=HOSTS, yes=True).code == 0
    assert owners(sim)
    assert desk.type(guard, hosts=HOSTS, remove=True, yes=True).code == 0
    assert not owners(sim)
    assert not any(host.hook.known for host in sim.hosts.values())
    assert sim.where(web) == ("vmhost1",)
