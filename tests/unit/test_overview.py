"""Where each VM is, and what needs a look: told from snapshots."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cluster.model import Cordon, HostFacts, QemuProcess, Silent, Snapshot, Store
from tasks.cluster.overview import KINDS, NOT_KNOWN, Finding, findings, vm_lines
from tests.unit.observed import domain, host


def snapshot(*hosts: HostFacts | Silent) -> Snapshot:
    return Snapshot({h.host: h for h in hosts})


def found(*hosts: HostFacts | Silent, cordons: dict[str, Cordon] | None = None) -> list[Finding]:
    return list(findings(snapshot(*hosts), cordons or {}))


def test_a_vm_is_one_line_wherever_it_is_defined() -> None:
    seen = snapshot(host("a", domain("web", state="shut off")), host("b", domain("web")))
    (line,) = vm_lines(seen)
    assert (line.running_on, line.defined_on, line.state) == (("b",), ("a", "b"), "running")
    assert line.since is not None
    assert found(*seen.facts()) == []


def test_off_is_said_only_when_everybody_answered() -> None:
    off = host("a", domain("web", state="shut off"))
    assert vm_lines(snapshot(off))[0].state == "shut off"
    assert vm_lines(snapshot(off, Silent("b", "no route")))[0].state == NOT_KNOWN
    assert vm_lines(snapshot(off, host("b", libvirt_problem="frozen")))[0].state == NOT_KNOWN


@pytest.mark.parametrize("state", ["running", "paused", "in shutdown", "crashed", "pmsuspended"])
def test_every_active_state_counts_as_running_twice(state: str) -> None:
    (first, *_) = found(host("a", domain("web")), host("b", domain("web", state=state)))
    assert first.kind == "runs-twice"
    assert first.grave
    assert "a, b" in first.text


def test_one_name_with_two_uuids_is_one_vm_to_the_law() -> None:
    (first,) = found(host("a", domain("web", uuid="1")), host("b", domain("web", uuid="2")))
    assert first.kind == "runs-twice"


def test_names_and_uuids_join_vms_also_by_way_of_a_third() -> None:
    seen = snapshot(
        host("a", domain("web", uuid="1")),
        host("b", domain("db", uuid="2")),
        host("c", domain("web", uuid="2", state="shut off")),
    )
    (line,) = vm_lines(seen)
    assert line.running_on == ("a", "b")


def test_a_process_that_libvirtd_does_not_know_counts() -> None:
    web = domain("web")
    stray = QemuProcess(7, web.vm.uuid, "web", frozenset())
    kinds = [f.kind for f in found(host("a", web), host("b", processes=(stray,)))]
    assert kinds == ["runs-twice", "stray-process"]
    frozen = host("b", processes=(stray,), libvirt_problem="frozen")
    assert [f.kind for f in found(host("a", web), frozen)] == ["runs-twice", "libvirt"]
    (line,) = vm_lines(snapshot(frozen))
    assert (line.running_on, line.state, line.memory_kib) == (("b",), "running", None)


def test_a_listed_process_is_no_stray() -> None:
    web = domain("web", pid=7)
    assert found(host("a", web, processes=(QemuProcess(7, web.vm.uuid, "web", frozenset({"i"})),))) == []


def test_nameless_processes_are_not_thrown_together() -> None:
    strays = tuple(QemuProcess(pid, "", "", frozenset()) for pid in (7, 8))
    assert len(vm_lines(snapshot(host("a", processes=strays)))) == 2


def test_two_vms_with_one_image() -> None:
    one, two = (
        domain(name, pid=pid, images=frozenset({"store:1"}), live_xml="<domain/>")
        for name, pid in (("web", 1), ("copy", 2))
    )
    (first,) = found(host("a", one), host("b", two))
    assert first.kind == "image-twice"
    assert "copy on b and web on a" in first.text
    off = replace(two, state="shut off", pid=None)
    assert found(host("a", one), host("b", off)) == []


def test_a_shareable_disk_is_only_a_suspicion_without_the_definition() -> None:
    processes = [QemuProcess(7, domain(n).vm.uuid, n, frozenset({"store:1"})) for n in ("x", "y")]
    light = [host(h, domain(p.name, pid=7), processes=(p,)) for h, p in zip("ab", processes, strict=True)]
    assert [f.kind for f in found(*light)] == ["image-twice"]
    full = [
        host(h, domain(p.name, pid=7, live_xml="<domain/>"), processes=(p,))
        for h, p in zip("ab", processes, strict=True)
    ]
    assert found(*full) == []


def test_trouble_of_hosts_is_told_gravest_first() -> None:
    cordon = Cordon("e", "ada@laptop", 1.0, "new disks")
    seen = found(
        host("e"),
        host("d", store=Store("/vmstorage", True, store_id="other")),
        host("c", store=Store("/vmstorage", False)),
        host("b", libvirt_problem="frozen"),
        Silent("a", "no route"),
        host("f", domain("web", state="paused", reason="user")),
        host("g"),
        cordons={"e": cordon},
    )
    kinds = ["silent", "libvirt", "store", "other-store", "not-running", "cordoned"]
    assert [f.kind for f in seen] == kinds
    assert [f.host for f in seen] == ["a", "b", "c", "d", "f", "e"]
    assert seen[-1].text == "e is cordoned by ada@laptop: new disks"
    assert seen[-1].at == 1.0
    assert set(kinds) < set(KINDS)


def test_an_evacuated_host_is_told_as_such() -> None:
    (seen,) = found(cordons={"e": Cordon("e", "ada@laptop", 1.0, "evacuated")})
    assert seen.text == "e was evacuated by ada@laptop: its VMs were started elsewhere"
    assert "fab -H e undrain" in seen.advice
    assert "If it stays away" in seen.advice


@pytest.mark.parametrize(
    ("guarded", "words"), [(True, "elsewhere, it starts none of them"), (False, "elsewhere")]
)
def test_an_evacuated_host_that_is_back_is_told_as_such(guarded: bool, words: str) -> None:
    (seen,) = found(host("e", guarded=guarded), cordons={"e": Cordon("e", "ada@laptop", 1.0, "evacuated")})
    assert seen.text == f"e was evacuated by ada@laptop and is back: its VMs were started {words}"
    assert seen.advice == "Look at it, then: fab -H e undrain brings them back, with --stay they stay."


TRACES = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("1234"), st.sampled_from("wxyz")), unique=True
)


@given(TRACES)
def test_lines_are_what_uuids_and_names_connect(traces: list[tuple[str, str, str]]) -> None:
    lines = vm_lines(
        snapshot(*(host(h, *(domain(n, uuid=u) for on, u, n in traces if on == h)) for h in "abc"))
    )
    left, groups = set(traces), []
    while left:
        group = {left.pop()}
        while more := {t for t in left if any(t[1] == g[1] or t[2] == g[2] for g in group)}:
            group |= more
            left -= more
        groups.append(sorted(on for on, _, _ in group))
    assert sorted(sorted(line.defined_on) for line in lines) == sorted(groups)
    assert all(set(line.running_on) == set(line.defined_on) for line in lines)
