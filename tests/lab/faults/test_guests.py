"""Rows 1 to 4 of the faults to survive: a guest that does not stop, or does not start, as it should."""

from __future__ import annotations

from tests.lab.fab import LONG, MIGRATE, ONE, THREE, TWO, Fab


def test_fault_01_guest_ignores_its_shutdown(fab: Fab) -> None:
    fab.add(ONE, legacy="never", web="now")
    drain = ("-H", ONE, "drain", "--parallel", "1", "--yes", "--json")
    done = fab(*drain, "--no-destroy", "--timeout", "20")
    assert done.code == 1, done.said
    assert done.results == {"legacy": "kept", "web": "moved"}
    assert "still runs on vmhost1" in done.outcomes["legacy"]["detail"]
    assert "vmhost1 is not empty; there still run: legacy." in done.said
    assert fab.where()["legacy"] == (ONE,)
    assert fab.where()["web"] != (ONE,)
    assert fab.starts("legacy") == []
    assert ONE in fab.cordons()
    done = fab(*drain, "--to", TWO, "--timeout", "3")
    assert done.code == 0, done.said
    assert done.outcomes["legacy"]["stopped_by"] == "destroyed"
    assert fab.where()["legacy"] == (TWO,)
    assert fab.starts("legacy") == [TWO]
    fab.counting("legacy")


def test_fault_02_destroy_fails(fab: Fab) -> None:
    """QEMU hangs in the kernel. A destroy of which nobody knows how it ended is in test_silence.py."""
    fab.add(ONE, "web", acpi="never")
    moving = fab.begin(*MIGRATE, "--timeout", "8")
    fab.await_pressed(ONE, "web")
    with fab.unkillable("web"):
        done = moving.done()
        assert fab.where() == {"web": (ONE,)}
    assert done.code == 3, done.said
    assert done.results == {"web": "unknown"}
    assert "counts as running" in done.said
    assert fab.starts("web") == []


def test_fault_03_target_refuses_the_start(fab: Fab) -> None:
    """Once on one target, twice on another."""
    fab.add(ONE, "web", "mail")
    fab.lab.virsh(ONE, "autostart", "mail")
    fab.lab.fail_next_start(TWO)
    fab.lab.fail_next_start(THREE, times=2)
    moving = fab.begin(*MIGRATE, *LONG)
    returned = fab.other_laptop()("migrate", "mail", "--to", THREE, "--yes", "--json", *LONG)
    moved = moving.done()
    assert moved.code == 0, moved.said
    assert "second try" in moved.outcomes["web"]["warnings"][0]
    assert returned.code == 1, returned.said
    mail = returned.outcomes["mail"]
    assert (mail["result"], mail["running_on"]) == ("back", ONE)
    assert "on purpose" in mail["detail"]
    assert fab.where() == {"web": (TWO,), "mail": (ONE,)}
    assert (fab.starts("web"), fab.starts("mail")) == ([TWO, TWO], [THREE, THREE, ONE])
    assert fab.autostart(ONE) == {"mail"}
    assert (fab.running_vms(ONE), fab.running_vms(TWO)) == (["mail"], ["web"])
    assert not fab.running_vms(THREE)


def test_fault_04_vm_dies_right_after_its_start(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.lab.die_after_start(TWO, 1)
    done = fab(*MIGRATE, *LONG)
    assert done.code == 1, done.said
    web = done.outcomes["web"]
    assert (web["result"], web["running_on"]) == ("back", ONE)
    assert "did not stay up" in web["detail"]
    assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == [TWO, TWO, ONE]
