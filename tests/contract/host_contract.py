"""What every host answers, simulated or real. Each test gets a `bench` and talks through HostOps only."""

from __future__ import annotations

import json
import re
import uuid as uuids
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tasks.cluster import domainxml
from tasks.cluster.asking.hostfiles import Ended, HostFile
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.errors import HostError, HostSilent, LinkLost
from tasks.cluster.model import OFF, Domain, HostFacts, OpenOperation, Vm
from tests.contract.bench import HOST, OTHER, Bench

NOBODY = "00000000-1111-4222-8333-444444444444"
HOSTILE = ("web 01", "-rf", "ümläut", 'it\'s "$HOME"', "a;b", "$(reboot)", "100%s")

ON_A_VM: dict[str, Callable[[HostOps, str], object]] = {
    "dumpxml": lambda ops, uuid: ops.dumpxml(uuid, inactive=True, security=False),
    "undefine": lambda ops, uuid: ops.undefine(uuid),
    "autostart": lambda ops, uuid: ops.autostart(uuid, on=True),
    "start": lambda ops, uuid: ops.start(uuid),
    "shutdown": lambda ops, uuid: ops.shutdown(uuid),
    "destroy": lambda ops, uuid: ops.destroy(uuid, graceful=False),
    "reboot": lambda ops, uuid: ops.reboot(uuid),
}


def refused(kind: str) -> Any:
    """The host answers with an error of this kind."""
    return pytest.raises(HostError, check=lambda error: error.kind == kind)


def domain(facts: HostFacts, vm: Vm) -> Domain:
    found = facts.domain(vm)
    assert found is not None, facts.domains
    return found


def state_of(ops: HostOps, vm: Vm) -> tuple[str, str]:
    seen = domain(ops.observe(), vm)
    return seen.state, seen.reason


def taken(ops: HostOps, path: str) -> bool:
    """Try to take a lock; False when somebody else holds it."""
    try:
        ops.store_lock(path, {"by": "bob"})
    except HostError as error:
        if error.kind != "locked":
            raise
        return False
    return True


