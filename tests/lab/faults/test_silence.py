"""Rows 5, 7, 8 and half of 2 of the faults to survive: a host does not answer, for a while or for good."""

from __future__ import annotations

from tests.lab.fab import FOUR, LONG, MIGRATE, ONE, THREE, TWO, Fab


def test_fault_05_a_host_that_is_not_part_of_it_is_silent(fab: Fab) -> None:
    fab.add(ONE, "web")
    for fault in ("network", "sshd", "libvirtd", "power"):
        if fault == "network":
            fab.lab.cut_network(FOUR)
        elif fault == "power":
            fab.lab.power_off(FOUR)
        else:
            fab.lab.freeze(FOUR, fault)
        before = fab.state()
        both = [fab.begin(*words) for words in (MIGRATE, ("-H", ONE, "drain", "--yes", "--json"))]
        for done in [one.done() for one in both]:
            assert done.code == 2, (fault, done.said)
            sentence, hint = done.reason()
            assert sentence.startswith("vmhost4 does not answer"), fault
            assert "nothing was changed" in hint
        assert fab.state() == before, fault
        fab.lab.mend(FOUR)


def test_fault_05_it_falls_silent_in_the_middle(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="6")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    fab.lab.freeze(FOUR, "libvirtd")
    moving.await_words("web: proving")
    fab.await_off("web")
    assert fab.starts("web") == []
    fab.lab.thaw(FOUR, "libvirtd")
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}


def test_fault_07_source_is_cut_between_shutdown_and_proof_and_answers_again(fab: Fab) -> None:
    """First only the ssh sessions end, then, on the way back, the network is gone for a while."""
    fab.add(ONE, "web", acpi="6")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    fab.lab.cut_sessions(ONE)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]
    fab.counting("web")
    moving = fab.begin("migrate", "web", "--to", ONE, "--yes", *LONG)
    fab.await_pressed(TWO, "web")
    fab.lab.cut_network(TWO)
    moving.await_words("waiting for vmhost2")
    fab.await_off("web")
    assert fab.starts("web") == [TWO]
    fab.lab.mend_network(TWO)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == [TWO, ONE]


def test_fault_08_reply_to_the_start_is_lost(fab: Fab) -> None:
    """First the target's network is gone for a while, then, on the next move, only its ssh sessions end."""
    fab.add(ONE, "web")
    fab.lab.hold_starts(TWO)
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_start("web")
    fab.lab.cut_network(TWO)
    fab.lab.mend_starts(TWO)
    moving.await_words("the answer was lost")
    fab.lab.mend_network(TWO)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]
    fab.counting("web")
    fab.lab.hold_starts(THREE)
    moving = fab.begin("migrate", "web", "--to", THREE, "--yes", *LONG)
    fab.await_start("web", 2)
    fab.lab.cut_sessions(THREE)
    fab.lab.mend_starts(THREE)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (THREE,)}
    assert fab.starts("web") == [TWO, THREE]


def test_fault_02_and_07_and_08_the_host_stays_away(fab: Fab) -> None:
    """At the same time: for a start that was sent, a guest that is shutting down, and one being destroyed."""
    fab.add(ONE, "web")
    fab.add(THREE, mail="never", db="never")
    other = fab.other_laptop()
    stopping = other.begin("migrate", "mail", "--to", FOUR, "--yes", "--json", *LONG)
    destroying = other.begin("migrate", "db", "--to", FOUR, "--yes", "--json", "--timeout", "15")
    for name in ("mail", "db"):
        fab.await_pressed(THREE, name)
    with fab.unkillable("db"):
        fab.lab.hold_starts(TWO)
        starting = fab.begin(*MIGRATE, *LONG)
        fab.await_start("web")
        fab.lab.cut_network(TWO)
        fab.lab.mend_starts(TWO)
        destroying.await_words("db: destroying on vmhost3")
        fab.lab.cut_network(THREE)
        for moving, name, host in (
            (starting, "web", TWO),
            (stopping, "mail", THREE),
            (destroying, "db", THREE),
        ):
            done = moving.done()
            assert done.code == 3, done.said
            assert done.results == {name: "unknown"}
            assert host in done.outcomes[name]["detail"]
        assert fab.where() == {"web": (TWO,), "mail": (THREE,), "db": (THREE,)}
    assert {name: fab.starts(name) for name in ("web", "mail", "db")} == {"web": [TWO], "mail": [], "db": []}
