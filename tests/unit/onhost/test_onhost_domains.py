"""Domains with their facts: what is none, what is gone meanwhile, and what is a failure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tasks.onhost import domains, virsh
from tasks.onhost.problem import Problem
from tests.unit.onhost.recorded import recorded

DASH, QUOTES = (f"11111111-0000-4000-8000-00000000000{n}" for n in (1, 2))
OUTPUT = {
    "version --daemon": recorded("version-daemon.txt"),
    "net-list --name": "default\nstorage net\n",
    "list --all --uuid": f"{DASH}\n{QUOTES}\n",
    "list --uuid": f"{QUOTES}\n",
    f"dominfo {DASH}": recorded("dominfo-leading-dash.txt"),
    f"dominfo {QUOTES}": recorded("dominfo-running-quotes.txt"),
    f"domstate {DASH} --reason": recorded("domstate-never-started.txt"),
    f"domstate {QUOTES} --reason": recorded("domstate-running.txt"),
    f"dumpxml {DASH}": "<domain/>\n",
    f"dumpxml {QUOTES}": recorded("dumpxml-running.xml"),
    f"dumpxml {DASH} --inactive --security-info": "<domain/>\n",
    f"dumpxml {QUOTES} --inactive --security-info": "<domain/>\n",
}
NO_DOMAIN = recorded("error-no-domain.txt")

Play = Callable[..., None]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Play:
    """Let virsh answer with recorded output; `later` replaces answers from the second `list` on."""

    def start(
        output: dict[str, str], errors: str = "", rc: int = 0, later: dict[str, str] | None = None
    ) -> None:
        now = dict(output)

        def script(commands: Sequence[str], *, timeout: float) -> tuple[list[str], str, int]:
            assert timeout > 0
            said = errors if not all(now.get(c) for c in commands) or rc else ""
            return [now.get(c, "") for c in commands], said, rc

        def run(*argv: str, timeout: float) -> str:
            assert timeout > 0
            text = now[" ".join(argv)]
            if later is not None:
                now.update(later)
                text = now[" ".join(argv)]
            return text

        monkeypatch.setattr(virsh, "script", script)
        monkeypatch.setattr(virsh, "run", run)

    return start


def test_everything(play: Play) -> None:
    play(OUTPUT)
    found = domains.everything(xml=True, timeout=4)
    assert (found["version"], found["networks"]) == ("9.0.0", ["default", "storage net"])
    dash, quotes = found["domains"]
    assert (dash["name"], dash["state"], dash["live_xml"]) == ("-dash", "shut off", "")
    assert (quotes["state"], quotes["reason"]) == ("running", "booted")
    assert quotes["live_xml"] == recorded("dumpxml-running.xml")
    assert all(d["xml"] == "" for d in domains.everything(xml=False, timeout=4)["domains"])


def test_only_active_ones(play: Play) -> None:
    play(OUTPUT)
    (found,) = domains.active(timeout=4)
    assert (found["uuid"], found["live_xml"]) == (QUOTES, recorded("dumpxml-running.xml"))
    play({**OUTPUT, f"domstate {QUOTES} --reason": recorded("domstate-destroyed.txt")})
    assert domains.active(timeout=4) == []


@pytest.mark.parametrize("state", ["paused", "in shutdown", "pmsuspended", "crashed", "no state", "idle"])
def test_whatever_is_not_off_is_active(play: Play, state: str) -> None:
    play({**OUTPUT, f"domstate {QUOTES} --reason": f"{state} (unknown)\n\n"})
    (found,) = domains.active(timeout=4)
    assert (found["uuid"], found["state"]) == (QUOTES, state)


def test_no_domains_and_a_failed_list_are_different(play: Play) -> None:
    play({**OUTPUT, "list --all --uuid": ""})
    assert domains.everything(xml=False, timeout=4)["domains"] == []
    play({**OUTPUT, "list --all --uuid": ""}, errors="error: Failed to list domains\n", rc=1)
    with pytest.raises(Problem) as caught:
        domains.everything(xml=False, timeout=4)
    assert (caught.value.kind, caught.value.message) == ("virsh", "Failed to list domains")


def test_a_domain_that_was_undefined_meanwhile(play: Play) -> None:
    gone = {**OUTPUT, f"dominfo {DASH}": "", f"domstate {DASH} --reason": ""}
    play(gone, errors=NO_DOMAIN, later={"list --all --uuid": f"{QUOTES}\n"})
    assert [d["uuid"] for d in domains.everything(xml=False, timeout=4)["domains"]] == [QUOTES]


def test_a_domain_that_is_listed_and_cannot_be_found_is_never_left_out(play: Play) -> None:
    play({**OUTPUT, f"dominfo {DASH}": ""}, errors=NO_DOMAIN)
    with pytest.raises(Problem) as caught:
        domains.everything(xml=False, timeout=4)
    assert caught.value.kind == "virsh"


@pytest.mark.parametrize(
    "errors", ["", "error: internal error: no\n", NO_DOMAIN + "error: internal error: no\n"]
)
def test_a_domain_without_an_answer_is_a_failure(play: Play, errors: str) -> None:
    play({**OUTPUT, f"domstate {DASH} --reason": ""}, errors=errors)
    with pytest.raises(Problem) as caught:
        domains.everything(xml=False, timeout=4)
    assert caught.value.kind == "virsh"


def test_a_libvirt_without_networks_has_none(play: Play) -> None:
    play({**OUTPUT, "net-list --name": ""}, errors=recorded("error-no-network-driver.txt"))
    assert domains.everything(xml=False, timeout=4)["networks"] == []
    play({**OUTPUT, "net-list --name": ""}, errors="error: Failed to list networks\nerror: internal error\n")
    with pytest.raises(Problem):
        domains.everything(xml=False, timeout=4)
