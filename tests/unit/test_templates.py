"""What lands on hosts, rendered: compared with files that a person can read and shellcheck checks."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from tasks import check
from tasks.cluster.model import Console
from tasks.cluster.setup import afterboot, bridge, ocfs2, serial, templates
from tests.unit.test_bridge_plan import ours


def change() -> str:
    """The script that changes the network of a host."""
    network, _, wanted = ours("vmhost1")
    return bridge.script("vmhost1", network.netplan, wanted, 105)


RENDERED = check.ROOT / "tests/data/rendered"
MADE = {
    "restart_running_vms": afterboot.script("/vmstorage", "vmhost1"),
    "netplan-change": change(),
    "restart_running_vms.logrotate": afterboot.logrotate("/vmstorage"),
    "initiatorname.iscsi": templates.render("initiatorname.iscsi.j2", name="iqn.1993-08.org.debian:01:5e1f"),
    "iscsi-iface": templates.render("iscsi-iface.j2", iface="vmfab", nic="enp2s0"),
    "libvirt-guests.dropin": templates.render("libvirt-guests.dropin.j2"),
    "o2cb.dropin": ocfs2.waits_for("192.168.0.21"),
    "o2cb.default": templates.render("o2cb.default.j2", cluster="vmfab", threshold=31),
    "ocfs2.sysctl": templates.render("vmfab-ocfs2.sysctl.j2", seconds=30),
    "minirc.raid": serial.text(Console("raid", "vmhost1")),
    "minirc.switch": serial.text(Console("switch", "vmhost1", "/dev/ttyUSB0", 9600, "even")),
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_rendered_file_is_the_recorded_one(name: str) -> None:
    assert MADE[name] == (RENDERED / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(name for name, text in MADE.items() if text.startswith("#!/bin/sh")))
def test_rendered_script_is_among_those_that_are_checked(name: str) -> None:
    assert RENDERED / name in check.shell_scripts()


def test_every_shell_template_is_recorded() -> None:
    scripts = {path.name.removesuffix(".sh.j2") for path in templates.FOLDER.glob("*.sh.j2")}
    assert scripts <= {path.name for path in RENDERED.iterdir()}


def test_a_missing_value_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "greeting.j2").write_text("hello {{ name }}\n")
    monkeypatch.setattr(templates, "FOLDER", tmp_path)
    templates._environment.cache_clear()
    try:
        assert templates.render("greeting.j2", name="you") == "hello you\n"
        with pytest.raises(UndefinedError):
            templates.render("greeting.j2")
    finally:
        templates._environment.cache_clear()


@pytest.mark.parametrize(("value", "word"), [("/a", "/a"), ("/a b", "'/a b'"), ("it's", "'it'\"'\"'s'")])
def test_quoted_makes_one_word_of_any_text(value: str, word: str) -> None:
    quote = templates._environment().filters["quoted"]
    assert quote(value) == word
