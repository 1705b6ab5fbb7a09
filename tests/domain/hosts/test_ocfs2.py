"""host.ocfs2 on the simulated cluster: joining, formatting, and every fault at every request."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from tasks.cluster.model import StoreHost
from tasks.cluster.setup import clusterconf, fstab, neighbours
from tasks.cluster.setup import steps as hostsetup
from tasks.hostsetup import iscsi as log_in
from tasks.hostsetup import ocfs2 as mount
from tasks.hostsetup import setup
from tests.domain.storagedesk import MADE, ONE, STORE, THREE, TWO, StorageDesk
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.cluster import SimCluster
from tests.sim.storage import Lun, Target

LINE = "LABEL=vmstorage /vmstorage ocfs2 _netdev,noatime,x-systemd.requires=o2cb.service 0 0\n"
DROP_IN = "/etc/systemd/system/{}.d/vmfab-ocfs2.conf"


@pytest.fixture
def desk(sim: SimCluster) -> StorageDesk:
    desk = StorageDesk(sim)
    assert desk.type(log_in, hosts=[ONE, TWO], yes=True).code == 0
    sim.calls.clear()
    return desk


def conf(desk: StorageDesk, host: str) -> str:
    return desk.at(host).files.get(clusterconf.PATH, ("", 0))[0]


def without(*names: str) -> str:
    """cluster.conf without some nodes, as it was before they joined."""
    all_of_them = [clusterconf.Node(f"vmhost{n}", f"192.168.0.{20 + n}", n) for n in (1, 2, 3)]
    return clusterconf.render("vmfab", [node for node in all_of_them if node.name not in names])


def is_set_up(desk: StorageDesk, host: str = ONE) -> bool:
    there = desk.at(host)
    return (
        there.mounts == {"/vmstorage": ("/dev/sdb", "ocfs2")}
        and there.files[fstab.PATH][0].endswith(LINE)
        and there.nodes is not None
        and host in there.nodes
        and neighbours.values(there.files[neighbours.DEFAULTS][0])["O2CB_ENABLED"] == "true"
        and "ocfs2.service" in there.masked
        and there.sysctl == {"kernel/panic": "30", "kernel/panic_on_oops": "1"}
        and DROP_IN.format("libvirt-guests.service") in there.files
        and f"show to 192.168.0.2{host[-1]} " in there.files[DROP_IN.format("o2cb.service")][0]
    )


def test_it_mounts_the_store_and_is_content_then(desk: StorageDesk) -> None:
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert is_set_up(desk)
    assert conf(desk, ONE) == without()
    assert not conf(desk, TWO)
    before = desk.files(ONE)
    again = desk.type(mount, hosts=[ONE])
    assert again.code == 0
    assert "to be" not in again.out
    assert desk.files(ONE) == before
    desk.at(ONE).boot()
    assert is_set_up(desk)
    assert "to be" not in desk.type(mount, hosts=[ONE]).out


def test_a_dry_run_shows_it_and_changes_nothing(desk: StorageDesk) -> None:
    before = desk.files(ONE)
    ended = desk.type(mount, hosts=[ONE], dry_run=True)
    assert ended.code == 0
    assert f"+{LINE}" in ended.out
    assert "name = vmhost3\n" in ended.out
    assert desk.files(ONE) == before
    assert not desk.at(ONE).mounts


def test_a_host_that_joins_is_told_to_the_others_while_they_run(desk: StorageDesk) -> None:
    hosts = desk.inventory["hosts"]
    desk.inventory["hosts"] = {name: hosts[name] for name in (ONE, TWO)}
    assert desk.type(mount, hosts=[ONE, TWO], yes=True).code == 0
    assert desk.at(ONE).nodes == {ONE, TWO}
    desk.inventory["hosts"] = hosts
    assert desk.type(log_in, hosts=[THREE], yes=True).code == 0
    ended = desk.type(mount, hosts=[THREE], yes=True)
    assert ended.code == 0, ended
    assert "brought up to date on vmhost1, vmhost2, while they run" in ended.out
    assert "+++ /etc/ocfs2/cluster.conf on vmhost2" in ended.out
    for name in (ONE, TWO, THREE):
        assert desk.at(name).nodes == {ONE, TWO, THREE}
        assert conf(desk, name) == without()
    assert "to be" not in desk.type(mount, hosts=[ONE, TWO, THREE]).out


def test_a_member_learns_of_a_node_that_the_others_have_while_it_runs(desk: StorageDesk) -> None:
    hosts = desk.inventory["hosts"]
    desk.inventory["hosts"] = {name: hosts[name] for name in (ONE, TWO)}
    assert desk.type(mount, hosts=[ONE, TWO], yes=True).code == 0
    desk.at(TWO).files[clusterconf.PATH] = (without(), 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    for name in (ONE, TWO):
        assert desk.at(name).nodes == {ONE, TWO, THREE}
        assert conf(desk, name) == without()


def test_a_silent_node_stops_a_join_that_it_would_have_to_hear_of(sim: SimCluster, desk: StorageDesk) -> None:
    hosts = desk.inventory["hosts"]
    desk.inventory["hosts"] = {name: hosts[name] for name in (ONE, TWO)}
    assert desk.type(mount, hosts=[ONE, TWO], yes=True).code == 0
    desk.inventory["hosts"] = hosts
    desk.type(log_in, hosts=[THREE], yes=True)
    sim[TWO].cut()
    ended = desk.type(mount, hosts=[THREE], yes=True)
    assert ended.code == 2
    assert "vmhost2 does not answer" in ended.err
    assert "vmhost3 would have to be added to it" in " ".join(ended.err.split())
    assert conf(desk, ONE) == without(THREE)
    # A host that nobody has to be told about is set up all the same.
    assert desk.type(mount, hosts=[ONE], yes=True).code == 2
    desk.inventory["hosts"] = {name: hosts[name] for name in (ONE, TWO)}
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0


def test_a_cluster_does_not_begin_while_a_host_is_silent(sim: SimCluster, desk: StorageDesk) -> None:
    sim[THREE].cut()
    assert desk.type(mount, hosts=[ONE], yes=True).code == 2
    del desk.inventory["hosts"][THREE]
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0
    assert conf(desk, ONE) == without(THREE)


def test_numbers_that_are_in_use_stay(desk: StorageDesk) -> None:
    nodes = [clusterconf.Node(TWO, "192.168.0.22", 1), clusterconf.Node("old", "192.168.0.99", 3)]
    desk.at(TWO).files[clusterconf.PATH] = (clusterconf.render("vmfab", nodes), 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    numbers = {n.name: n.number for n in clusterconf.parse(conf(desk, ONE)).nodes["vmfab"]}
    assert numbers == {TWO: 1, "old": 3, ONE: 2, THREE: 4}
    assert conf(desk, TWO) == conf(desk, ONE)


def test_hosts_that_contradict_each_other_are_shown(desk: StorageDesk) -> None:
    desk.at(TWO).files[clusterconf.PATH] = (without(THREE), 0o644)
    other = [clusterconf.Node(ONE, "192.168.0.21", 7)]
    desk.at(THREE).files[clusterconf.PATH] = (clusterconf.render("vmfab", other), 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "/etc/ocfs2/cluster.conf on vmhost2 has vmhost1 with number 1 at 192.168.0.21" in ended.err
    assert "/etc/ocfs2/cluster.conf on vmhost3 has vmhost1 with number 7" in ended.err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"node": 5}, "vmfab_node=5, but /etc/ocfs2/cluster.conf on vmhost2 has vmhost1 with number 1"),
        ({"storage_address": "192.168.0.77"}, "Write vmfab_storage_address=192.168.0.21 at vmhost1"),
        ({"storage_address": "fd00::21"}, "o2cb knows IPv4 only"),
        ({"storage_address": ""}, "Write vmfab_storage_address=ADDRESS at vmhost1"),
    ],
)
def test_hosts_ini_against_the_running_cluster(
    desk: StorageDesk, changes: dict[str, object], words: str
) -> None:
    desk.at(TWO).files[clusterconf.PATH] = (without(), 0o644)
    desk.let(ONE, **changes)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert words in ended.err


def test_a_machine_has_to_be_called_as_in_cluster_conf(desk: StorageDesk) -> None:
    desk.at(TWO).files[clusterconf.PATH] = (without(), 0o644)
    desk.at(ONE).hostname = "server1.example.org"
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "vmhost1 calls itself server1, but" in ended.err
    assert "hostnamectl set-hostname vmhost1" in ended.err


def test_a_machine_with_another_name_than_in_hosts_ini_is_named_as_it_calls_itself(desk: StorageDesk) -> None:
    desk.at(ONE).hostname = "server1.example.org"
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0
    assert "\tname = server1\n" in conf(desk, ONE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (without().replace("local", "global"), "global heartbeat"),
        (without().replace("vmfab", "ocfs2"), "vmfab_ocfs2_cluster=ocfs2"),
        ("nonsense\n", "is not understood: nonsense"),
        ("node:\n\tname = x\n", "is not understood: a stanza without ip_address"),
    ],
)
def test_a_cluster_of_somebody_else(desk: StorageDesk, text: str, words: str) -> None:
    desk.at(TWO).files[clusterconf.PATH] = (text, 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert words in ended.err
    assert not conf(desk, ONE)


def test_time_outs_that_differ_would_keep_a_host_out(desk: StorageDesk) -> None:
    assert desk.type(mount, hosts=[TWO], yes=True).code == 0
    text = desk.at(TWO).files[neighbours.DEFAULTS][0].replace("THRESHOLD=31", "THRESHOLD=61")
    desk.at(TWO).files[neighbours.DEFAULTS] = (text, 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "Write vmfab_ocfs2_threshold=61" in ended.err
    desk.inventory["ocfs2_threshold"] = 61
    assert "runs with the heartbeat threshold 31, not 61" in desk.type(mount, hosts=[ONE], yes=True).err
    desk.at(TWO).boot()
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0
    assert desk.at(ONE).threshold == 61


def test_a_cluster_that_is_online_with_a_short_list_is_told(desk: StorageDesk) -> None:
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0
    desk.at(ONE).nodes = {ONE}
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 0
    assert "told of all nodes" in ended.out
    assert desk.at(ONE).nodes == {ONE, TWO, THREE}


def test_the_line_in_fstab_replaces_the_one_that_was_there(desk: StorageDesk) -> None:
    text = "# mine\n/dev/sdb1 /vmstorage ocfs2 defaults,nofail 0 0\n/dev/sdc /other ext4 defaults 0 0"
    desk.at(ONE).files[fstab.PATH] = (text, 0o644)
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "-/dev/sdb1 /vmstorage ocfs2 defaults,nofail 0 0\n" in ended.out
    after = f"# mine\n{LINE}/dev/sdc /other ext4 defaults 0 0"
    assert desk.at(ONE).files[fstab.PATH] == (after, 0o644)


def test_before_the_login_iscsi_comes_first(desk: StorageDesk) -> None:
    ended = desk.type(mount, hosts=[THREE], yes=True)
    assert ended.code == 2
    assert "vmhost3 has no session with vmstorage. Type fab -H vmhost3 host.iscsi" in " ".join(
        ended.err.split()
    )


def test_two_devices_with_the_label_are_listed(desk: StorageDesk) -> None:
    desk.at(ONE).disks["sdx"] = Lun("ocfs2", "vmstorage", "copy")
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "2 devices with the label vmstorage: /dev/sdb (ocfs2" in ended.err
    assert "/dev/sdx (ocfs2, copy)" in ended.err


def test_another_file_system_than_on_the_others_is_not_mounted(desk: StorageDesk) -> None:
    assert desk.type(mount, hosts=[TWO], yes=True).code == 0
    desk.at(ONE).disks["sdb"] = Lun("ocfs2", "vmstorage", "another")
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert f"/dev/sdb is another, vmhost2 has {MADE} mounted on /vmstorage" in ended.err
    desk.at(ONE).mounts["/vmstorage"] = ("/dev/sdb", "ocfs2")
    assert desk.type(mount, hosts=[ONE], yes=True).code == 2


def test_something_else_on_the_mount_point_stays(desk: StorageDesk) -> None:
    desk.at(ONE).disks["sdx"] = Lun("ext4", "x", "y")
    desk.at(ONE).mounts["/vmstorage"] = ("/dev/sdx", "ext4")
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "has ext4 of /dev/sdx on /vmstorage" in ended.err


def test_files_below_the_mount_point_are_not_hidden(desk: StorageDesk) -> None:
    desk.at(ONE).below["/vmstorage"] = "/vmstorage/web.qcow2"
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "has /vmstorage/web.qcow2 in the folder" in ended.err


def test_a_firewall_is_named_when_the_mount_fails(desk: StorageDesk) -> None:
    assert desk.type(mount, hosts=[TWO], yes=True).code == 0
    desk.network.firewall = True
    ended = desk.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "no connection to port 7777 of vmhost2 (192.168.0.22)" in " ".join(ended.err.split())
    desk.network.firewall = False
    assert desk.type(mount, hosts=[ONE], yes=True).code == 0


# -- format -----------------------------------------------------------------------------------------------


@pytest.fixture
def bare(desk: StorageDesk) -> StorageDesk:
    lun = desk.lun
    lun.kind = lun.label = lun.uuid = ""
    return desk


def test_an_unformatted_store_says_how_to_format_it(bare: StorageDesk) -> None:
    ended = bare.type(mount, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "no file system with the label vmstorage, which is to be on /dev/sdb" in ended.err
    assert "fab -H vmhost1 host.ocfs2 --format" in ended.err


def test_format_makes_the_file_system_and_mounts_it(bare: StorageDesk) -> None:
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 0, ended
    assert is_set_up(bare)
    words = " ".join(bare.lun.made_with)
    assert words == (
        "mkfs.ocfs2 -q -N 8 -L vmstorage -T vmstore --cluster-stack=o2cb --cluster-name=vmfab /dev/sdb"
    )
    made = bare.lun.made_with
    again = bare.type(mount, hosts=[TWO], format=True, confirm="vmstorage", yes=True)
    assert again.code == 0
    assert "nothing to format" in again.out
    assert bare.lun.made_with is made
    assert is_set_up(bare, TWO)


@pytest.mark.parametrize("given", [{}, {"confirm": "vmhost1"}, {"confirm": "VMSTORAGE"}])
def test_format_wants_the_label_typed(bare: StorageDesk, given: dict[str, str]) -> None:
    ended = bare.type(mount, hosts=[ONE], format=True, yes=True, **given)
    assert ended.code == 2
    assert not bare.lun.made_with
    assert not conf(bare, ONE)


def test_a_dry_run_of_format_makes_nothing(bare: StorageDesk) -> None:
    ended = bare.type(mount, hosts=[ONE], format=True, dry_run=True)
    assert ended.code == 0
    assert "/dev/sdb, 4G, is the disk of vmstorage" in ended.out
    assert not bare.lun.made_with


def test_format_refuses_a_disk_with_something_on_it(bare: StorageDesk) -> None:
    bare.lun.kind = "LVM2_member"
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 2
    for words in (
        "vmhost1: sdb has LVM2_member on it",
        "vmhost1: /dev/sdb has the signature LVM2_member at 0x400",
        "vmhost2: /dev/sdb is taken for LVM2_member",
        "wipefs -a /dev/sdb",
    ):
        assert words in ended.err
    assert not bare.lun.made_with


def test_format_refuses_a_disk_that_another_host_uses(bare: StorageDesk) -> None:
    bare.at(TWO).open[4711] = "/dev/sdb"
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 2
    assert "vmhost2: process 4711 has /dev/sdb open" in ended.err


def test_format_refuses_while_a_host_is_silent(sim: SimCluster, bare: StorageDesk) -> None:
    sim[THREE].cut()
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 2
    assert "vmhost3 could not be asked" in ended.err
    assert not bare.lun.made_with


def test_format_does_not_choose_a_disk(bare: StorageDesk) -> None:
    bare.target.luns.append(Lun())
    bare.at(ONE).sessions.clear()
    bare.at(ONE).disks.clear()
    bare.at(ONE).boot()
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 2
    assert "shows vmhost1 2 disks (/dev/sdb, /dev/sdc)" in ended.err


def test_somebody_who_is_faster_with_the_disk_is_seen(
    bare: StorageDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def apply_late(*given: object, **more: object) -> object:
        bare.lun.kind = "LVM2_member"
        return apply(*given, **more)  # type: ignore[arg-type]

    apply = hostsetup.apply
    monkeypatch.setattr(hostsetup, "apply", apply_late)
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 1, ended
    assert "LVM2_member" in ended.err
    assert not bare.lun.made_with


def test_format_is_for_one_host_and_one_of_the_stores(bare: StorageDesk) -> None:
    assert "acts on one host" in bare.type(mount, hosts=[ONE, TWO], format=True, yes=True).err
    assert "No store has the label x" in bare.type(mount, hosts=[ONE], format=True, confirm="x").err
    assert "for --format" in bare.type(mount, hosts=[ONE], confirm="vmstorage").err


def test_two_stores_are_formatted_one_by_one(bare: StorageDesk) -> None:
    second = Target("iqn.2024-01.org.example:datengrab", ("192.168.0.11:3260",), [Lun()])
    bare.network.targets.append(second)
    more = StoreHost("datengrab", "192.168.0.11", "/datengrab", holds_vms=False, slots=4)
    bare.inventory["stores"] = {STORE.name: STORE, more.name: more}
    assert bare.type(log_in, hosts=[ONE], yes=True).code == 0
    first = bare.type(mount, hosts=[ONE], format=True, confirm="datengrab", yes=True)
    assert first.code == 1
    assert "The file system is made, but vmhost1 has no file system with the label vmstorage" in first.err
    assert second.luns[0].label == "datengrab"
    assert "-N 4" in " ".join(second.luns[0].made_with)
    assert "vmstore" not in second.luns[0].made_with
    assert not bare.lun.kind
    ended = bare.type(mount, hosts=[ONE], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 0, ended
    assert set(bare.at(ONE).mounts) == {"/vmstorage", "/datengrab"}


def test_set_up_of_a_new_cluster_formats_its_store_on_the_way(bare: StorageDesk) -> None:
    stopped = bare.type(setup, hosts=[ONE, TWO], yes=True)
    assert stopped.code == 2, stopped
    assert "fab -H vmhost1 host.ocfs2 --format" in stopped.err
    assert bare.type(setup, hosts=[ONE], format=True, yes=True).code != 0
    assert not bare.lun.made_with
    shown = bare.type(setup, hosts=[ONE, TWO], format=True, dry_run=True)
    assert shown.code == 0, shown
    assert "vmhost1: ocfs2: comes after ocfs2 --format (vmhost1 has no file system with" in shown.out
    ended = bare.type(setup, hosts=[ONE, TWO], format=True, confirm="vmstorage", yes=True)
    assert ended.code == 0, ended
    assert ended.out.count("/dev/sdb has the file system vmstorage, ") == 1
    assert is_set_up(bare, ONE)
    assert is_set_up(bare, TWO)
    made = bare.lun.made_with
    again = bare.type(setup, hosts=[ONE, TWO], format=True, confirm="vmstorage", yes=True)
    assert again.code == 0, again
    assert "nothing was changed" in again.out
    assert bare.lun.made_with is made


def test_labels_that_no_store_has_are_refused_first(bare: StorageDesk) -> None:
    ended = bare.type(setup, hosts=[ONE], format=True, confirm="vmstorage,x", yes=True)
    assert ended.code == 2
    assert "No store has the label x" in ended.err
    assert "for --format" in bare.type(setup, hosts=[ONE], confirm="vmstorage").err


# -- faults -----------------------------------------------------------------------------------------------


#: One of each kind: the others differ in what libvirt and the store do, which is not asked here.
KINDS = ("request lost", "reply lost", "carried out 5 s late", "host loses power for 20 s", "laptop killed")


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", KINDS)
def test_a_fault_at_every_other_request(fault: str, when: str) -> None:
    for n in count(1 + KINDS.index(fault) % 2, 2):
        with SimCluster((ONE, TWO), seed=n) as sim:
            desk = StorageDesk(sim)
            desk.type(log_in, hosts=[ONE, TWO], yes=True)
            hosts = dict(desk.inventory["hosts"])
            desk.inventory["hosts"] = {TWO: hosts[TWO]}
            assert desk.type(mount, hosts=[TWO], yes=True).code == 0
            desk.inventory["hosts"] = {ONE: replace(hosts[ONE], node=5), TWO: hosts[TWO]}
            before = desk.files(ONE), desk.files(TWO)
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = desk.type_or_die(mount, hosts=[ONE], yes=True)
            sim.faults.clear()
            if ended is not None and ended.code == 0:
                assert is_set_up(desk), ended
            if ended is not None and ended.code == 2:
                assert (desk.files(ONE), desk.files(TWO)) == before, ended
            for host in (ONE, TWO):
                desk.bring_back(host)
            again = desk.type(mount, hosts=[ONE], yes=True, laptop=sim.another_laptop("second"))
            assert again.code == 0, (n, again)
            assert is_set_up(desk)
            assert conf(desk, ONE) == conf(desk, TWO)
            assert desk.at(TWO).nodes == {ONE, TWO}
        if not rule.struck:
            assert n > 40, "it asks more often than that"
            return
