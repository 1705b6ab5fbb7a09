"""What the liveness service's tender sees to, on hosts with a common store."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tasks.cluster import domainxml
from tasks.cluster.setup.templates import render
from tasks.lab.namespaces import until
from tests.lab.guard.hooks import HookCluster, HookHost, disk, domain
from tests.lab.guard.test_hook import qcow2
from tests.unit.onhost.fakes import fake_qemu


@contextmanager
def tending(*hosts: HookHost, silence: float = 0.5) -> Iterator[None]:
    """The rendered program on these hosts."""
    processes = []
    for host in hosts:
        program = host.disk / "vmfab-tend"
        text = render("vmfab-tend.py.j2", hook=str(host.hook))
        text = (
            text.replace("PAUSE = 5.0", "PAUSE = 0.1")
            .replace("LOOK = 15.0", "LOOK = 0.1")
            .replace("SILENCE = 20.0", f"SILENCE = {silence}")
        )
        program.write_text(text)
        program.chmod(0o755)
        processes.append(subprocess.Popen([*host.prefix, program]))
    try:
        yield
        assert [process.poll() for process in processes] == [None] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextmanager
def living(xml: str, *files: str, cluster: HookCluster) -> Iterator[subprocess.Popen[bytes]]:
    """A process of this VM, which writes these images."""
    paths = tuple(cluster.store / name for name in files)
    process = fake_qemu(domainxml.parse(xml).uuid, files=paths)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def status(host: HookHost, xml: str, *, state: str = "running", job: str = "", name: str = "web") -> None:
    """What libvirt notes of a running VM."""
    under_way = f"<job type='none' async='{job}' phase='perform3'/>" if job else ""
    text = f"<domstatus state='{state}' reason='booted' pid='1'>{under_way}{xml}</domstatus>"
    host.sh('printf %s "$2" >/run/draft; mv /run/draft "/run/libvirt/qemu/$1.xml"', name, text)


def define(host: HookHost, xml: str, name: str = "web") -> None:
    host.sh(
        'printf "<!-- W -->\\n%s\\n" "$2" >/run/draft; mv /run/draft "/etc/libvirt/qemu/$1.xml"', name, xml
    )


def mirror(cluster: HookCluster, xml: str) -> dict[str, Any]:
    path = cluster.store / f".vmfab/definitions/{domainxml.parse(xml).uuid}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def versions(cluster: HookCluster, xml: str) -> list[tuple[str, bool]]:
    """Host of each version, and whether it says what `xml` says."""
    return [(v["host"], v["xml"] == xml) for v in mirror(cluster, xml).get("versions", [])]


def quiet(seconds: float = 1.5) -> None:
    """Time for a few passes in which nothing may happen."""
    time.sleep(seconds)


# definitions


def test_a_start_mirrors_what_is_defined(cluster: HookCluster, one: HookHost) -> None:
    image = cluster.image("web.img")
    xml, defined = domain(image), domain(image, more="<title>defined</title>")
    assert one.start(xml) == ""
    assert versions(cluster, xml) == [("vmhost1", True)]
    one.stop(xml)
    define(one, defined)
    assert one.start(xml) == ""
    assert versions(cluster, defined) == [("vmhost1", True), ("vmhost1", False)]


def test_a_mirror_that_hangs_holds_no_start_up(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(domain(cluster.image("other.img"), name="other"))
    with (cluster.store / ".vmfab/locks/definitions").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        begin = time.monotonic()
        assert one.start(xml) == ""
        assert time.monotonic() - begin < 10
    assert "was not mirrored" in one.syslog
    assert mirror(cluster, xml) == {}


def test_edits_by_hand_are_mirrored_and_ends_are_noted(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    image = cluster.image("web.img")
    first, second, third = (domain(image, more=f"<title>{n}</title>") for n in range(3))
    define(one, first)
    with tending(one, two):
        until(lambda: versions(cluster, first) == [("vmhost1", True)], 20, "the first version")
        one.start(first)
        define(one, second)
        until(lambda: len(versions(cluster, first)) == 2, 20, "the second version")
        # The other host does not run it: what it defines does not count.
        define(two, third)
        quiet()
        assert versions(cluster, second) == [("vmhost1", True), ("vmhost1", False)]
        one.sh("rm /etc/libvirt/qemu/web.xml")
        until(lambda: "vmhost1" in mirror(cluster, first)["undefined"], 20, "the note")
        define(one, second)
        until(lambda: mirror(cluster, first)["undefined"] == {}, 20, "the note to go")
        # Renamed: the same VM.
        one.sh("mv /etc/libvirt/qemu/web.xml /etc/libvirt/qemu/www.xml")
        quiet()
        assert mirror(cluster, first)["undefined"] == {}
    one.sh("rm /etc/libvirt/qemu/www.xml")
    one.stop(first)
    with tending(one):
        until(lambda: "vmhost1" in mirror(cluster, first)["undefined"], 20, "what was removed meanwhile")


# images of running VMs


def test_what_is_plugged_in_is_claimed(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    images = [cluster.image(f"{n}.img") for n in range(3)]
    overlay = cluster.image("over.qcow2", qcow2("0.img"))
    xml = domain(images[0])
    with living(xml, "2.img", cluster=cluster), tending(one):
        one.call("prepare", xml)  # as for a start: its process would be taken for a lost one
        assert one.call("vmfab-claim", xml, "{}").returncode == 0
        status(one, domain(images[0], images[1]))
        until(lambda: len(cluster.owners()) == 3, 20, "the new image and the one that was seen only in /proc")
        assert {cluster.owner(f"{n}.img") for n in range(3)} == {"vmhost1"}
        assert "is owned by vmhost1 (VM web" in two.start(domain(images[1], name="b"))
        status(one, domain(disk(overlay, driver="qcow2"), images[1]))
        until(lambda: cluster.owner("over.qcow2") == "vmhost1", 20, "the overlay")
        assert "claimed for web" in cluster.log[-1]


def test_a_conflict_is_told_once(cluster: HookCluster, one: HookHost, two: HookHost) -> None:
    own, foreign = cluster.image("own.img"), cluster.image("foreign.img")
    xml = domain(own)
    two.start(domain(foreign, name="b"))
    with living(xml, cluster=cluster), tending(one):
        one.call("vmfab-claim", xml, "{}")
        status(one, domain(own, foreign))
        until(lambda: "RUNS HERE WITH AN IMAGE" in one.syslog, 20, "the alarm")
        quiet()
    assert one.syslog.count("RUNS HERE") == 1
    assert "foreign.img is owned by vmhost2 (VM b" in one.syslog
    assert any(" not claimed for web (" in line for line in cluster.log)
    assert cluster.owner("foreign.img") == "vmhost2"


# ends


def test_an_end_that_the_store_did_not_hear_of_is_noted_later(
    cluster: HookCluster, one: HookHost, two: HookHost
) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    one.render(1)
    with (cluster.store / ".vmfab/locks/owners").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        one.stop(xml)
    assert cluster.owner("web.img") == "vmhost1"
    with tending(one):
        until(lambda: cluster.owners() == {}, 20, "the image to be free")
    assert "had left" in cluster.log[-1]
    assert two.start(xml) == ""


def test_a_process_that_lives_on_keeps_its_images_until_it_ends(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    with tending(one):
        with living(xml, cluster=cluster):
            one.stop(xml)
            quiet()
            assert cluster.owner("web.img") == "vmhost1"
        until(lambda: cluster.owners() == {}, 20, "the image to be free")


def test_a_new_start_takes_what_an_old_end_has_left(cluster: HookCluster, one: HookHost) -> None:
    xml = domain(cluster.image("web.img"))
    one.start(xml)
    with living(xml, cluster=cluster):
        one.stop(xml)
    assert one.start(xml) == ""
    with tending(one):
        quiet()
    assert cluster.owner("web.img") == "vmhost1"


# migrations


def shown(cluster: HookCluster, host: HookHost, *, released: dict[str, object] | None = None) -> None:
    """What a host's liveness service has written: it has the lock, or gave it back."""
    folder = cluster.store / ".vmfab/hosts"
    folder.mkdir(parents=True, exist_ok=True)
    record = {"host": host.name, "boot_id": host.boot_id, "since": time.time(), "released": released}
    (folder / host.name).write_text(json.dumps(record))
    beat = {"host": host.name, "boot_id": host.boot_id, "at": time.time()}
    (folder / f"{host.name}.beat").write_text(json.dumps(beat))


