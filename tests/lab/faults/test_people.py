"""Rows 9 to 12 of the faults to survive: laptops that sleep, other people at work, and no room.

For row 9, Ctrl-C is in tests/lab/test_drain.py.
"""

from __future__ import annotations

from tests.lab.fab import FOUR, LONG, MIGRATE, ONE, THREE, TWO, Fab


def test_fault_09_laptop_is_suspended(fab: Fab) -> None:
    """For so long that the hosts give it up: once during shutdowns, once just after a start was sent.

    Another operator starts one of the VMs again meanwhile.
    """
    fab.add(ONE, web="6", mail="6", db="now")
    other = fab.other_laptop()
    stopping = fab.begin("migrate", "web,mail", "--to", TWO, "--yes", "--json", *LONG)
    fab.await_pressed(ONE, "web")
    fab.await_pressed(ONE, "mail")
    starting = other.begin("migrate", "db", "--to", THREE, "--yes", "--json", *LONG)
    with stopping.suspended():
        fab.await_start("db")
        with starting.suspended():
            for name in ("web", "mail", "db"):
                fab.await_free(name)
            assert fab.where() == {"db": (THREE,)}
            again = other("-H", ONE, "vm.start", "mail", "--json")
            assert again.code == 0, again.said
    stopped, started = stopping.done(), starting.done()
    assert started.code == 0, started.said
    assert stopped.code == 1, stopped.said
    assert stopped.results == {"web": "moved", "mail": "left"}
    assert stopped.outcomes["mail"]["running_on"] == ONE
    assert fab.where() == {"web": (TWO,), "mail": (ONE,), "db": (THREE,)}
    assert {name: fab.starts(name) for name in fab.where()} == {"web": [TWO], "mail": [ONE], "db": [THREE]}


def test_fault_10_started_by_hand_while_its_end_is_being_proved(fab: Fab) -> None:
    """A frozen third host holds every proof up, so that there is time to type."""
    fab.add(ONE, elsewhere="8", target="8", source="8")
    fab.also_define("elsewhere", THREE)
    fab.also_define("target", TWO)
    names = ("elsewhere", "target", "source")
    moving = fab.begin("migrate", ",".join(names), "--to", TWO, "--yes", "--json", *LONG)
    for name in names:
        fab.await_pressed(ONE, name)
    fab.lab.freeze(FOUR, "libvirtd")
    for name, host in (("elsewhere", THREE), ("target", TWO), ("source", ONE)):
        fab.await_off(name)
        fab.lab.virsh(host, "start", name)
    fab.lab.thaw(FOUR, "libvirtd")
    done = moving.done()
    assert done.code == 1, done.said
    assert fab.where() == {"elsewhere": (THREE,), "target": (TWO,), "source": (ONE,)}
    found = {name: one["running_on"] for name, one in done.outcomes.items()}
    assert found == {"elsewhere": THREE, "target": TWO, "source": ONE}
    assert done.results == {"elsewhere": "left", "target": "already-there", "source": "left"}
    assert [len(fab.starts(name)) for name in names] == [1, 1, 1]


def test_fault_10_moved_or_shut_down_by_hand_before_its_turn(fab: Fab) -> None:
    fab.add(ONE, first="8", moved="now", stopped="now")
    fab.also_define("moved", THREE)
    draining = fab.begin("-H", ONE, "drain", "--parallel", "1", "--to", TWO, "--yes", "--json", *LONG)
    draining.await_words("shutting down")
    (busy,) = (name for name in ("first", "moved", "stopped") if f"{name}: shutting down" in draining.said)
    assert busy == "first", draining.said
    for name in ("moved", "stopped"):
        fab.lab.virsh(ONE, "destroy", name)
    fab.lab.virsh(THREE, "start", "moved")
    done = draining.done()
    assert done.code == 1, done.said
    assert done.results == {"first": "moved", "moved": "left", "stopped": "left"}
    assert done.outcomes["moved"]["running_on"] == THREE
    assert fab.where() == {"first": (TWO,), "moved": (THREE,)}


