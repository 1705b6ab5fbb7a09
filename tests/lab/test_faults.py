"""What can go wrong in a move, replayed with real parts; the numbers are those of the list of faults.

After each of them the fixture proves that no guest ran twice, that none lost a write, and that no start was
even tried while another host ran the guest.
"""

from __future__ import annotations

import pytest

from tasks.lab import law
from tests.lab.fab import FOUR, ONE, THREE, TWO, Fab, Running

MIGRATE = ("migrate", "web", "--to", TWO, "--yes", "--json")
LONG = ("--timeout", "200")


def same_definition(fab: Fab, name: str, host: str) -> None:
    """Let another host know the VM as well, as the admins' habit of copying definitions does."""
    fab.lab.define_vm(host, fab.lab.virsh(ONE, "dumpxml", "--inactive", "--security-info", name))


# 1: the guest ignores the shutdown


def test_1_ignored_shutdown_ends_in_destroy(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="never")
    done = fab(*MIGRATE, "--timeout", "3")
    assert done.code == 0, done.said
    assert done.outcomes["web"]["stopped_by"] == "destroyed"
    assert fab.where() == {"web": (TWO,)}
    fab.counting("web")


def test_1_no_destroy_leaves_it_running_and_the_drain_goes_on(fab: Fab) -> None:
    fab.add(ONE, legacy="never", web="now")
    done = fab("-H", ONE, "drain", "--no-destroy", "--timeout", "15", "--parallel", "1", "--yes", "--json")
    assert done.code == 1, done.said
    assert done.results == {"legacy": "kept", "web": "moved"}
    assert "still runs on vmhost1" in done.outcomes["legacy"]["detail"]
    assert "vmhost1 is not empty; there still run: legacy." in done.said
    assert fab.where()["legacy"] == (ONE,)
    assert fab.where()["web"] != (ONE,)
    assert fab.starts("legacy") == []
    assert ONE in fab.cordons()


# 2: destroy fails, or is not known to have worked


def test_2_failed_destroy_starts_nothing(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="never")
    moving = fab.begin(*MIGRATE, "--timeout", "6")
    fab.await_pressed(ONE, "web")
    with fab.unkillable("web"):
        done = moving.done()
        assert done.code == 3, done.said
        assert done.results == {"web": "unknown"}
        assert "counts as running" in done.said
        assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == []


def test_2_destroy_of_unknown_outcome_starts_nothing(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="never")
    moving = fab.begin(*MIGRATE, "--timeout", "6")
    fab.await_pressed(ONE, "web")
    fab.lab.freeze(ONE, "libvirtd")
    done = moving.done()
    assert done.code == 3, done.said
    assert done.results == {"web": "unknown"}
    assert "counts as running" in done.said
    assert fab.starts("web") == []


# 3: the target refuses to start it


def test_3_refused_once_starts_at_the_second_try(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.lab.fail_next_start(TWO)
    done = fab(*MIGRATE, *LONG)
    assert done.code == 0, done.said
    assert "second try" in done.outcomes["web"]["warnings"][0]
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO, TWO]


