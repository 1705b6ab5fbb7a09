"""VMs by name, pattern, UUID, and several with commas."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cli.select import natural, select
from tasks.cluster.errors import Refused
from tasks.cluster.model import Silent, Snapshot
from tests.unit.observed import domain, host


def cluster(*names: str, silent: str = "") -> Snapshot:
    facts = host("vmhost1", *(domain(name) for name in names))
    hosts = {"vmhost1": facts, "vmhost2": host("vmhost2", domain("off", state="shut off"))}
    return Snapshot(hosts | ({silent: Silent(silent, "no route")} if silent else {}))


def chosen(snapshot: Snapshot, typed: str | list[str], **options: object) -> list[str]:
    return [vm.name for vm in select(snapshot, typed, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("web", ["web"]),
        ("web-2,web", ["web-2", "web"]),
        (" web , db,", ["web", "db"]),
        ("web*", ["web", "web-2", "web-10"]),
        ("web,web*", ["web", "web-2", "web-10"]),
        ("a,b", ["a,b"]),
        ("db,a,b,web", ["db", "a,b", "web"]),
        ("x[1]", ["x[1]"]),
        ("x[[]1]", ["x[1]"]),
        ("-dash", ["-dash"]),
        ("spaces in it", ["spaces in it"]),
        (" lead", [" lead"]),
        ("db, lead", ["db", " lead"]),
        ("$HOME 'ü'", ["$HOME 'ü'"]),
        (["web", "db"], ["web", "db"]),
        ("off", ["off"]),
    ],
)
def test_what_is_typed_is_found(typed: str | list[str], names: list[str]) -> None:
    have = (
        "web-10",
        "web",
        "web-2",
        "db",
        "a,b",
        "x[1]",
        "x1",
        "-dash",
        "spaces in it",
        " lead",
        "$HOME 'ü'",
    )
    assert chosen(cluster(*have), typed) == names


def test_a_uuid_is_a_name_too() -> None:
    snapshot = cluster("web", "db")
    uuid = snapshot.domains()[1].vm.uuid
    assert chosen(snapshot, uuid.upper()) == ["db"]


def test_web_is_not_web_01() -> None:
    with pytest.raises(Refused, match="No VM called web is there") as refused:
        select(cluster("web-01"), "web")
    assert refused.value.hint == "Did you mean web-01?"


@pytest.mark.parametrize(("typed", "meant"), [("WEB", "Web or web"), ("Mial", "mail"), ("nothing", "")])
def test_a_name_in_the_wrong_case_or_mistyped_is_guessed(typed: str, meant: str) -> None:
    with pytest.raises(Refused, match=f"No VM called {typed} is there") as refused:
        select(cluster("Web", "web", "mail"), typed)
    assert refused.value.hint == (f"Did you mean {meant}?" if meant else "fab status shows the VMs.")


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        select(cluster("web"), "wbe,x*,web")
    assert refused.value.message == "No VM called wbe is there. No VM fits 'x*'."
    assert refused.value.hint == "Did you mean web?"


def test_a_silent_host_may_have_it() -> None:
    with pytest.raises(Refused) as refused:
        select(cluster("web", silent="vmhost3"), "db")
    assert "vmhost3" in refused.value.hint
    with pytest.raises(Refused) as refused:
        select(cluster("web", silent="vmhost3"), "WEB")
    assert refused.value.hint.startswith("Did you mean web? It may be on vmhost3, ")


def test_only_running_ones_and_only_these_hosts() -> None:
    snapshot = cluster("web")
    with pytest.raises(Refused) as refused:
        select(snapshot, "off", running=True)
    assert refused.value.hint == "It is off, defined on vmhost2."
    with pytest.raises(Refused) as refused:
        select(snapshot, "web", hosts=["vmhost2"])
    assert refused.value.hint == "It runs on vmhost1."
    assert chosen(snapshot, "*", hosts=["vmhost2"]) == ["off"]
    assert chosen(snapshot, "*", running=True) == ["web"]


@pytest.mark.parametrize("typed", ["", " ", ",", []])
def test_nothing_typed_is_not_everything(typed: str | list[str]) -> None:
    with pytest.raises(Refused, match="No VM is named"):
        select(cluster("web"), typed)


def test_one_name_for_two_definitions_needs_the_uuid() -> None:
    two = Snapshot({"a": host("a", domain("web", uuid="1")), "b": host("b", domain("web", uuid="2"))})
    with pytest.raises(Refused, match="different definitions: 1 on a; 2 on b"):
        select(two, "web")
    assert [vm.uuid for vm in select(two, "2")] == ["2"]


@given(
    st.lists(st.text(alphabet=string.printable, min_size=1, max_size=8), min_size=1, max_size=8, unique=True)
)
def test_every_vm_can_be_named_exactly(names: list[str]) -> None:
    snapshot = cluster(*names)
    for name in names:
        assert chosen(snapshot, name) == [name]


def test_natural_order() -> None:
    assert sorted(["web-10", "2", "web-2", "web", "a"], key=natural) == ["2", "a", "web", "web-2", "web-10"]
