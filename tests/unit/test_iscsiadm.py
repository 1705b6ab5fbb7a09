"""iscsiadm's output and records, as recorded from open-iscsi 2.1.8 (Debian 12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.cluster.setup import iscsiadm
from tasks.cluster.setup.iscsiadm import Record

DATA = Path(__file__).parent / "data" / "storage"
IQN = "iqn.2024-01.de.example:vmstorage"
MINE = Record(IQN, "192.168.0.10", 3260, 1, "vmfab")


def recorded(name: str) -> str:
    return (DATA / name).read_text()


def test_records() -> None:
    assert iscsiadm.records(recorded("node-p1.txt")) == (
        Record("iqn.2024-01.de.example:datengrab", "192.168.0.11", 3261, 1, "default"),
        MINE,
        Record(IQN, "fd00::10", 3260, 1, "default"),
    )
    assert MINE.path("/etc/iscsi") == f"/etc/iscsi/nodes/{IQN}/192.168.0.10,3260,1/vmfab"
    assert MINE.portal == "192.168.0.10:3260"
    assert Record(IQN, "fd00::10", 3260, 1, "x").portal == "[fd00::10]:3260"
    assert iscsiadm.records("") == ()


def test_logins() -> None:
    """The recording is of a practice machine that had logged in with CHAP."""
    (login,) = iscsiadm.logins(recorded("session-p3.txt"))
    iqn = "iqn.2026-01.example.lab:vmstorage"
    assert login == iscsiadm.Login(iqn, "4", "10.77.1.10:3260", "vmfab", "enp0s3", "LOGGED_IN", ("sda",))
    assert login.well
    assert iscsiadm.logins("") == ()


@pytest.mark.parametrize("text", ["surprise\n", "Target: x\n\tPortal: nowhere\n", "\t\tIface Name: x\n"])
def test_a_record_list_of_another_form_is_not_guessed_at(text: str) -> None:
    with pytest.raises(ValueError, match=text.strip().split()[-1]):
        iscsiadm.records(text)


def test_offers() -> None:
    text = f"192.168.0.10:3260,1 {IQN}\n[fd00::10]:3260,1 {IQN}\n"
    assert iscsiadm.offered(text) == (("192.168.0.10", 3260, 1, IQN), ("fd00::10", 3260, 1, IQN))
    assert iscsiadm.offered("\n") == ()
    with pytest.raises(ValueError, match="oops"):
        iscsiadm.offered("oops\n")


def test_nics() -> None:
    addresses = recorded("ip-addr.json")
    assert iscsiadm.nic_with("192.168.0.21", addresses) == "ens4"
    assert iscsiadm.nic_with("192.168.0.2", addresses) is None
    route = (
        '[{"dst":"8.8.8.8","gateway":"192.0.2.1","dev":"eth0","prefsrc":"192.0.2.2","flags":[],"cache":[]}]\n'
    )
    assert iscsiadm.route_nic(route) == "eth0"


def test_a_record_is_edited_and_otherwise_kept() -> None:
    before = recorded("record.txt")
    wanted = {
        "node.startup": "automatic",
        "iface.net_ifacename": "ens4",
        "node.session.auth.password": "pass#word = x",
    }
    after = iscsiadm.with_settings(before, wanted)
    assert all(iscsiadm.setting(after, name) == value for name, value in wanted.items())
    changed = set(after.splitlines()) ^ set(before.splitlines())
    assert changed == {
        "node.startup = manual",
        "node.startup = automatic",
        "iface.net_ifacename = ens4",
        "node.session.auth.password = pass#word = x",
    }
    assert after.endswith("# END RECORD\n")
    assert iscsiadm.with_settings(after, wanted) == after


def test_a_setting_that_stands_twice_stands_once_then() -> None:
    assert iscsiadm.with_settings("a = 1\nb = 2\na = 3\n", {"a": "4"}) == "a = 4\nb = 2\n"


def test_secrets_are_masked() -> None:
    before = "x = 1\nnode.session.auth.password = old\nnode.session.auth.password_in = in\n"
    same = iscsiadm.masked(before, before.replace("x = 1", "x = 2"))
    assert same == (
        "x = 1\nnode.session.auth.password = ********\nnode.session.auth.password_in = ********\n",
        "x = 2\nnode.session.auth.password = ********\nnode.session.auth.password_in = ********\n",
    )
    _, shown = iscsiadm.masked(before, before.replace("old", "new"))
    assert "node.session.auth.password = ******** (another)\n" in shown
    assert "new" not in shown
    assert iscsiadm.masked("x = 1\n", "node.session.auth.password = first\n")[1] == (
        "node.session.auth.password = ********\n"
    )