@pytest.fixture
def leaving(cluster: HookCluster, one: HookHost, two: HookHost) -> Iterator[str]:
    """A VM on its way from vmhost1 to vmhost2, with a living process (which both hosts see here)."""
    xml = domain(cluster.image("web.img"))
    shown(cluster, one)
    shown(cluster, two)
    one.start(xml)
    two.arrive(xml)
    with living(xml, cluster=cluster):
        status(one, xml, job="migration out")
        assert cluster.owner("web.img") == "vmhost1>vmhost2"
        yield xml


def test_a_destination_that_died_gives_it_back_when_it_has_booted(
    cluster: HookCluster, one: HookHost, two: HookHost, leaving: str
) -> None:
    two.boot()
    with tending(two):
        until(lambda: cluster.owner("web.img") == "vmhost1", 20, "the way back")
    assert (
        "was on its way from vmhost1 to vmhost2 and belongs to vmhost1: vmhost2 has booted" in cluster.log[-1]
    )


def test_the_source_sees_that_the_destination_has_booted(
    cluster: HookCluster, one: HookHost, two: HookHost, leaving: str
) -> None:
    with tending(one):
        quiet()
        assert cluster.owner("web.img") == "vmhost1>vmhost2"
        two.boot()
        shown(cluster, two)
        until(lambda: cluster.owner("web.img") == "vmhost1", 20, "the way back")


