"""Commands in messages: they can be typed as they stand, on the practice cluster too."""

from __future__ import annotations

import pytest

import fabfile
from tasks.cli.commandline import as_typed_here

from .streams import captured


@pytest.mark.parametrize("name", sorted(fabfile.ns.task_names))
def test_every_task_in_a_message_is_spelled_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("VMFAB_CALL", "./fab --lab")
    own = name.startswith("lab.") or name in ("demo", "test")
    assert as_typed_here(f"Run 'fab {name}'.") == f"Run './fab{'' if own else ' --lab'} {name}'."


def test_hosts_and_help_are_spelled_so_too(monkeypatch: pytest.MonkeyPatch) -> None:
    call = "./fab --inventory 'my hosts.ini'"
    monkeypatch.setenv("VMFAB_CALL", call)
    assert as_typed_here("Then: fab -H a undrain (or fab --help undrain)") == (
        f"Then: {call} -H a undrain (or {call} --help undrain)"
    )


@pytest.mark.parametrize("text", ["fab cannot be moved", "fab: No.", "./fab --lab status", "vmfab status"])
def test_what_is_no_command_stays(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VMFAB_CALL", "./fab --lab")
    assert as_typed_here(text) == text


def test_without_the_launcher_nothing_changes() -> None:
    assert as_typed_here("Run 'fab status'.") == "Run 'fab status'."


def test_messages_and_errors_go_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VMFAB_CALL", "../fab --lab")
    output, out, err = captured()
    output.say("Run 'fab status'.")
    output.error("fab: No.\nRun 'fab audit'.")
    assert out.getvalue() == "Run '../fab --lab status'.\n"
    assert err.getvalue() == "fab: No.\nRun '../fab --lab audit'.\n"
