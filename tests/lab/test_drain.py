"""drain and undrain on the practice cluster."""

from __future__ import annotations

import signal

from tests.lab.fab import FOUR, ONE, THREE, TWO, Fab

LONG = ("--timeout", "200")


def test_drain_and_undrain_from_different_laptops(fab: Fab) -> None:
    fab.add(ONE, web="now", db="2", legacy="now", gone="now", off="now")
    fab.lab.virsh(ONE, "destroy", "off")
    done = fab("-H", ONE, "drain", "--yes", "--json", *LONG)
    assert done.code == 0, done.said
    names = ("web", "db", "legacy", "gone")
    assert done.results == dict.fromkeys(names, "moved")
    assert {name: one["target"] for name, one in done.outcomes.items()} == {
        name: hosts[0] for name, hosts in fab.where().items()
    }
    assert ONE not in {host for hosts in fab.where().values() for host in hosts}
    assert "vmhost1 is empty and cordoned." in done.said
    assert fab.cordons() == [ONE]
    fab.counting(*names)
    # The second drain finds nothing to do and changes nothing.
    before = fab.state()
    again = fab("-H", ONE, "drain", "--yes")
    assert again.code == 0, again.said
    assert "No VM has to leave vmhost1." in again.out
    assert fab.state() == before
    # Another laptop sees the cordon: nothing is placed there.
    other = fab.other_laptop()
    refused = other("migrate", "web", "--to", ONE, "--yes")
    assert refused.code == 2, refused.said
    assert "cordoned" in refused.said
    # Somebody moves one and stops another before undrain.
    (legacy,) = fab.where()["legacy"]
    (elsewhere,) = {TWO, THREE, FOUR} - {legacy} - {FOUR if legacy != FOUR else THREE}
    moved = other("migrate", "legacy", "--to", elsewhere, "--yes", *LONG)
    assert moved.code == 0, moved.said
    fab.lab.virsh(fab.where()["gone"][0], "destroy", "gone")
    back = other("-H", ONE, "undrain", "--yes", "--json", *LONG)
    assert back.code == 0, back.said
    assert back.results == {"web": "moved", "db": "moved"}
    assert f"legacy stays: it was moved to {elsewhere} since." in back.said
    assert "gone stays: it is off now." in back.said
    assert fab.where() == {"web": (ONE,), "db": (ONE,), "legacy": (elsewhere,)}
    assert fab.cordons() == []
    assert sorted(fab.running_vms(ONE) or []) == ["db", "web"]
    nothing = fab("-H", ONE, "undrain", "--yes")
    assert nothing.code == 0, nothing.said
    assert "vmhost1 is not cordoned" in nothing.said


def test_two_hosts_are_drained_together(fab: Fab) -> None:
    fab.add(ONE, "web", "mail")
    fab.add(TWO, "db")
    done = fab("-H", f"{ONE}, {TWO}", "drain", "--yes", "--json", *LONG)
    assert done.code == 0, done.said
    assert {one["target"] for one in done.outcomes.values()} <= {THREE, FOUR}
    assert {host for hosts in fab.where().values() for host in hosts} <= {THREE, FOUR}
    assert fab.cordons() == [ONE, TWO]
    back = fab("-H", f"{ONE},{TWO}", "undrain", "--yes", "--json", *LONG)
    assert back.code == 0, back.said
    assert fab.where() == {"web": (ONE,), "mail": (ONE,), "db": (TWO,)}
    assert fab.cordons() == []


def test_only_exclude_and_to(fab: Fab) -> None:
    fab.add(ONE, "web-1", "web-2", "mail")
    words = ("-H", ONE, "drain", "--yes", "--json", *LONG)
    done = fab(*words, "--only", "web*", "--exclude", "web-2", "--to", THREE)
    assert done.code == 0, done.said
    assert done.results == {"web-1": "moved"}
    done = fab(*words, "--exclude", "mail", "--to", f"{THREE},{FOUR}")
    assert done.code == 0, done.said
    assert done.results == {"web-2": "moved"}
    assert fab.where()["web-1"] == (THREE,)
    assert fab.where()["web-2"][0] in (THREE, FOUR)
    assert fab.where()["mail"] == (ONE,)
    # Both drains stand under the one cordon.
    back = fab("-H", ONE, "undrain", "--yes", "--json", *LONG)
    assert back.code == 0, back.said
    assert fab.where() == dict.fromkeys(("web-1", "web-2", "mail"), (ONE,))