def test_fault_11_two_drains_of_a_host_at_once(fab: Fab) -> None:
    fab.add(ONE, web="3", mail="now")
    both = [one.begin("-H", ONE, "drain", "--yes", *LONG) for one in (fab, fab.other_laptop())]
    codes = sorted(one.done().code for one in both)
    assert codes in ([0, 0], [0, 2]), [one.said for one in both]
    if codes == [0, 2]:
        assert any("Host vmhost1 is being worked on" in one.said for one in both)
    assert {name: len(hosts) for name, hosts in fab.where().items()} == {"web": 1, "mail": 1}
    assert (ONE,) not in fab.where().values()
    assert [len(fab.starts(name)) for name in ("web", "mail")] == [1, 1]


def test_fault_11_two_moves_then_two_starts_of_a_vm_at_once(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
    operators, targets = (fab, fab.other_laptop()), (TWO, THREE)
    both = [
        one.begin("migrate", "web", "--to", target, "--yes", *LONG)
        for one, target in zip(operators, targets, strict=True)
    ]
    codes = [one.done().code for one in both]
    assert sorted(codes)[0] == 0, [one.said for one in both]
    assert sorted(codes)[1] in (1, 2), [one.said for one in both]
    (won,) = fab.where()["web"]
    assert won == targets[codes.index(0)]
    assert fab.starts("web") == [won]
    fab.lab.virsh(won, "destroy", "web")
    both = [one.begin("-H", host, "vm.start", "web") for one, host in zip(operators, (won, ONE), strict=True)]
    codes = [one.done().code for one in both]
    assert sorted(codes)[0] == 0, [one.said for one in both]
    assert sorted(codes)[1] in (1, 2), [one.said for one in both]
    (again,) = fab.where()["web"]
    assert again == (won, ONE)[codes.index(0)]
    assert fab.starts("web") == [won, again]


def test_fault_11_a_drain_and_a_move_of_its_vm_at_once(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
    moving = fab.begin("migrate", "web", "--to", TWO, "--yes", *LONG)
    draining = fab.other_laptop().begin("-H", ONE, "drain", "--to", THREE, "--yes", *LONG)
    codes = (moving.done().code, draining.done().code)
    assert 0 in codes, moving.said + draining.said
    assert set(codes) <= {0, 1, 2}, moving.said + draining.said
    assert len(fab.where()["web"]) == 1
    assert fab.where()["web"] != (ONE,)
    assert len(fab.starts("web")) == 1


def test_fault_12_nobody_has_room(fab: Fab) -> None:
    fab.add(ONE, "web", "mail")
    fab.use_inventory(host_variables="vmfab_reserve=4TiB")
    before = fab.state()
    done = fab("-H", ONE, "drain", "--yes", "--json")
    assert done.code == 2, done.said
    refusals = {(one["vm"], one["host"]) for one in done.document["refusals"]}
    assert refusals >= {(vm, host) for vm in ("web", "mail") for host in (TWO, THREE, FOUR)}
    sentence, hint = done.reason()
    assert "web" in sentence
    assert "mail" in sentence
    assert hint.startswith("Nothing was changed.")
    assert fab.state() == before
    done = fab(*MIGRATE, "--ignore-reserve", *LONG)
    assert done.code == 0, done.said


def test_fault_12_one_has_no_room_and_partial_moves_the_rest(fab: Fab) -> None:
    fab.add(ONE, "ns1", "ns2", "web")
    fab.use_inventory("[apart_dns]", "[apart_dns:vars]", "vmfab_vms=ns1, ns2")
    before = fab.state()
    words = ("-H", ONE, "drain", "--to", TWO, "--yes", "--json", *LONG)
    done = fab(*words)
    assert done.code == 2, done.said
    assert {one["vm"] for one in done.document["refusals"]} == {"ns2"}
    assert {one["flag"] for one in done.document["refusals"]} == {"--ignore-apart"}
    assert "--partial" in done.reason()[1]
    assert fab.state() == before
    done = fab(*words, "--partial")
    assert done.code == 1, done.said
    assert done.results == {"ns1": "moved", "web": "moved"}
    assert fab.where() == {"ns1": (TWO,), "ns2": (ONE,), "web": (TWO,)}
    assert fab.starts("ns2") == []