def test_a_silent_destination_is_believed_dead_by_a_source_that_runs_it(
    cluster: HookCluster, one: HookHost, two: HookHost, leaving: str
) -> None:
    lock = cluster.store / ".vmfab/hosts/vmhost2"
    fd = os.open(lock, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with tending(one):
        status(one, leaving)
        quiet()
        assert cluster.owner("web.img") == "vmhost1>vmhost2"  # its lock is held
        status(one, leaving, job="migration out")
        os.close(fd)
        quiet()
        assert cluster.owner("web.img") == "vmhost1>vmhost2"  # libvirt has not given up
        status(one, leaving, state="paused")
        quiet()
        assert cluster.owner("web.img") == "vmhost1>vmhost2"  # it does not run here
        status(one, leaving)
        until(lambda: cluster.owner("web.img") == "vmhost1", 20, "the way back")
    assert "vmhost2 is silent and vmhost1 runs it" in cluster.log[-1]


def test_a_destination_that_beats_or_was_stopped_is_not_dead(
    cluster: HookCluster, one: HookHost, two: HookHost, leaving: str
) -> None:
    status(one, leaving)
    # Beats come ten times as often as they have to, so that a busy machine makes no host silent.
    with tending(one, silence=3.0):
        for _ in range(15):
            shown(cluster, two)
            time.sleep(0.3)
        shown(cluster, two, released={"at": 1, "running": 1, "shutting_down": False})
        quiet()
        assert cluster.owner("web.img") == "vmhost1>vmhost2"
        shown(cluster, two, released={"at": 1, "running": 0, "shutting_down": True})
        until(lambda: cluster.owner("web.img") == "vmhost1", 20, "the way back")


def test_a_source_that_died_leaves_it_to_a_destination_that_runs_it(
    cluster: HookCluster, one: HookHost, two: HookHost, leaving: str
) -> None:
    with tending(two, silence=1000):
        status(two, leaving, state="paused", job="migration in")
        one.boot()
        shown(cluster, one)
        quiet()
        # Its memory has not come: libvirt ends it, and the hook gives it back.
        assert cluster.owner("web.img") == "vmhost1>vmhost2"
        status(two, leaving)
        until(lambda: cluster.owner("web.img") == "vmhost2", 20, "the arrival")
    record = cluster.owners()["web.img"]
    assert (record["boot_id"], "to" in record) == (two.boot_id, False)
    assert "is owned by vmhost2" in one.start(leaving)
