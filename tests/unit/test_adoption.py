"""Whose owner files are written for VMs that run already, and whose are not."""

from __future__ import annotations

import json

import pytest

from tasks.cluster.model import Domain, HostFacts, QemuProcess, Silent, Snapshot
from tasks.cluster.setup import adoption
from tasks.cluster.setup.adoption import Need, Running
from tests.unit import observed

WEB = observed.domain("web")


def owner(host: str, vm: Domain = WEB, to: str = "", boot_id: str = "boot") -> str:
    record: dict[str, object] = {"host": host, "vm": vm.vm.name, "uuid": vm.vm.uuid, "boot_id": boot_id}
    return json.dumps({**record, "to": {"host": to}} if to else record)


def need(owner: str | None, image: str = "store:7", *, base: bool = False) -> Need:
    return Need(image, f"/vmstorage/{image}", base, owner)


def running(host: str, *needs: Need, vm: Domain = WEB) -> Running:
    return Running(host, vm, needs)


def snapshot(*hosts: HostFacts | Silent) -> Snapshot:
    return Snapshot({h.host: h for h in (observed.host("a", WEB), *hosts)})


def judge(found: Snapshot, *all_running: Running) -> tuple[str, str]:
    (only,) = adoption.plan(found, all_running, ["a"])
    return only.result, only.why


def test_a_vm_without_owners_is_adopted_and_one_with_its_own_is_not() -> None:
    seen = snapshot(observed.host("b"))
    assert judge(seen, running("a", need(None))) == ("adopt", "")
    assert judge(seen, running("a", need(owner("a")))) == ("owned", "")
    assert judge(seen, running("a", need(owner("a")), need(None, "store:8")))[0] == "adopt"
    assert judge(seen, running("a")) == ("owned", "")
    # From before the host's last boot: a release would not give it back.
    assert judge(seen, running("a", need(owner("a", boot_id="old"))))[0] == "adopt"
    # A base nobody writes needs no owner.
    assert judge(seen, running("a", need(None, base=True))) == ("owned", "")


def test_an_image_that_is_used_twice_is_a_conflict() -> None:
    copy = observed.domain("copy")
    seen = snapshot(observed.host("b", copy))
    other = running("b", need(None), vm=copy)
    assert judge(seen, running("a", need(None)), other) == (
        "conflict",
        "/vmstorage/store:7 is used by copy on b, too",
    )
    reader = running("b", need(None, base=True), vm=copy)
    assert judge(seen, running("a", need(None)), reader)[0] == "conflict"
    assert judge(seen, running("a", need(None, base=True)), other)[0] == "conflict"
    assert judge(seen, running("a", need(None, base=True)), reader)[0] == "owned"


@pytest.mark.parametrize(
    ("other", "doubt"),
    [
        (Silent("b", "no route"), "b does not answer"),
        (observed.host("b", libvirt_problem="libvirtd is silent"), "b: libvirtd is silent"),
        (observed.host("b", WEB), "b: libvirt lists it as running"),
        (
            observed.host("b", processes=(QemuProcess(9, "", "x", frozenset({"store:7"})),)),
            "b: qemu process 9 (x) has its image store:7 open",
        ),
    ],
)
def test_an_owner_that_may_be_right_is_left_alone(other: HostFacts | Silent, doubt: str) -> None:
    result, why = judge(snapshot(other), running("a", need(owner("b"))))
    assert (result, why) == ("conflict", f"/vmstorage/store:7 is owned by b: {doubt}")
    result, why = judge(snapshot(other), running("a", need(owner("a", to="b"))))
    assert (result, why) == ("conflict", f"/vmstorage/store:7 is owned by a, on its way to b: {doubt}")


def test_an_owner_that_is_seen_to_be_wrong_is_replaced() -> None:
    seen = snapshot(observed.host("b"))
    for text in (owner("b"), owner("a", to="b"), owner("b", observed.domain("gone"))):
        (only,) = adoption.plan(seen, [running("a", need(text))], ["a"])
        assert (only.result, only.replaces) == ("adopt", (("store:7", text),))


def test_what_is_not_known_is_a_conflict() -> None:
    seen = snapshot()
    assert judge(seen, Running("a", WEB, (), "its image is not there")) == (
        "conflict",
        "its image is not there",
    )
    for text in ("", "[]", "{}", '{"host": "a"}'):
        assert judge(seen, running("a", need(text)))[0] == "conflict"
    assert "c is not in the inventory" in judge(seen, running("a", need(owner("c"))))[1]


def test_only_the_chosen_hosts_are_acted_on() -> None:
    seen = snapshot(observed.host("b"))
    assert adoption.plan(seen, [running("a", need(None))], ["b"]) == ()
