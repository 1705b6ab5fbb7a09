"""The parsers of virsh's output, on recorded output; and what counts as which failure."""

from __future__ import annotations

import pytest

from tasks.onhost import virsh
from tasks.onhost.problem import Problem
from tests.unit.onhost.recorded import recorded

UUID = "11111111-0000-4000-8000-00000000000"


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("dominfo-leading-dash.txt", {"name": "-dash", "uuid": UUID + "1", "persistent": True}),
        ("dominfo-running-quotes.txt", {"name": "sp ace \"q\" $x 'y'", "uuid": UUID + "2"}),
        ("dominfo-off-autostart.txt", {"name": "grün ü", "autostart": True, "managed_save": False}),
        ("dominfo-managed-save.txt", {"name": "web", "autostart": False, "managed_save": True}),
        ("dominfo-transient.txt", {"name": "trans", "persistent": False}),
    ],
)
def test_dominfo(file: str, expected: dict[str, object]) -> None:
    found = virsh.info(recorded(file))
    assert found.items() >= expected.items()
    assert (found["memory_kib"], found["vcpus"]) == (65536, 1)


@pytest.mark.parametrize("name", ["  two blanks", "a: b", "State: x", "Persistent:     no", "ends in blank "])
def test_dominfo_with_names_that_look_like_something_else(name: str) -> None:
    text = recorded("dominfo-leading-dash.txt").replace("-dash", name)
    assert virsh.info(text)["name"] == name
    assert virsh.info(text)["persistent"] is True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("65536 KiB", "64 MiB"),
        ("Persistent:     yes", "Persistent:     maybe"),
        ("Managed save:   no\n", ""),
        ("UUID:           ", "Uuid:           "),
        ("CPU(s):         1", "CPU(s):         one"),
    ],
)
def test_dominfo_that_is_not_understood_raises(old: str, new: str) -> None:
    text = recorded("dominfo-leading-dash.txt")
    assert old in text
    with pytest.raises(Problem) as caught:
        virsh.info(text.replace(old, new))
    assert caught.value.kind == "bug"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (recorded("domstate-running.txt"), ("running", "booted")),
        (recorded("domstate-paused.txt"), ("paused", "user")),
        (recorded("domstate-destroyed.txt"), ("shut off", "destroyed")),
        (recorded("domstate-never-started.txt"), ("shut off", "unknown")),
        (recorded("domstate-saved.txt"), ("shut off", "saved")),
        ("in shutdown (user)\n\n", ("in shutdown", "user")),
        ("a state of tomorrow\n", ("a state of tomorrow", "")),
    ],
)
def test_domstate(text: str, expected: tuple[str, str]) -> None:
    assert virsh.state(text) == expected


@pytest.mark.parametrize("text", ["", "\n", "running (booted)\npaused (user)\n"])
def test_a_state_that_is_not_understood_raises(text: str) -> None:
    with pytest.raises(Problem):
        virsh.state(text)


def test_lists() -> None:
    assert len(virsh.uuids(recorded("list-all-uuid.txt"))) == 9
    assert virsh.uuids("\n") == []
    assert virsh.names(recorded("list-name.txt")) == ["trans", "sp ace \"q\" $x 'y'", "paused"]
    with pytest.raises(Problem):
        virsh.uuids("error: something\n")


def test_version() -> None:
    assert virsh.daemon_version(recorded("version-daemon.txt")) == "9.0.0"
    with pytest.raises(Problem):
        virsh.daemon_version("Using library: libvirt 9.0.0\n")


def test_machines_with_their_aliases() -> None:
    found = virsh.machines(recorded("capabilities.xml"))
    assert {"x86_64/pc-q35-7.2", "x86_64/q35", "x86_64/pc", "x86_64/pc-i440fx-7.2"} <= set(found)
    with pytest.raises(Problem):
        virsh.machines("<capabilities>")


def test_sections_of_several_commands() -> None:
    first, *rest = virsh.sections(
        "===MARK===" + recorded("script.txt").removesuffix("===MARK==="), "===MARK==="
    )
    assert virsh.info(first)["name"] == "grün ü"
    # The definition of an unknown domain, and the networks of a host that has none, are empty.
    assert rest == ["shut off (unknown)\n", "", ""]
    assert virsh.gone(recorded("script-errors.txt"))
    with pytest.raises(Problem):
        virsh.sections("something before" + "===MARK===", "===MARK===")


@pytest.mark.parametrize(
    ("file", "kind", "words"),
    [
        ("error-no-libvirtd.txt", "libvirt-silent", "failed to connect to the hypervisor"),
        ("error-no-domain.txt", "virsh", "failed to get domain"),
        ("error-not-running.txt", "virsh", "domain is not running"),
        ("error-already-active.txt", "virsh", "Domain is already active"),
    ],
)
def test_failures(file: str, kind: str, words: str) -> None:
    problem = virsh.refusal(recorded(file), 1)
    assert problem.kind == kind
    assert words in problem.message
    assert "error:" not in problem.message


def test_a_domain_is_gone_only_when_nothing_else_went_wrong() -> None:
    assert virsh.gone(recorded("error-no-domain.txt"))
    assert not virsh.gone("")
    assert not virsh.gone(recorded("error-no-domain.txt") + recorded("error-not-running.txt"))