class HostContract:
    """The contract; a subclass's module supplies the fixture `bench`."""

    # -- facts ---------------------------------------------------------------------------------------

    def test_facts_of_a_host_without_vms(self, bench: Bench) -> None:
        facts = bench.open().observe(plan=True)
        assert facts.host == HOST
        assert facts.domains == ()
        assert facts.processes == ()
        assert facts.libvirt_problem == ""
        assert re.fullmatch(r"\d+\.\d+\.\d+", facts.libvirt_version)
        assert re.fullmatch(r"[0-9a-f-]{36}", facts.boot_id)
        assert facts.cpus > 0
        assert 0 < facts.memory_available_kib <= facts.memory_total_kib
        assert facts.running_vms is None
        assert "br0" in facts.bridges
        assert any(m.startswith("x86_64/pc-") for m in facts.machines)
        assert (facts.store.mounted, facts.store.problem) == (True, "")
        assert facts.store.mount == "/vmstorage"
        assert 0 < facts.store.free_bytes <= facts.store.total_bytes

    def test_a_boot_has_one_boot_id_and_each_host_its_own(self, bench: Bench) -> None:
        ids = [bench.open(host).observe().boot_id for host in (HOST, HOST, OTHER)]
        assert ids[0] == ids[1] != ids[2]

    def test_machine_types_and_definitions_come_only_with_a_plan(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        facts = bench.open().observe()
        seen = domain(facts, vm)
        assert (seen.xml, seen.live_xml, seen.images, facts.machines) == ("", "", frozenset(), frozenset())
        assert seen.memory_kib > 0
        assert seen.vcpus == 1

    def test_facts_of_a_vm_that_is_off(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        facts = bench.open().observe(plan=True)
        seen = domain(facts, vm)
        assert seen.vm == vm
        assert (seen.state, seen.persistent, seen.autostart, seen.managed_save) == (OFF, True, False, False)
        assert (seen.pid, seen.since, seen.live_xml) == (None, None, "")
        assert len(seen.images) == 1
        assert next(iter(seen.images)).startswith("store:")
        assert facts.processes == ()

    def test_facts_of_a_vm_that_runs(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        facts = bench.open().observe(plan=True)
        seen = domain(facts, vm)
        assert (seen.state, seen.running) == ("running", True)
        assert seen.since is not None
        assert abs(facts.at - seen.since) < 120
        assert re.search(r"<domain [^>]*id=", seen.live_xml)
        assert not re.search(r"<domain [^>]*\bid=", seen.xml)
        process = next(p for p in facts.processes if p.pid == seen.pid)
        assert (process.uuid, process.name) == (vm.uuid, vm.name)
        assert seen.images <= process.images

    def test_an_image_has_the_same_key_on_every_host(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        other = bench.open(OTHER)
        other.define(bench.open().dumpxml(vm.uuid, inactive=True, security=True))
        here = domain(bench.open().observe(plan=True), vm)
        there = domain(other.observe(plan=True), vm)
        assert here.images == there.images != frozenset()

    def test_running_lists_what_is_active_and_nothing_else(self, bench: Bench) -> None:
        on, off = bench.add_vm("on", running=True), bench.add_vm("off")
        seen = bench.open().running()
        assert [d.vm for d in seen.active] == [on]
        assert len(seen.active[0].images) == 1
        assert [p.uuid for p in seen.processes] == [on.uuid]
        assert seen.store_problem == ""
        assert off not in [d.vm for d in seen.active]

    def test_a_paused_vm_is_active(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        bench.suspend(vm)
        assert [(d.vm, d.state) for d in bench.open().running().active] == [(vm, "paused")]

    def test_look_tells_files_on_the_store_from_others(self, bench: Bench) -> None:
        bench.add_vm("web")
        image, missing, elsewhere = "/vmstorage/images/web.img", "/vmstorage/images/no", "/nowhere/x.iso"
        found = bench.open().look([image, missing, elsewhere])
        assert (found[image].exists, found[image].on_store) == (True, True)
        assert (found[missing].exists, found[missing].on_store) == (False, True)
        assert (found[elsewhere].exists, found[elsewhere].on_store) == (False, False)

    # -- what an audit asks --------------------------------------------------------------------------

    def test_the_clock_is_that_of_the_facts(self, bench: Bench) -> None:
        ops = bench.open()
        before = ops.observe().at
        assert before <= ops.clock() <= ops.observe().at

    def test_locks_are_told_without_a_trace(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        assert ops.store_held(["locks/vm-1", "locks/vm-2"]) == {}
        other.store_lock("locks/vm-1", {"by": "ada"})
        for asked in (ops, other):
            held = asked.store_held(["locks/vm-1", "locks/vm-2"])
            assert {path: json.loads(text)["by"] for path, text in held.items()} == {"locks/vm-1": "ada"}
        other.store_unlock("locks/vm-1")
        assert ops.store_held(["locks/vm-1", "locks/vm-2"]) == {}
        assert ops.store_read("locks/vm-2") is None
        assert taken(other, "locks/vm-1")
        with refused("bad-request"):
            ops.store_held(["../etc/passwd"])

    def test_images_are_found_by_the_keys_of_the_definitions(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        for file in ("left over.img", "linux.iso"):
            bench.add_image(file)
        ops = bench.open()
        ops.store_write("owners/x.img", "x" * 100_000)
        found = {image.path: image for image in ops.store_images(5.0).images}
        assert sorted(found) == ["/vmstorage/images/left over.img", "/vmstorage/images/web.img"]
        web = found["/vmstorage/images/web.img"]
        assert domain(ops.observe(plan=True), vm).images == {web.key}
        assert web.allocated > 0
        assert ops.store_images(5.0).why == ""
        assert bench.open(OTHER).store_images(5.0) == ops.store_images(5.0)

    # -- names and identities ------------------------------------------------------------------------

    @pytest.mark.parametrize("name", HOSTILE)
    def test_any_name_works(self, bench: Bench, name: str) -> None:
        vm = bench.add_vm(name)
        ops = bench.open()
        assert ops.start(vm.uuid) == "running"
        facts = ops.observe(plan=True)
        assert domain(facts, vm).vm == vm
        assert [p.name for p in facts.processes] == [name]
        ops.note_running(add=[name])
        assert ops.observe().running_vms == (name,)
        assert ops.destroy(vm.uuid, graceful=False) == OFF
        ops.undefine(vm.uuid)
        assert ops.observe().domain(vm) is None

    @pytest.mark.parametrize("op", ON_A_VM)
    def test_an_unknown_vm_is_refused_by_libvirt(self, bench: Bench, op: str) -> None:
        bench.add_vm("web")
        with refused("virsh"):
            ON_A_VM[op](bench.open(), NOBODY)

    @pytest.mark.parametrize("op", ON_A_VM)
    def test_names_are_not_taken_for_uuids(self, bench: Bench, op: str) -> None:
        bench.add_vm("web")
        with refused("bad-request"):
            ON_A_VM[op](bench.open(), "web")

    def test_an_unknown_vm_is_off(self, bench: Bench) -> None:
        ops = bench.open()
        assert ops.wait_off(NOBODY, timeout=0.0, ask_again=None)["off"] is True
        assert ops.watch(NOBODY, 1.0) == (OFF, "unknown")

    # -- definitions ---------------------------------------------------------------------------------

    def test_define_again_changes_and_keeps_autostart(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        ops.autostart(vm.uuid, on=True)
        xml = ops.dumpxml(vm.uuid, inactive=True, security=True)
        ops.define(xml.replace("<memory", "<title>changed</title>\n<memory", 1))
        assert "<title>changed</title>" in ops.dumpxml(vm.uuid, inactive=True, security=True)
        assert domain(ops.observe(), vm).autostart is True

    def test_what_was_defined_comes_back_the_same(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops, other = bench.open(), bench.open(OTHER)
        xml = ops.dumpxml(vm.uuid, inactive=True, security=True)
        other.define(domainxml.for_target(xml))
        again = other.dumpxml(vm.uuid, inactive=True, security=True)
        assert domainxml.canonical(again) == domainxml.canonical(domainxml.for_target(xml))

    def test_define_refuses_what_is_no_definition(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        fresh = str(uuids.uuid4())
        bad = (
            "<domain",
            "<network/>",
            bench.xml("a/b", fresh, "web"),
            bench.xml("web", fresh, "web"),
            bench.xml("other", vm.uuid, "web"),
        )
        for xml in bad:
            with refused("virsh"):
                ops.define(xml)
        assert [d.vm for d in ops.observe().domains] == [vm]

    def test_undefine_forgets_the_vm_and_keeps_its_image(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        ops.undefine(vm.uuid)
        assert ops.observe().domains == ()
        assert bench.image_exists("web")

    def test_definitions_are_mirrored_to_the_store(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        xml = ops.dumpxml(vm.uuid, inactive=True, security=True)
        for title in ("one", "two"):
            ops.define(xml.replace("<memory", f"<title>{title}</title>\n<memory", 1))
        path = f"definitions/{vm.uuid}.json"
        mirror = json.loads(ops.store_read(path) or "")
        assert (mirror["uuid"], mirror["name"], mirror["undefined"]) == (vm.uuid, "web", {})
        newest, older = mirror["versions"][:2]
        assert newest["host"] == older["host"] == ops.host
        assert newest["at"] > older["at"]
        now = ops.dumpxml(vm.uuid, inactive=True, security=True)
        assert domainxml.canonical(newest["xml"]) == domainxml.canonical(now)
        assert "<title>one</title>" in older["xml"]
        ops.start(vm.uuid)
        ops.undefine(vm.uuid)
        again = json.loads(ops.store_read(path) or "")
        assert again["versions"] == mirror["versions"]
        assert list(again["undefined"]) == [ops.host]
        assert ops.destroy(vm.uuid, graceful=False) == OFF

    def test_undefine_of_a_running_vm_leaves_it_running(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        ops = bench.open()
        ops.undefine(vm.uuid)
        seen = domain(ops.observe(), vm)
        assert (seen.state, seen.persistent) == ("running", False)
        with refused("virsh"):
            ops.autostart(vm.uuid, on=True)
        assert ops.destroy(vm.uuid, graceful=False) == OFF
        assert ops.observe().domains == ()

    def test_undefine_spares_a_managed_save(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        bench.managed_save(vm)
        ops = bench.open()
        seen = domain(ops.observe(), vm)
        assert (seen.state, seen.managed_save) == (OFF, True)
        with refused("virsh"):
            ops.undefine(vm.uuid)
        assert domain(ops.observe(), vm).managed_save is True
        assert ops.start(vm.uuid) == "running"
        assert domain(ops.observe(), vm).managed_save is False

    def test_autostart_may_be_said_twice(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        for on in (True, True, False, False):
            ops.autostart(vm.uuid, on=on)
            assert domain(ops.observe(), vm).autostart is on

    # -- start and stop ------------------------------------------------------------------------------

    def test_a_second_start_is_refused(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        assert ops.start(vm.uuid) == "running"
        with refused("virsh"):
            ops.start(vm.uuid)
        assert len(ops.running().processes) == 1

    def test_a_start_that_fails_leaves_it_off(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        bench.fail_next_start()
        ops = bench.open()
        with refused("virsh"):
            ops.start(vm.uuid)
        assert state_of(ops, vm)[0] == OFF
        assert ops.start(vm.uuid) == "running"

    def test_watch_sees_it_stay_up(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        assert bench.open().watch(vm.uuid, 1.0)[0] == "running"

    def test_watch_sees_it_die(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        bench.die_after_start(2.0)
        ops = bench.open()
        ops.start(vm.uuid)
        assert ops.watch(vm.uuid, 30.0)[0] == OFF
        assert ops.running().processes == ()

    def test_what_is_off_cannot_be_stopped(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        for op in ("shutdown", "destroy", "reboot"):
            with refused("virsh"):
                ON_A_VM[op](ops, vm.uuid)
        assert state_of(ops, vm)[0] == OFF

    @pytest.mark.parametrize("graceful", [True, False])
    def test_destroy_ends_it(self, bench: Bench, graceful: bool) -> None:
        vm = bench.add_vm("web", running=True, acpi="never")
        ops = bench.open()
        assert ops.destroy(vm.uuid, graceful=graceful) == OFF
        assert state_of(ops, vm) == (OFF, "destroyed")
        assert ops.running().processes == ()

    def test_wait_off_of_what_is_off(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        reply = bench.open().wait_off(vm.uuid, timeout=5.0, ask_again=None)
        assert (reply["off"], reply["state"], reply["ended_at"]) == (True, OFF, None)
        assert reply["waited"] < 4.0

    def test_wait_off_of_what_goes_on_running(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True, acpi="never")
        events: list[Mapping[str, Any]] = []
        reply = bench.open().wait_off(vm.uuid, timeout=3.5, ask_again=None, progress=events.append)
        assert (reply["off"], reply["state"]) == (False, "running")
        assert 3.4 <= reply["waited"] < 8.0
        assert len(events) >= 2
        assert all(e["waited"] >= 0 and e["asked"] == 0 for e in events)

    def test_shutdown_ends_a_guest_that_listens(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True, booted=True)
        ops = bench.open()
        ops.shutdown(vm.uuid)
        reply = ops.wait_off(vm.uuid, timeout=60.0, ask_again=15.0)
        assert (reply["off"], reply["state"]) == (True, OFF)
        assert reply["ended_at"] is not None
        assert state_of(ops, vm) == (OFF, "shutdown")
        assert domain(ops.observe(), vm).pid is None

    # -- /root/running_vms ---------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("text", "names"),
        [
            ("", ()),
            ("web\ndb\n", ("web", "db")),
            ("web\ndb", ("web", "db")),
            ("web\r\ndb\r\n", ("web", "db")),
            ("\n\nweb\n  \n", ("web",)),
            ("web 01\n", ("web 01",)),
        ],
    )
    def test_running_vms_is_read_however_it_was_written(
        self, bench: Bench, text: str, names: tuple[str, ...]
    ) -> None:
        bench.set_running_vms(text)
        ops = bench.open()
        assert ops.observe().running_vms == names
        assert ops.save_running(write=False) == (names, ())

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (None, "new\n"),
            ("", "new\n"),
            ("old\nweb\n", "web\nnew\n"),
            ("web\nold", "web\nnew\n"),
            ("old\r\nweb\r\n", "web\r\nnew\n"),
            ("web", "web\nnew\n"),
            ("new\nunknown\n", "new\nunknown\n"),
            ("\nweb\n", "\nweb\nnew\n"),
        ],
    )
    def test_note_running_leaves_the_other_lines_alone(
        self, bench: Bench, before: str | None, after: str
    ) -> None:
        if before is not None:
            bench.set_running_vms(before)
        ops = bench.open()
        for _ in range(2):
            ops.note_running(add=["new"], remove=["old"])
            assert bench.running_vms() == after

    @pytest.mark.parametrize("name", ["", "  ", "two\nlines"])
    def test_note_running_takes_names_only(self, bench: Bench, name: str) -> None:
        with refused("bad-request"):
            bench.open().note_running(add=[name])
        assert bench.running_vms() is None

    def test_save_running_writes_what_runs(self, bench: Bench) -> None:
        bench.add_vm("off")
        bench.add_vm("on", running=True)
        bench.set_running_vms("gone\n")
        ops = bench.open()
        assert ops.save_running(write=False) == (("gone",), ("on",))
        assert bench.running_vms() == "gone\n"
        assert ops.save_running(write=True) == (("gone",), ("on",))
        assert bench.running_vms() == "on\n"

    def test_save_running_keeps_the_order_of_the_list(self, bench: Bench) -> None:
        for name in ("one", "two", "three"):
            bench.add_vm(name, running=True)
        bench.set_running_vms("three\r\ngone\n\none\nthree")
        ops = bench.open()
        assert ops.save_running(write=False)[1] == ("three", "one", "two")
        assert ops.save_running(write=True)[1] == ("three", "one", "two")
        assert bench.running_vms() == "three\none\ntwo\n"

    # -- the host's own files and programs -----------------------------------------------------------

    def test_a_hosts_network_is_told_whole(self, bench: Bench) -> None:
        found = bench.open().network()
        assert found.links["lo"].loopback
        assert any(link.addresses for link in found.links.values())
        assert all(route.dev in found.links for route in found.routes)
        assert not found.trying

    def test_netplan_says_what_it_thinks_of_files(self, bench: Bench) -> None:
        ops = bench.open()
        text = "network:\n  version: 2\n  ethernets:\n    eth9:\n      dhcp4: {}\n"
        assert ops.netplan_check({"90-new.yaml": text.format("true")}) == ""
        said = ops.netplan_check({"90-new.yaml": text.format("perhaps")})
        assert "90-new.yaml" in said
        assert "perhaps" in said
        assert ops.file_read("/etc/netplan/90-new.yaml").text is None

    def test_a_file_is_made_and_replaced_and_the_old_one_kept(self, bench: Bench) -> None:
        ops = bench.open()
        path = f"/var/tmp/contract-{uuids.uuid4()}/new/file"
        assert ops.file_read(path) == HostFile(path, None, 0, None)
        assert ops.file_write(path, "eins ü\n", mode=0o640, expect=None) == ""
        first = ops.file_read(path)
        assert (first.text, first.mode) == ("eins ü\n", 0o640)
        kept = ops.file_write(path, "zwei \udcff", mode=0o755, expect=first.sha256)
        assert kept.startswith(f"/var/backups/vmfab{path}.")
        assert ops.file_read(kept).text == "eins ü\n"
        second = ops.file_read(path)
        assert (second.text, second.mode) == ("zwei \udcff", 0o755)

    def test_a_file_that_changed_meanwhile_is_left_alone(self, bench: Bench) -> None:
        ops = bench.open()
        path = f"/var/tmp/contract-{uuids.uuid4()}"
        ops.file_write(path, "theirs", mode=0o644, expect=None)
        for expect in (None, "0" * 64):
            with refused("file"):
                ops.file_write(path, "mine", mode=0o644, expect=expect)
        with refused("file"):
            ops.file_write(f"{path}.gone", "mine", mode=0o644, expect="0" * 64)
        assert ops.file_read(path).text == "theirs"
        assert ops.file_read(f"{path}.gone").text is None

    def test_a_file_is_removed_and_kept(self, bench: Bench) -> None:
        ops = bench.open()
        path = f"/var/tmp/contract-{uuids.uuid4()}"
        ops.file_write(path, "old", mode=0o644, expect=None)
        with refused("file"):
            ops.file_remove(path, expect="0" * 64)
        kept = ops.file_remove(path, expect=ops.file_read(path).sha256 or "")
        assert ops.file_read(kept).text == "old"
        assert ops.file_read(path).text is None
        assert ops.file_remove(path, expect="0" * 64) == ""

    def test_a_crontab_is_read_and_replaced(self, bench: Bench) -> None:
        ops = bench.open()
        table = "MAILTO=root\n@daily echo größe 100%\n"
        assert ops.command(["crontab", "-"], stdin=table) == Ended(0, "", "")
        assert ops.command(["crontab", "-l"]) == Ended(0, table, "")

    def test_a_program_that_is_not_there(self, bench: Bench) -> None:
        with refused("bad-request"):
            bench.open().command(["no-such-program-at-all"])

    # -- files on the store --------------------------------------------------------------------------

    def test_files_are_written_read_and_removed(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        assert ops.store_read("moves/a.json") is None
        assert ops.store_read_dir("moves") == {}
        ops.store_write("moves/a.json", "eins\nzwei ü\n")
        ops.store_write("moves/a.json", "drei\n")
        ops.store_append("moves/b.json", "1\n")
        other.store_append("moves/b.json", "2\n")
        assert other.store_read("moves/a.json") == "drei\n"
        assert other.store_read_dir("moves") == {"a.json": "drei\n", "b.json": "1\n2\n"}
        other.store_remove("moves/a.json")
        other.store_remove("moves/a.json")
        assert ops.store_read_dir("moves") == {"b.json": "1\n2\n"}

    def test_of_two_exclusive_writers_one_is_told_who_was_first(self, bench: Bench) -> None:
        bench.open().store_write("cordons/x.json", "first", exclusive=True)
        other = bench.open(OTHER)
        with refused("locked") as raised:
            other.store_write("cordons/x.json", "second", exclusive=True)
        assert raised.value.detail == "first"
        assert other.store_read("cordons/x.json") == "first"

    @pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../b", "a//b", ".", "a\0b"])
    def test_paths_stay_below_the_folder(self, bench: Bench, path: str) -> None:
        ops = bench.open()
        for use in (ops.store_read, ops.store_remove, lambda p: ops.store_write(p, "x")):
            with refused("bad-request"):
                use(path)

    # -- locks ---------------------------------------------------------------------------------------

    def test_a_lock_excludes_every_other_link_until_it_is_given_back(self, bench: Bench) -> None:
        ops, same_host, other = bench.open(), bench.open(), bench.open(OTHER)
        ops.store_lock("locks/vm-1", {"by": "ada"})
        for taker in (ops, same_host, other):
            with refused("locked") as raised:
                taker.store_lock("locks/vm-1", {"by": "bob"})
            told = json.loads(raised.value.detail)
            assert (told.pop("host"), told) == (HOST, {"by": "ada", "pid": told["pid"]})
            assert isinstance(told["pid"], int)
        other.store_lock("locks/vm-2", {"by": "bob"})
        ops.store_unlock("locks/vm-1")
        other.store_lock("locks/vm-1", {"by": "bob"})
        with refused("bad-request"):
            ops.store_unlock("locks/vm-1")

    def test_a_lock_ends_with_its_link(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        ops.store_lock("locks/host-x", {"by": "ada"})
        ops.close()
        for _ in range(50):
            if taken(other, "locks/host-x"):
                return
            bench.wait(0.1)
        pytest.fail("the lock of a closed link is still held after 5 s")

    def test_lock_files_stay(self, bench: Bench) -> None:
        with refused("bad-request"):
            bench.open().store_remove("locks/vm-1")

    def test_an_operation_is_seen_until_its_lock_file_is_removed(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        assert other.observe().operations == ()
        ops.store_lock("locks/op-1", {"by": "ada", "command": "fab -H x drain", "at": 5.0})
        under_way = OpenOperation("1", True, "fab -H x drain", "ada", 5.0)
        assert other.observe().operations == ops.observe().operations == (under_way,)
        ops.store_unlock("locks/op-1")
        assert other.observe().operations == (replace(under_way, held=False),)
        other.store_lock("locks/op-1", {"by": "bob"})
        assert ops.observe().operations == (OpenOperation("1", True),)
        other.store_remove("locks/op-1")
        other.store_unlock("locks/op-1")
        assert ops.observe().operations == ()
        assert taken(ops, "locks/op-1")

    def test_a_folder_without_the_files_that_have_ended(self, bench: Bench) -> None:
        ops = bench.open()
        ops.store_write("moves/a.json", "plan\nend\n")
        ops.store_write("moves/b.json", "end\nplan\n")
        ops.store_write("moves/c.json", "")
        assert ops.store_list("moves") == ("a.json", "b.json", "c.json")
        assert ops.store_list("nothing") == ()
        assert set(ops.store_read_dir("moves", unless="end")) == {"b.json", "c.json"}

    def test_a_folder_that_is_more_than_one_answer(self, bench: Bench) -> None:
        ops = bench.open()
        texts = {f"{number}.json": str(number) * 600_000 for number in range(5)}
        for name, text in texts.items():
            ops.store_write(f"moves/{name}", text)
        assert ops.store_read_dir("moves") == texts
        assert set(ops.store_read_dir("moves", unless="222")) == set(texts) - {"2.json"}

    def test_what_is_seized_keeps_its_text_and_is_held(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        with refused("file"):
            ops.store_seize("hosts/x")
        ops.store_write("hosts/x", "alive\n")
        assert other.store_seize("hosts/x") == "alive\n"
        with refused("locked") as raised:
            ops.store_seize("hosts/x")
        assert raised.value.detail == "alive\n"
        assert (ops.store_holds("hosts/x"), other.store_holds("hosts/x")) == (False, True)
        other.store_unlock("hosts/x")
        assert not other.store_holds("hosts/x")
        assert ops.store_seize("hosts/x") == "alive\n"

    def test_a_lock_on_what_was_removed_does_not_count(self, bench: Bench) -> None:
        ops = bench.open()
        ops.store_write("hosts/x", "alive\n")
        ops.store_seize("hosts/x")
        ops.store_remove("hosts/x")
        assert not ops.store_holds("hosts/x")

    def test_when_a_file_was_written(self, bench: Bench) -> None:
        ops, other = bench.open(), bench.open(OTHER)
        assert ops.store_stat("hosts/x.beat")[0] is None
        ops.store_write("hosts/x.beat", "1")
        first, now = other.store_stat("hosts/x.beat")
        assert first is not None
        assert abs(now - first) < 60
        bench.wait(0.05)
        assert other.store_stat("hosts/x.beat")[0] == first
        ops.store_write("hosts/x.beat", "2")
        assert other.store_stat("hosts/x.beat")[0] != first

    def test_files_are_swapped_together_or_not_at_all(self, bench: Bench) -> None:
        ops = bench.open()
        ops.store_write("owners/a", "1")
        ops.store_write("owners/b", "1")
        ops.store_swap(
            "locks/owners", [("owners/a", "1", "2"), ("owners/b", "1", None), ("owners/c", None, "3")]
        )
        assert ops.store_read_dir("owners") == {"a": "2", "c": "3"}
        for wrong in (("owners/c", "2", "9"), ("owners/c", None, "9"), ("owners/b", "1", "9")):
            with refused("file"):
                ops.store_swap("locks/owners", [("owners/a", "2", "9"), wrong])
        assert ops.store_read_dir("owners") == {"a": "2", "c": "3"}
        with refused("bad-request"):
            ops.store_swap("locks/owners", [("../a", None, "9")])

    # -- trouble -------------------------------------------------------------------------------------

    def test_a_frozen_libvirtd_is_told_as_such_and_hides_nothing_else(self, bench: Bench) -> None:
        vm = bench.add_vm("web", running=True)
        ops = bench.open()
        with bench.frozen_libvirt():
            facts = ops.observe(plan=True)
            assert facts.libvirt_problem
            assert facts.domains == ()
            assert [p.uuid for p in facts.processes] == [vm.uuid]
            assert facts.store.problem == ""
            with refused("libvirt-silent"):
                ops.running()
            with refused("libvirt-silent"):
                ops.dumpxml(vm.uuid, inactive=True, security=False)
        assert domain(ops.observe(), vm).state == "running"

    def test_a_patient_link_gives_libvirtd_more_time(self, bench: Bench) -> None:
        ops = bench.open(patience=2.0)
        with bench.frozen_libvirt():
            assert "within 8" in ops.observe().libvirt_problem
        assert ops.observe().libvirt_problem == ""

    def test_a_store_that_is_not_mounted(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        with bench.unmounted_store():
            facts = ops.observe(plan=True)
            assert (facts.store.mounted, bool(facts.store.problem)) == (False, True)
            assert not any(f.on_store for f in facts.files.values())
            assert ops.running().store_problem
            uses: tuple[Callable[[], object], ...] = (
                lambda: ops.store_read("store-id"),
                lambda: ops.store_write("x", "x"),
                lambda: ops.store_append("x", "x"),
                lambda: ops.store_lock("locks/x", {}),
                lambda: ops.store_held(["locks/x"]),
                lambda: ops.store_images(1.0),
            )
            for use in uses:
                with refused("store"):
                    use()
            with refused("virsh"):
                ops.start(vm.uuid)
        assert ops.store_read("x") is None

    def test_a_store_that_is_read_only(self, bench: Bench) -> None:
        vm = bench.add_vm("web")
        ops = bench.open()
        ops.store_write("note", "text")
        with bench.read_only_store():
            facts = ops.observe()
            assert (facts.store.mounted, bool(facts.store.problem)) == (True, True)
            assert ops.store_read("note") == "text"
            uses: tuple[Callable[[], object], ...] = (
                lambda: ops.store_write("note", "other"),
                lambda: ops.store_append("note", "other"),
                lambda: ops.store_remove("note"),
                lambda: ops.store_lock("locks/x", {}),
            )
            for use in uses:
                with refused("store"):
                    use()
            with refused("virsh"):
                ops.start(vm.uuid)
        assert ops.store_read("note") == "text"

    def test_a_store_that_is_full(self, bench: Bench) -> None:
        ops = bench.open()
        ops.store_write("note", "text")
        with bench.full_store():
            assert ops.observe().store.problem
            with refused("store"):
                ops.store_write("big", "x" * 300_000)
            with refused("store"):
                ops.store_append("note", "x" * 300_000)
            assert ops.store_read("big") is None
            assert ops.store_read("note") == "text"
            # What is needed to start a VM that is down goes on.
            assert ops.running().store_problem == ""
            ops.store_lock("locks/x", {"by": "ada"})
            with refused("locked"):
                bench.open().store_lock("locks/x", {"by": "bob"})

    def test_a_host_that_is_cut_off(self, bench: Bench) -> None:
        ops = bench.open()
        with bench.cut_network():
            with pytest.raises(LinkLost):
                ops.running()
            with pytest.raises(HostSilent):
                bench.open()

    def test_a_closed_link_carries_nothing(self, bench: Bench) -> None:
        ops = bench.open()
        ops.close()
        ops.close()
        with pytest.raises(HostSilent):
            ops.running()
