"""host.iscsi on the simulated cluster, with every fault at every request."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.errors import Failed
from tasks.cluster.setup import iscsi, iscsiadm, iscsitargets
from tasks.cluster.setup.steps import Change, Finding
from tasks.hostsetup import iscsi as log_in
from tests.domain.storagedesk import IQN, ONE, PORTAL, STORE, THREE, TWO, StorageDesk
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.cluster import SimCluster
from tests.sim.storage import Lun, Target

SECRET = "Sesam-0pen!#x"
RECORD = iscsiadm.Record(IQN, "192.168.0.10", 3260, 1, iscsitargets.IFACE)


@pytest.fixture
def desk(sim: SimCluster) -> StorageDesk:
    return StorageDesk(sim)


def is_set_up(desk: StorageDesk, host: str = ONE) -> bool:
    there = desk.at(host)
    record, mode = there.files.get(RECORD.path(there.folder), ("", 0))
    return (
        mode == 0o600
        and iscsiadm.setting(record, "node.startup") == "automatic"
        and iscsiadm.setting(record, "node.session.timeo.replacement_timeout") == "120"
        and iscsiadm.setting(record, "iface.net_ifacename") == "enp2s0"
        and "iface.net_ifacename = enp2s0\n" in there.files[f"{there.folder}/ifaces/vmfab"][0]
        and [(s.target, s.portal) for s in there.sessions] == [(desk.target, PORTAL)]
        and {"open-iscsi.service", "iscsid.socket"} <= there.enabled
    )


@pytest.mark.parametrize("folder", ["/etc/iscsi", "/var/lib/iscsi"])
def test_it_logs_in_and_is_content_then(sim: SimCluster, desk: StorageDesk, folder: str) -> None:
    desk.at(ONE).folder = folder
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert is_set_up(desk)
    assert not desk.at(TWO).sessions
    before = desk.files(ONE)
    again = desk.type(log_in, hosts=[ONE])
    assert again.code == 0
    assert "to be" not in again.out
    assert desk.files(ONE) == before
    desk.at(ONE).boot()
    assert is_set_up(desk)
    assert desk.type(log_in, hosts=[ONE]).code == 0


def test_a_dry_run_shows_it_and_changes_nothing(sim: SimCluster, desk: StorageDesk) -> None:
    before = desk.files(ONE)
    ended = desk.type(log_in, hosts=[ONE], dry_run=True)
    assert ended.code == 0
    assert "+node.startup = automatic" in ended.out
    assert "+iface.net_ifacename = enp2s0" in ended.out
    assert desk.files(ONE) == before
    assert not desk.at(ONE).sessions


def test_the_secret_shows_nowhere(sim: SimCluster, desk: StorageDesk, tmp_path: Path) -> None:
    desk.with_chap(tmp_path, SECRET)
    shown = desk.type(log_in, hosts=[ONE], dry_run=True)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    path = RECORD.path(desk.at(ONE).folder)
    text, mode = desk.at(ONE).files[path]
    assert iscsiadm.setting(text, "node.session.auth.password") == SECRET
    assert iscsiadm.setting(text, "node.session.auth.username") == "vmhosts"
    assert mode == 0o600
    assert "+node.session.auth.password = ********" in shown.out
    assert [path for path, (text, _) in sim[ONE].disk.files.items() if SECRET in text] == [path]
    desk.with_chap(tmp_path, "Another-One-9")
    changed = desk.type(log_in, hosts=[ONE], yes=True)
    assert "+node.session.auth.password = ******** (another)" in changed.out
    assert not [path for path, (text, _) in sim[ONE].disk.files.items() if SECRET in text]
    desk.target.account = ("vmhosts", "not this")
    desk.at(ONE).sessions.clear()
    refused = desk.type(log_in, hosts=[ONE], yes=True)
    assert refused.code == 1
    assert "vmstorage does not let vmhost1 in as CHAP user vmhosts" in refused.err
    for said in (shown, ended, changed, refused):
        assert SECRET not in said.text
        assert "Another-One-9" not in said.text
    sent = [word for words in desk.at(ONE).seen for word in words]
    assert not any(secret in word for word in sent for secret in (SECRET, "Another-One-9"))


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        ("two\nlines\n", 0o600, "has not exactly one line"),
        ("\n", 0o600, "has not exactly one line"),
        ("", 0o600, "has not exactly one line"),
        ("with space\n", 0o600, "cannot keep"),
        ("gr\u00f6\u00dfe\n", 0o600, "cannot keep"),
        ("x" * 300, 0o600, "cannot keep"),
        ("good\n", 0o640, "others could read it. Type: chmod 600"),
        ("good\n", 0o604, "others could read it"),
    ],
)
def test_a_bad_secret_file_is_refused_before_anything(
    desk: StorageDesk, tmp_path: Path, content: str, mode: int, words: str
) -> None:
    file = desk.with_chap(tmp_path, "x")
    file.write_text(content)
    file.chmod(mode)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert words in " ".join(ended.err.split())
    assert not desk.sim.calls
    assert "good" not in ended.err


def test_a_missing_secret_file_says_how_to_make_it(desk: StorageDesk, tmp_path: Path) -> None:
    desk.with_chap(tmp_path, "x").unlink()
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "umask 077" in ended.err


def test_a_name_that_another_host_has_is_replaced(sim: SimCluster, desk: StorageDesk) -> None:
    same = "InitiatorName=iqn.1993-08.org.debian:01:clone\n"
    for host in (ONE, TWO):
        desk.at(host).files[iscsitargets.INITIATOR] = (same, 0o600)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    name = iscsitargets.initiator_of(desk.at(ONE).files[iscsitargets.INITIATOR][0])
    assert name.startswith("iqn.1993-08.org.debian:01:")
    assert "clone" not in name
    assert desk.at(TWO).files[iscsitargets.INITIATOR][0] == same
    assert "which no other host has" in desk.type(log_in, hosts=[ONE]).out


def test_a_name_in_use_is_not_changed_under_a_session(sim: SimCluster, desk: StorageDesk) -> None:
    desk.at(ONE).log_in(desk.target, PORTAL, "default")
    same = "InitiatorName=iqn.1993-08.org.debian:01:clone\n"
    for host in (ONE, TWO):
        desk.at(host).files[iscsitargets.INITIATOR] = (same, 0o600)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "vmhost1 and vmhost2 have the same initiator name" in ended.err


def test_a_missing_name_is_made_up_and_stays(sim: SimCluster, desk: StorageDesk) -> None:
    desk.at(ONE).files[iscsitargets.INITIATOR] = ("GenerateName=yes\n", 0o600)
    shown = desk.type(log_in, hosts=[ONE], dry_run=True)
    assert shown.code == 0, shown
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    name = iscsitargets.initiator_of(desk.at(ONE).files[iscsitargets.INITIATOR][0])
    assert name in shown.out
    assert is_set_up(desk)


def test_silent_hosts_are_named_when_names_are_compared(sim: SimCluster, desk: StorageDesk) -> None:
    sim[THREE].cut()
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "vmhost3 did not answer" in ended.out


def test_several_targets_have_to_be_told_apart(sim: SimCluster, desk: StorageDesk) -> None:
    other = "iqn.2024-01.org.example:other"
    desk.network.targets.append(Target(other, (PORTAL,), [Lun()]))
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert IQN in ended.err
    assert other in ended.err
    assert "vmfab_target=NAME" in ended.err
    desk.store(target=IQN)
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    assert is_set_up(desk)


def test_a_target_that_is_not_offered_is_refused(desk: StorageDesk) -> None:
    desk.store(target="iqn.2024-01.org.example:gone")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert f"does not offer iqn.2024-01.org.example:gone, but\n    {IQN}" in ended.err


def test_a_target_that_is_offered_at_another_address_only_is_refused(desk: StorageDesk) -> None:
    """By that record the host would not know its store again."""
    desk.target.portals = ("192.168.0.12:3261",)
    desk.network.forwards[PORTAL] = "192.168.0.12:3261"
    before = desk.files(ONE)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert f"offers {IQN} at 192.168.0.12:3261, not at {PORTAL}" in ended.err
    assert "ansible_host=" in ended.err
    assert "vmfab_target_port=" in ended.err
    assert desk.files(ONE) == before
    desk.store(address="192.168.0.12", port=3261)
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    assert [s.portal for s in desk.at(ONE).sessions] == ["192.168.0.12:3261"]


def test_the_record_of_a_store_that_was_set_up_anew_is_named(desk: StorageDesk) -> None:
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    there = desk.at(ONE)
    desk.target.name = "iqn.2024-01.org.example:anew"
    there.sessions.clear()
    to_type = f"iscsiadm -m node -T {IQN} -p {PORTAL},1 -I vmfab -o delete"
    failed = desk.type(log_in, hosts=[ONE], yes=True)
    assert failed.code == 1, failed
    assert f"vmstorage does not offer {IQN} (portal group 1) any more, but {desk.target.name} " in failed.err
    assert to_type in failed.err
    desk.store(target=desk.target.name)
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    desk.store()
    there.sessions.clear()
    before = desk.files(ONE)
    refused = desk.type(log_in, hosts=[ONE], yes=True)
    assert refused.code == 2, refused
    assert f"still has vmfab's record of {IQN} " in refused.err
    assert to_type in refused.err
    assert desk.files(ONE) == before
    assert there.run(to_type.split()) == (0, "", "")
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    assert [s.target.name for s in there.sessions] == [desk.target.name]


def test_what_cannot_be_told_even_then_is_one_sentence(desk: StorageDesk) -> None:
    class NeverTold:
        def look(self, ops: HostOps) -> Finding:
            return iscsi.later(self, "session with vmstorage", "logged in")

    with desk.sim.session() as session, session.using(ONE) as ops:
        due = NeverTold().look(ops)
        assert isinstance(due, Change)
        with pytest.raises(Failed, match="the session with vmstorage cannot be told"):
            due.apply(ops)


def test_a_second_portal_gives_no_second_session(sim: SimCluster, desk: StorageDesk) -> None:
    desk.target.portals = (PORTAL, "10.9.9.9:3260")
    second = iscsiadm.Record(IQN, "10.9.9.9", 3260, 1, "default")
    text = "node.name = x\nnode.startup = automatic\nnode.conn[0].startup = automatic\n"
    desk.at(ONE).files[second.path("/etc/iscsi")] = (text, 0o600)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert is_set_up(desk)
    assert "10.9.9.9:3260 through default; sessions that there are go on" in ended.out
    desk.at(ONE).boot()
    assert is_set_up(desk)


def test_a_session_by_another_way_goes_on_until_the_next_boot(sim: SimCluster, desk: StorageDesk) -> None:
    by_hand = iscsiadm.Record(IQN, "192.168.0.10", 3260, 1, "default")
    desk.at(ONE).files[by_hand.path("/etc/iscsi")] = ("node.startup = automatic\n", 0o600)
    desk.at(ONE).log_in(desk.target, PORTAL, "default")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert [s.iface for s in desk.at(ONE).sessions] == ["default"]
    assert "open-iscsi.service" in desk.at(ONE).enabled
    assert "open-iscsi.service" not in desk.at(ONE).active
    again = desk.type(log_in, hosts=[ONE])
    assert again.code == 0
    assert "to be" not in again.out
    assert "through default; from the next boot on through vmfab" in again.out
    assert f"counts from the next boot on: {IQN} goes by {PORTAL} through default until then" in again.out
    desk.at(ONE).boot()
    assert [s.iface for s in desk.at(ONE).sessions] == ["vmfab"]
    assert "logs in after each boot" in desk.type(log_in, hosts=[ONE]).out


def test_a_session_by_the_stores_old_address_goes_on_until_the_next_boot(desk: StorageDesk) -> None:
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    there = desk.at(ONE)
    there.active.discard("open-iscsi.service")
    desk.target.portals = (PORTAL, "192.168.0.12:3260")
    desk.store(address="192.168.0.12")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert [s.portal for s in there.sessions] == [PORTAL]
    there.boot()
    assert [s.portal for s in there.sessions] == ["192.168.0.12:3260"]


def test_sessions_with_other_targets_do_not_keep_the_unit_from_its_start(desk: StorageDesk) -> None:
    there = desk.at(ONE)
    there.log_in(Target("iqn.2024-01.org.example:backup", ("10.9.9.9:3260",)), "10.9.9.9:3260", "default")
    there.enabled.add("open-iscsi.service")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "open-iscsi.service" in there.active
    assert [s.iface for s in there.sessions] == ["default", "vmfab"]


def works_by_hand(desk: StorageDesk, **settings: str) -> tuple[str, tuple[str, int]]:
    """A record that an admin made, by which the host is logged in; its path and what it says."""
    by_hand = iscsiadm.Record(IQN, "192.168.0.10", 3260, 1, "default")
    text = "node.startup = automatic\n"
    text += "".join(f"node.session.auth.{name} = {value}\n" for name, value in settings.items())
    path = by_hand.path("/etc/iscsi")
    desk.at(ONE).files[path] = (text, 0o600)
    desk.at(ONE).log_in(desk.target, PORTAL, "default")
    return path, (text, 0o600)


def test_an_account_that_hosts_ini_does_not_know_is_not_given_up(desk: StorageDesk, tmp_path: Path) -> None:
    desk.target.account = ("vmhosts", SECRET)
    path, _ = works_by_hand(desk, authmethod="CHAP", username="vmhosts", password=SECRET)
    before = desk.files(ONE)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert f"vmhost1 logs in to vmstorage with CHAP, as {path} there says" in " ".join(ended.err.split())
    assert "vmfab_chap_user=vmhosts and vmfab_chap_secret_file=FILE at vmstorage" in ended.err
    assert SECRET not in ended.text
    assert desk.files(ONE) == before
    desk.with_chap(tmp_path, SECRET)
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    desk.at(ONE).boot()
    assert [s.iface for s in desk.at(ONE).sessions] == ["vmfab"]


def test_an_account_in_a_record_that_nobody_uses_is_no_matter(desk: StorageDesk) -> None:
    path, (text, mode) = works_by_hand(desk, authmethod="CHAP", username="vmhosts", password=SECRET)
    desk.at(ONE).files[path] = (text.replace("automatic", "manual"), mode)
    desk.at(ONE).sessions.clear()
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0


def test_an_address_in_another_network_than_the_stores_is_refused(desk: StorageDesk) -> None:
    works_by_hand(desk)
    desk.let(ONE, storage_address="192.0.2.1")
    before = desk.files(ONE)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    said = " ".join(ended.err.split())
    assert "through enp2s0, but its storage address 192.0.2.1 is on enp1s0" in said
    assert "vmfab_storage_address= of vmhost1 and ansible_host= of vmstorage have to be addresses" in said
    assert desk.files(ONE) == before
    desk.let(ONE, storage_address="192.168.0.21")
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0


def test_a_session_that_works_by_vmfabs_record_needs_no_route_of_its_own(desk: StorageDesk) -> None:
    """It is bound to the NIC: two in one network are as good as one."""
    desk.at(ONE).lan = "192.168.0.99"
    desk.at(ONE).log_in(desk.target, PORTAL, "vmfab")
    desk.at(ONE).files[RECORD.path("/etc/iscsi")] = ("node.startup = manual\n", 0o600)
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 0, ended


def test_a_record_that_was_made_without_its_portal_group_is_used(desk: StorageDesk) -> None:
    old = replace(RECORD, group=-1)
    path = old.path("/etc/iscsi")
    assert path == f"/etc/iscsi/nodes/{IQN}/192.168.0.10,3260"
    text = "iface.iscsi_ifacename = vmfab\nnode.startup = manual\n"
    desk.at(ONE).files[path] = (text, 0o600)
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    assert iscsiadm.setting(desk.at(ONE).files[path][0], "node.startup") == "automatic"
    assert len(desk.at(ONE).sessions) == 1


def test_two_sessions_with_one_target_are_left_to_the_admin(sim: SimCluster, desk: StorageDesk) -> None:
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    desk.at(ONE).log_in(desk.target, "10.9.9.9:3260", "default")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "has 2 sessions" in ended.err
    assert len(desk.at(ONE).sessions) == 2


def test_without_its_storage_address_the_bridge_comes_first(desk: StorageDesk) -> None:
    desk.at(ONE).address = None
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "Type fab -H vmhost1 host.bridge" in ended.err


def test_without_iscsiadm_the_packages_come_first(desk: StorageDesk) -> None:
    desk.sim[ONE].disk.missing.add("iscsiadm")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "vmhost1 has no iscsiadm. Type fab -H vmhost1 host.packages" in " ".join(ended.err.split())


def test_what_hosts_ini_lacks_is_refused_before_anything(desk: StorageDesk) -> None:
    desk.let(ONE, storage_address="")
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "vmfab_storage_address=ADDRESS" in ended.err
    desk.let(ONE, storage_address="192.168.0.21", variables={"vmfab_storage_nic": "enp9s9"})
    assert "on enp2s0, not on enp9s9" in desk.type(log_in, hosts=[ONE], yes=True).err
    desk.store(address="storage.example.org")
    assert "no IP address" in desk.type(log_in, hosts=[ONE], yes=True).err
    desk.inventory["stores"] = {}
    assert "hosts.ini names none" in desk.type(log_in, hosts=[ONE], yes=True).out


def test_a_silent_store_is_no_store_without_targets(desk: StorageDesk) -> None:
    desk.network.down = True
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "No route to host" in ended.err
    assert "ping -c 3 192.168.0.10" in ended.err


def test_a_session_that_fails_is_told(desk: StorageDesk) -> None:
    assert desk.type(log_in, hosts=[ONE], yes=True).code == 0
    desk.network.down = True
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "brought back (it is FAILED)" in ended.out
    assert "does not come up" in ended.err


def test_a_target_without_a_disk_says_what_to_do(desk: StorageDesk) -> None:
    desk.target.luns.clear()
    ended = desk.type(log_in, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "shows it no disk" in ended.err


def test_two_stores(desk: StorageDesk) -> None:
    second = "iqn.2024-01.org.example:datengrab"
    desk.network.targets.append(Target(second, ("192.168.0.11:3260",), [Lun()]))
    more = STORE.__class__("datengrab", "192.168.0.11", "/datengrab", holds_vms=False)
    desk.inventory["stores"] = {STORE.name: STORE, more.name: more}
    assert desk.type(log_in, hosts=[ONE, TWO], yes=True).code == 0
    assert [s.target.name for s in desk.at(TWO).sessions] == [IQN, second]
    assert "to be" not in desk.type(log_in, hosts=[ONE, TWO]).out


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_at_every_request(fault: str, when: str, tmp_path: Path) -> None:
    for n in count(1):
        with SimCluster((ONE, TWO), seed=n) as sim:
            desk = StorageDesk(sim)
            desk.with_chap(tmp_path, SECRET)
            before = desk.files(ONE)
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = desk.type_or_die(log_in, hosts=[ONE], yes=True)
            sim.faults.clear()
            if ended is not None:
                assert SECRET not in ended.text
                if ended.code == 0:
                    assert is_set_up(desk), ended
                if ended.code == 2:
                    assert desk.files(ONE) == before, ended
            assert len(desk.at(ONE).sessions) <= 1
            desk.bring_back(ONE)
            again = desk.type(log_in, hosts=[ONE], yes=True, laptop=sim.another_laptop("second"))
            assert again.code == 0, (n, again)
            assert is_set_up(desk)
        if not rule.struck:
            assert n > 20, "it asks more often than that"
            return
