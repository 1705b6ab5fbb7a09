"""Rows 6 and 18 of the faults to survive: the store is gone, full or read-only."""

from __future__ import annotations

from tasks.lab import law
from tests.lab.fab import LONG, MIGRATE, ONE, TWO, Fab


def test_fault_06_target_loses_the_store_between_plan_and_start(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="6")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    fab.lab.unmount_store(TWO)
    done = moving.done()
    assert done.code == 1, done.said
    web = done.outcomes["web"]
    assert (web["result"], web["running_on"]) == ("back", ONE)
    assert "vmhost2" in web["detail"]
    assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == [ONE]


def test_fault_18_the_store_is_full_or_read_only_or_not_mounted(fab: Fab) -> None:
    fab.add(ONE, "web")
    processes = law.emulators(fab.lab)
    for fault in ("full", "read-only", "not mounted"):
        if fault == "full":
            fab.lab.fill_store()
        elif fault == "read-only":
            fab.lab.read_only_store(TWO)
        else:
            fab.lab.unmount_store(TWO)
        done = fab(*MIGRATE)
        assert done.code == 2, (fault, done.said)
        assert fault in done.said.lower()
        assert law.emulators(fab.lab) == processes
        assert fab.starts("web") == []
        assert fab.definitions(TWO) == {}
        fab.counting("web")
        fab.lab.unfill_store()
        fab.lab.mount_store(TWO)


def test_fault_18_the_store_fills_up_during_a_move(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="6")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    fab.lab.fill_store()
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert done.results == {"web": "moved"}