def test_3_refused_twice_runs_again_on_the_source(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.lab.virsh(ONE, "autostart", "web")
    fab.lab.fail_next_start(TWO, times=2)
    done = fab(*MIGRATE, *LONG)
    assert done.code == 1, done.said
    web = done.outcomes["web"]
    assert (web["result"], web["running_on"]) == ("back", ONE)
    assert "on purpose" in web["detail"]
    assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == [TWO, TWO, ONE]
    assert fab.autostart(ONE) == {"web"}
    assert fab.running_vms(ONE) == ["web"]
    assert not fab.running_vms(TWO)


# 4: it dies right after its start on the target


def test_4_dies_after_its_start(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.lab.die_after_start(TWO, 1)
    done = fab(*MIGRATE, *LONG)
    assert done.code == 1, done.said
    web = done.outcomes["web"]
    assert (web["result"], web["running_on"]) == ("back", ONE)
    assert "did not stay up" in web["detail"]
    assert fab.where() == {"web": (ONE,)}
    assert fab.starts("web") == [TWO, TWO, ONE]


# 5: a host that is no part of the move does not answer


@pytest.mark.parametrize("fault", ["network", "sshd", "libvirtd", "power"])
def test_5_a_third_host_is_silent(fab: Fab, fault: str) -> None:
    fab.add(ONE, "web")
    if fault == "network":
        fab.lab.cut_network(FOUR)
    elif fault == "power":
        fab.lab.power_off(FOUR)
    else:
        fab.lab.freeze(FOUR, fault)
    before = fab.state()
    for words in (MIGRATE, ("-H", ONE, "drain", "--yes", "--json")):
        done = fab(*words)
        assert done.code == 2, done.said
        sentence, hint = done.reason()
        assert sentence.startswith("vmhost4 does not answer")
        assert "nothing was changed" in hint
    assert fab.state() == before


def test_5_a_third_host_falls_silent_in_the_middle(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
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


# 6: the target loses the store between plan and start


def test_6_target_loses_the_store(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
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


# 7: the connection to the source is lost between shutdown and proof


def begin_and_press(fab: Fab) -> Running:
    fab.add(ONE, "web", acpi="4")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    return moving


def test_7_session_to_the_source_ends_and_is_taken_up_again(fab: Fab) -> None:
    moving = begin_and_press(fab)
    fab.lab.cut_sessions(ONE)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_7_source_is_cut_off_and_comes_back(fab: Fab) -> None:
    moving = begin_and_press(fab)
    fab.lab.cut_network(ONE)
    moving.await_words("waiting for vmhost1")
    fab.await_off("web")
    assert fab.starts("web") == []
    fab.lab.mend_network(ONE)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_7_source_is_cut_off_for_good(fab: Fab) -> None:
    moving = begin_and_press(fab)
    fab.lab.cut_network(ONE)
    done = moving.done()
    assert done.code == 3, done.said
    assert done.results == {"web": "unknown"}
    assert "vmhost1" in done.outcomes["web"]["detail"]
    assert fab.starts("web") == []


# 8: the reply to the start is lost


def test_8_reply_to_the_start_is_lost(fab: Fab) -> None:
    fab.add(ONE, "web")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_start("web")
    fab.lab.cut_network(TWO)
    moving.await_words("the answer was lost")
    fab.lab.mend_network(TWO)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_8_session_to_the_target_ends_during_the_start(fab: Fab) -> None:
    fab.add(ONE, "web")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_start("web")
    fab.lab.cut_sessions(TWO)
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_8_target_is_cut_off_for_good_after_the_start(fab: Fab) -> None:
    fab.add(ONE, "web")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_start("web")
    fab.lab.cut_network(TWO)
    done = moving.done()
    assert done.code == 3, done.said
    assert "vmhost2" in done.outcomes["web"]["detail"]
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


# 10: somebody starts, moves or stops it by hand meanwhile


def test_10_started_by_hand_while_its_end_is_being_proved(fab: Fab) -> None:
    """A frozen third host holds every proof up, so that there is time to type."""
    fab.add(ONE, elsewhere="3", target="3", source="3")
    same_definition(fab, "elsewhere", THREE)
    same_definition(fab, "target", TWO)
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


def test_10_moved_or_shut_down_by_hand_before_its_turn(fab: Fab) -> None:
    fab.add(ONE, first="15", moved="now", stopped="now")
    same_definition(fab, "moved", THREE)
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


# 11: two operators at once


def test_11_two_drains_of_a_host_at_once(fab: Fab) -> None:
    fab.add(ONE, web="3", mail="now")
    both = [one.begin("-H", ONE, "drain", "--yes", *LONG) for one in (fab, fab.other_laptop())]
    codes = sorted(one.done().code for one in both)
    assert codes in ([0, 0], [0, 2]), [one.said for one in both]
    if codes == [0, 2]:
        assert any("Host vmhost1 is being worked on" in one.said for one in both)
    assert {name: len(hosts) for name, hosts in fab.where().items()} == {"web": 1, "mail": 1}
    assert (ONE,) not in fab.where().values()
    assert [len(fab.starts(name)) for name in ("web", "mail")] == [1, 1]


def test_11_two_moves_of_a_vm_at_once(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
    targets = (TWO, THREE)
    both = [
        one.begin("migrate", "web", "--to", target, "--yes", *LONG)
        for one, target in zip((fab, fab.other_laptop()), targets, strict=True)
    ]
    codes = [one.done().code for one in both]
    assert sorted(codes)[0] == 0, [one.said for one in both]
    assert sorted(codes)[1] in (1, 2), [one.said for one in both]
    assert fab.where() == {"web": (targets[codes.index(0)],)}
    assert len(fab.starts("web")) == 1


def test_11_a_drain_and_a_move_of_its_vm_at_once(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
    moving = fab.begin("migrate", "web", "--to", TWO, "--yes", *LONG)
    draining = fab.other_laptop().begin("-H", ONE, "drain", "--to", THREE, "--yes", *LONG)
    codes = (moving.done().code, draining.done().code)
    assert 0 in codes, moving.said + draining.said
    assert len(fab.where()["web"]) == 1
    assert fab.where()["web"] != (ONE,)
    assert len(fab.starts("web")) == 1


# 12: no room


def test_12_nobody_has_room(fab: Fab) -> None:
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
    done = fab("migrate", "web", "--to", TWO, "--ignore-reserve", "--yes", *LONG)
    assert done.code == 0, done.said


def test_12_one_has_no_room_and_partial_moves_the_rest(fab: Fab) -> None:
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


# 18: the store is full, read-only, or not mounted


@pytest.mark.parametrize("fault", ["full", "read-only", "not mounted"])
def test_18_the_store_is_bad(fab: Fab, fault: str) -> None:
    fab.add(ONE, "web")
    if fault == "full":
        fab.lab.fill_store()
    elif fault == "read-only":
        fab.lab.read_only_store(TWO)
    else:
        fab.lab.unmount_store(TWO)
    processes = law.emulators(fab.lab)
    done = fab(*MIGRATE)
    assert done.code == 2, done.said
    assert fault in done.said.lower()
    assert law.emulators(fab.lab) == processes
    assert fab.starts("web") == []
    assert set(fab.definitions(TWO)) == set()
    fab.counting("web")


def test_18_the_store_fills_up_during_a_move(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="3")
    moving = fab.begin(*MIGRATE, *LONG)
    fab.await_pressed(ONE, "web")
    fab.lab.fill_store()
    done = moving.done()
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert done.results == {"web": "moved"}
