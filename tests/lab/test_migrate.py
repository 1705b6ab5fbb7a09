"""migrate on the practice cluster: what it does to the VM, to both hosts and to their files."""

from __future__ import annotations

import signal

from tests.lab.fab import FOUR, ONE, THREE, TWO, Fab

#: Names that break what is put together carelessly: shells, command lines, virsh's own parsing, JSON, XML.
ODD = ("my vm", "$(touch x)", "-dash", "Grün", "a'b\"c")


LONG = ("--timeout", "200")


def autostart(fab: Fab, host: str, name: str) -> None:
    fab.lab.virsh(host, "autostart", fab.uuid(name))


def test_moves_by_shutdown_and_start_and_keeps_the_books(fab: Fab) -> None:
    fab.add(ONE, "web", "mail")
    autostart(fab, ONE, "web")
    (fab.lab.disk(ONE) / "root/running_vms").write_text("web\r\n\nmail", encoding="utf-8")
    mail = fab.definitions(ONE)["mail"]
    done = fab("migrate", "web", "--to", TWO, "--yes", "--json", "--timeout", "120")
    assert done.code == 0, done.said
    web = done.outcomes["web"]
    assert (web["result"], web["running_on"], web["stopped_by"]) == ("moved", TWO, "shutdown")
    assert web["warnings"] == []
    assert web["downtime"] > 0
    assert fab.where() == {"web": (TWO,), "mail": (ONE,)}
    assert fab.starts("web") == [TWO]
    # The source keeps its definition, but neither host starts it at its boot; the lists know where it is.
    assert set(fab.definitions(ONE)) == {"web", "mail"}
    assert fab.definitions(ONE)["mail"] == mail
    assert set(fab.definitions(TWO)) == {"web"}
    assert fab.autostart(ONE) == fab.autostart(TWO) == set()
    assert fab.running_vms(ONE) == ["mail"]
    assert fab.running_vms(TWO) == ["web"]
    steps = [line["step"] for line in fab.journal() if line["line"] == "before"]
    assert steps == ["define", "shutdown", "start", "bookkeeping"]
    lines = [line["line"] for line in fab.journal()]
    assert (lines[0], lines[-1]) == ("plan", "end")
    fab.counting("web")
    assert [boot.number for boot in fab.lab.testimony("web").boots] == [1, 2]
    again = fab("migrate", "web", "--to", TWO, "--yes")
    assert again.code == 2, again.said
    assert "vmhost2: runs it already" in again.said
    assert fab.starts("web") == [TWO]


def test_undefine_source_and_the_best_host_without_to(fab: Fab) -> None:
    fab.add(ONE, "web")
    fab.use_inventory("[apart_web]", "[apart_web:vars]", "vmfab_vms=web, other*")
    fab.lab.add_vm("other-2", TWO)
    fab.lab.add_vm("other-3", THREE)
    done = fab("migrate", "web", "--yes", "--json", "--undefine-source", "--timeout", "120")
    assert done.code == 0, done.said
    assert fab.where()["web"] == (FOUR,)
    assert fab.definitions(ONE) == {}
    assert "web" in fab.definitions(FOUR)


def test_dry_run_changes_nothing(fab: Fab) -> None:
    fab.add(ONE, "web")
    before = fab.state()
    for words in (["migrate", "web", "--to", TWO], ["-H", ONE, "drain"], ["-H", ONE, "undrain"]):
        done = fab(*words, "--dry-run")
        assert done.code == 0, done.said
    assert fab.state() == before


def test_odd_names_are_migrated_and_drained(fab: Fab) -> None:
    fab.add(ONE, *ODD)
    done = fab("-H", ONE, "drain", "--to", TWO, "--yes", "--json", "--timeout", "200")
    assert done.code == 0, done.said
    assert done.results == dict.fromkeys(ODD, "moved")
    assert fab.where() == dict.fromkeys(ODD, (TWO,))
    assert sorted(fab.running_vms(TWO) or []) == sorted(ODD)
    fab.counting(*ODD)
    done = fab("migrate", f"--vm={','.join(ODD)}", "--to", THREE, "--yes", "--json", "--timeout", "200")
    assert done.code == 0, done.said
    assert fab.where() == dict.fromkeys(ODD, (THREE,))
    assert fab.running_vms(TWO) == []
    done = fab("migrate", "--vm=-dash", "--to", FOUR, "--yes", "--timeout", "200")
    assert done.code == 0, done.said
    assert fab.where()["-dash"] == (FOUR,)
    assert all(set(fab.definitions(host)) == set(ODD) for host in (ONE, TWO, THREE))


def test_fab_is_killed_during_the_shutdown_and_the_same_command_goes_on(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="never")
    words = ["migrate", "web", "--to", TWO, "--yes"]
    first = fab.begin(*words, *LONG)
    fab.await_pressed(ONE, "web")
    first.signal(signal.SIGKILL)
    assert first.done().code == -signal.SIGKILL
    fab.await_given_up()
    done = fab(*words, "--timeout", "3")
    assert done.code == 0, done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_fab_is_killed_after_the_start_and_the_same_command_says_so(fab: Fab) -> None:
    fab.add(ONE, "web")
    words = ["migrate", "web", "--to", TWO, "--yes", *LONG]
    first = fab.begin(*words)
    first.await_words("web: watching")
    first.signal(signal.SIGKILL)
    first.done()
    fab.await_given_up()
    done = fab(*words)
    assert done.code == 2, done.said
    assert "vmhost2: runs it already" in done.said
    assert fab.where() == {"web": (TWO,)}
    assert fab.starts("web") == [TWO]


def test_fab_is_killed_while_the_vm_goes_off_and_the_way_on_is_named(fab: Fab) -> None:
    fab.add(ONE, "web", acpi="4")
    words = ["migrate", "web", "--to", TWO, "--yes", *LONG]
    first = fab.begin(*words)
    fab.await_pressed(ONE, "web")
    first.signal(signal.SIGKILL)
    first.done()
    fab.await_given_up()
    fab.await_off("web")
    done = fab(*words)
    assert done.code == 2, done.said
    assert "it is not running (vm.start starts it)" in done.said
    assert fab.where() == {}
    started = fab("-H", TWO, "vm.start", "web")
    assert started.code == 0, started.said
    assert fab.where() == {"web": (TWO,)}