def test_output_that_nobody_reads_does_not_stop_it(fab: Fab) -> None:
    fab.add(ONE, "web", "mail")
    before = fab.state()
    closed = fab.shell(f"fab -H {ONE} drain --yes >&-")
    assert closed.code == 2, closed.said
    assert closed.reason()[0].startswith("Standard output is closed")
    assert fab.state() == before
    headed = fab.shell(f"fab -H {ONE} drain --yes --timeout 200 | head -1; exit ${{PIPESTATUS[0]}}")
    assert headed.code == 0, headed.said
    assert len(headed.out.splitlines()) == 1
    assert ONE not in {host for hosts in fab.where().values() for host in hosts}
    assert set(fab.where()) == {"web", "mail"}


def test_without_a_terminal_it_does_not_ask(fab: Fab) -> None:
    fab.add(ONE, "web")
    before = fab.state()
    for words in (("-H", ONE, "drain"), ("migrate", "web", "--to", TWO)):
        done = fab(*words)
        assert done.code == 2, done.said
        sentence, hint = done.reason()
        assert "no terminal" in sentence
        assert "--yes" in hint
    assert fab.state() == before


def test_fault_09_first_ctrl_c_finishes_what_is_under_way(fab: Fab) -> None:
    fab.add(ONE, first="5", second="5")
    words = ("-H", ONE, "drain", "--parallel", "1", "--yes", "--json", *LONG)
    draining = fab.begin(*words)
    draining.await_words("shutting down on vmhost1")
    (busy,) = (name for name in ("first", "second") if f"{name}: shutting down" in draining.said)
    (waiting,) = {"first", "second"} - {busy}
    draining.signal(signal.SIGINT)
    done = draining.done()
    assert done.code == 130, done.said
    assert done.results == {busy: "moved", waiting: "left"}
    assert fab.where()[busy] != (ONE,)
    assert fab.where()[waiting] == (ONE,)
    assert fab.starts(waiting) == []
    done = fab(*words)
    assert done.code == 0, done.said
    assert done.results == {waiting: "moved"}


def test_fault_09_second_ctrl_c_stops_at_once_and_says_where_things_stand(fab: Fab) -> None:
    fab.add(ONE, first="never", second="never")
    draining = fab.begin("-H", ONE, "drain", "--parallel", "1", "--yes", *LONG)
    draining.await_words("shutting down on vmhost1")
    draining.signal(signal.SIGINT)
    draining.await_words("Ctrl-C again stops now")
    draining.signal(signal.SIGINT)
    done = draining.done()
    assert done.code == 130, done.said
    sentence, hint = done.reason()
    assert "first (vmhost1 to" in sentence
    assert "second (vmhost1 to" in sentence
    assert "fab resume" in hint
    assert fab.where() == {"first": (ONE,), "second": (ONE,)}
    resumed = fab.other_laptop()("resume", "--yes", "--timeout", "3")
    assert resumed.code == 0, resumed.said
    assert f"fab -H {ONE} drain" in resumed.out
    assert fab.where()["first"] != (ONE,)
    assert fab.where()["second"] == (ONE,)
    done = fab("-H", ONE, "drain", "--yes", "--json", "--timeout", "3")
    assert done.code == 0, done.said
    assert done.results == {"second": "moved"}


def test_fault_09_fab_is_killed_and_another_laptop_goes_on(fab: Fab) -> None:
    fab.add(ONE, first="never", second="never")
    draining = fab.begin("-H", ONE, "drain", "--parallel", "1", "--yes", *LONG)
    draining.await_words("shutting down on vmhost1")
    draining.signal(signal.SIGKILL)
    draining.done()
    fab.await_given_up()
    done = fab.other_laptop()("-H", ONE, "drain", "--yes", "--json", "--timeout", "3")
    assert done.code == 0, done.said
    assert done.results == {"first": "moved", "second": "moved"}
    assert [len(fab.starts(name)) for name in ("first", "second")] == [1, 1]
    back = fab("-H", ONE, "undrain", "--yes", "--timeout", "3")
    assert back.code == 0, back.said
    assert fab.where() == {"first": (ONE,), "second": (ONE,)}
