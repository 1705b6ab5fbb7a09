"""host.setup, host.packages and host.check on the simulated cluster, with faults all along."""

from __future__ import annotations

from itertools import count

import pytest

from tasks.cluster.setup import afterboot, packages, releases, sequence
from tasks.hostsetup import check, setup
from tasks.hostsetup import packages as install
from tests.domain.desk import Desk
from tests.domain.test_move_every_fault import FAULTS
from tests.sim.apt import KERNEL, Apt
from tests.sim.cluster import SimCluster

ONE, TWO, THREE = "vmhost1", "vmhost2", "vmhost3"
NAMES = [package.name for package in releases.packages(releases.RELEASES[0])]


def apt(sim: SimCluster, host: str = ONE) -> Apt:
    return sim[host].disk.apt


def has_all(sim: SimCluster, host: str = ONE) -> bool:
    return all(apt(sim, host).states.get(name) == "installed" for name in NAMES)


# -- packages ---------------------------------------------------------------------------------------------


def test_what_is_missing_is_installed_and_nothing_else(sim: SimCluster, desk: Desk) -> None:
    del apt(sim).states["ocfs2-tools"], apt(sim).states["minicom"]
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert has_all(sim)
    words = apt(sim).history[-1]
    assert [word for word in words if word in NAMES] == ["ocfs2-tools", "minicom"]
    assert {"--no-install-recommends", "--no-remove", "--yes"} <= set(words)
    assert "+ ocfs2-tools  o2cb" in ended.out
    again = desk.type(install, hosts=[ONE])
    assert again.code == 0
    assert again.out.count("already so") == 4
    assert len(apt(sim).history) == 2


def test_a_dry_run_installs_nothing(sim: SimCluster, desk: Desk) -> None:
    apt(sim).strip()
    ended = desk.type(install, hosts=[ONE], dry_run=True)
    assert ended.code == 0
    assert apt(sim).history == []
    assert f"{len(NAMES)} packages: to be installed" in ended.out


def test_an_unknown_release_is_refused_with_those_that_are_known(sim: SimCluster, desk: Desk) -> None:
    apt(sim, TWO).os_release = 'ID=fedora\nVERSION_ID=40\nPRETTY_NAME="Fedora Linux 40"\n'
    apt(sim).strip()
    ended = desk.type(install, hosts=[ONE, TWO], yes=True)
    assert ended.code == 2
    assert "vmhost2 runs Fedora Linux 40" in ended.err
    assert all(release.name in ended.err for release in releases.RELEASES)
    assert apt(sim).history == []


def test_an_installation_that_was_cut_off_is_finished_first(sim: SimCluster, desk: Desk) -> None:
    apt(sim).interrupted = True
    apt(sim).states["open-iscsi"] = "half-configured"
    apt(sim).states.pop("cron")
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert [words[0] for words in apt(sim).history] == ["dpkg", "apt-get", "apt-get"]
    assert has_all(sim)


def test_another_package_manager_is_waited_for(sim: SimCluster, desk: Desk) -> None:
    del apt(sim).states["cron"]
    apt(sim).locked = 4
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "waits for another package manager" in ended.out


def test_it_does_not_wait_for_ever(sim: SimCluster, desk: Desk) -> None:
    del apt(sim).states["cron"]
    apt(sim).locked = 10**6
    begun = sim.clock.monotonic()
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 1
    assert "Could not get lock" in ended.err
    assert packages.LOCKED < sim.clock.monotonic() - begun < packages.LOCKED + 60


def test_what_apt_get_complained_about_is_told(sim: SimCluster, desk: Desk) -> None:
    del apt(sim).states["ocfs2-tools"]
    apt(sim).broken["ocfs2-tools"] = "Unable to locate package ocfs2-tools"
    ended = desk.type(install, hosts=[ONE, TWO], yes=True)
    assert ended.code == 1
    assert "apt-get failed: E: Unable to locate package ocfs2-tools" in ended.err
    assert packages.LOG in ended.err


def test_a_kernel_without_ocfs2_gets_its_modules_on_ubuntu(sim: SimCluster, desk: Desk) -> None:
    extra = "linux-modules-extra-6.8.0-50-virtual"
    apt(sim).os_release = "ID=ubuntu\nVERSION_ID=22.04\n"
    apt(sim).kernel = "6.8.0-50-virtual"
    apt(sim).ocfs2_in = frozenset({extra})
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert apt(sim).history[-1][-1] == extra


@pytest.mark.parametrize(
    ("os_release", "kernel"),
    [
        ("ID=debian\nVERSION_ID=12\n", "linux-image-amd64"),
        ("ID=ubuntu\nVERSION_ID=26.04\n", "linux-image-generic"),
    ],
)
def test_a_kernel_without_ocfs2_is_refused_where_no_package_has_it(
    sim: SimCluster, desk: Desk, os_release: str, kernel: str
) -> None:
    apt(sim).os_release = os_release
    apt(sim).ocfs2_in = frozenset()
    apt(sim).states["qemu-system-modules-spice"] = "installed"
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert f"kernel {apt(sim).kernel} has no OCFS2" in ended.err
    assert f"Install {kernel} there" in " ".join(ended.err.split())


def test_a_other_kernel_gets_its_modules_before_it_is_booted(sim: SimCluster, desk: Desk) -> None:
    apt(sim).os_release = "ID=ubuntu\nVERSION_ID=22.04\n"
    apt(sim).kernel, apt(sim).other_kernel = "6.8.0-99-virtual", "6.8.0-101-virtual"
    apt(sim).ocfs2_in = frozenset({"linux-modules-extra-{kernel}"})
    apt(sim).states["linux-modules-extra-6.8.0-99-virtual"] = "installed"
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert apt(sim).history[-1][-1] == "linux-modules-extra-6.8.0-101-virtual"
    assert "OCFS2 for the kernel 6.8.0-101-virtual" in ended.out
    assert "to be" not in desk.type(install, hosts=[ONE]).out


def test_a_other_kernel_without_ocfs2_is_refused_on_debian(sim: SimCluster, desk: Desk) -> None:
    apt(sim).other_kernel = "6.1.0-50-cloud-amd64"
    apt(sim).ocfs2_in = frozenset({"linux-image-{kernel}"})
    apt(sim).states[f"linux-image-{KERNEL}"] = "installed"
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "boots the kernel 6.1.0-50-cloud-amd64 next, which has no OCFS2" in ended.err
    assert "apt-get remove linux-image-6.1.0-50-cloud-amd64" in ended.err


@pytest.mark.parametrize("other", ["6.1.0-48-cloud-amd64", "6.1.0-49-cloud-amd64"])
def test_an_older_kernel_or_one_of_another_flavour_may_be_there(
    sim: SimCluster, desk: Desk, other: str
) -> None:
    apt(sim).other_kernel = other
    apt(sim).ocfs2_in = frozenset({"linux-image-{kernel}"})
    apt(sim).states[f"linux-image-{KERNEL}"] = "installed"
    assert desk.type(install, hosts=[ONE]).code == 0


def test_what_is_no_machine_of_its_own_is_refused(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].disk.container = True
    strip(sim, ONE)
    ended = desk.type(install, hosts=[ONE], yes=True)
    assert ended.code == 2
    assert "no machine of its own" in ended.err
    assert apt(sim).history == []


# -- setup ------------------------------------------------------------------------------------------------


def strip(sim: SimCluster, host: str) -> None:
    """Make a host a bare one: no packages, no libvirt."""
    apt(sim, host).strip()


def test_a_bare_host_is_set_up_with_one_question(sim: SimCluster, desk: Desk) -> None:
    strip(sim, ONE)
    shown = desk.type(setup, hosts=[ONE], dry_run=True)
    assert shown.code == 0, shown
    assert "autostart: comes after packages (vmhost1 has no crontab)" in shown.out
    assert not sim[ONE].disk.files
    assert desk.type(setup, hosts=[ONE]).code == 2
    ended = desk.type(setup, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert has_all(sim)
    assert afterboot.SCRIPT in sim[ONE].disk.files
    assert ended.out.index("packages is set up") < ended.out.index("autostart is set up")
    again = desk.type(setup, hosts=[ONE])
    assert again.code == 0
    assert "set up already, nothing was changed" in again.out


def test_it_stops_at_the_first_failure_and_names_what_was_not_reached(sim: SimCluster, desk: Desk) -> None:
    for host in (ONE, TWO, THREE):
        strip(sim, host)
    apt(sim, TWO).broken["open-iscsi"] = "Unable to locate package open-iscsi"
    ended = desk.type(setup, hosts=[ONE, TWO, THREE], yes=True)
    assert ended.code == 1, ended
    later = [stage.name for stage in sequence.STAGES if stage.name != "packages"]
    assert f"Not reached: vmhost2 ({', '.join(later)})" in ended.out
    assert "Not reached: vmhost3 (packages, " in ended.out
    assert has_all(sim, ONE)
    assert not apt(sim, THREE).history


def test_a_silent_host_stops_it_before_anything_is_changed(sim: SimCluster, desk: Desk) -> None:
    strip(sim, ONE)
    sim[TWO].cut()
    assert desk.type(setup, hosts=[ONE, TWO], yes=True).code == 2
    assert apt(sim).history == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_all_along(fault: str, when: str) -> None:
    # Every fifth request, another fifth for each fault: all of them would take minutes.
    for n in count(1 + (list(FAULTS).index(fault) + (when == "after")) % 5, 5):
        with SimCluster((ONE, TWO), seed=n) as sim:
            desk = Desk(sim)
            strip(sim, ONE)
            sim.add_vm("web", TWO)
            rule = sim.faults.on(FAULTS[fault](), n=n, when=when)
            ended = desk.type_or_die(setup, hosts=[ONE], yes=True)
            sim.faults.clear()
            if ended is not None and ended.code == 2:
                assert not apt(sim).history, ended
                assert not sim[ONE].disk.files, ended
            if ended is not None and ended.code == 0:
                assert has_all(sim)
        if not rule.struck:
            assert n > 40, "it asks more often than that"
            return


def test_running_vms_are_noted_as_owned(sim: SimCluster, desk: Desk) -> None:
    sim.add_vm("web", ONE)
    ended = desk.type(setup, hosts=[ONE], yes=True)
    assert ended.code == 0, ended
    assert "owner files: to be written for the running VMs web" in ended.out
    (owner,) = [text for path, text in sim.store.files.items() if path.startswith("owners/")]
    assert '"vmhost1"' in owner


def test_a_step_that_lacks_what_nobody_brings_is_refused(sim: SimCluster, desk: Desk) -> None:
    sim[ONE].view.mounted = False
    ended = desk.type(setup, hosts=[ONE], yes=True)
    assert ended.code == 2, ended
    assert "vmhost1 cannot use the store" in ended.err
    assert not sim[ONE].disk.files


# -- check ------------------------------------------------------------------------------------------------


def test_check_names_what_is_missing_and_what_to_type(sim: SimCluster, desk: Desk) -> None:
    desk.type(setup, hosts=[ONE, THREE], yes=True)
    del apt(sim).states["minicom"]
    sim.calls.clear()
    ended = desk.type(check, hosts=[ONE, THREE])
    assert ended.code == 1, ended
    assert "vmhost1: packages: 1 package: to be installed" in ended.out
    assert "> fab -H vmhost1 host.packages" in ended.out
    assert "vmhost3: nothing is missing" in ended.out
    assert desk.ops("work", "file.write") == []
    assert desk.type(check, hosts=[THREE]).code == 0


def test_check_is_for_all_hosts_without_any_named(sim: SimCluster, desk: Desk) -> None:
    sim[TWO].cut()
    ended = desk.type(check, json=True)
    assert ended.code == 3
    hosts = {host["host"]: host for host in ended.document["hosts"]}
    assert list(hosts) == [ONE, TWO, THREE]
    assert not hosts[TWO]["complete"]
    assert {lack["step"] for lack in hosts[ONE]["missing"]} == {"guard", "autostart"}
