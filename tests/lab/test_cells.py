"""The practice hosts and their faults are what they claim to be."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tasks.lab import law
from tasks.lab.lab import Lab
from tasks.lab.namespaces import until
from tasks.lab.problem import LabError

ONE, TWO = "vmhost1", "vmhost2"


def ssh(lab: Lab, host: str, command: str, timeout: int = 10) -> subprocess.CompletedProcess[str]:
    options = ["-F", str(lab.root / "ssh_config"), "-o", f"ConnectTimeout={timeout}"]
    return lab.run_on_laptop(["ssh", *options, host, command])


def out(lab: Lab, host: str, command: str) -> str:
    done = ssh(lab, host, command)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def wait(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    until(condition, seconds, what, 0.05)


# hosts


@pytest.mark.parametrize(
    "command",
    [
        "hostname",
        "cat /etc/machine-id",
        "cat /proc/sys/kernel/random/boot_id",
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub | cut -d' ' -f2",
        "virsh capabilities | grep -m1 '<uuid>'",
        "readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/uts",
    ],
)
def test_each_host_has_its_own(lab: Lab, command: str) -> None:
    answers = {out(lab, host, command) for host in lab.hosts}
    assert len(answers) == len(lab.hosts)
    assert "" not in answers


def test_a_host_knows_nothing_of_the_machine_it_lives_on(lab: Lab) -> None:
    assert out(lab, ONE, "ls -A /root") == ".ssh"
    assert str(lab.root) not in out(lab, ONE, "cat /proc/self/mountinfo | cut -d' ' -f5")
    assert out(lab, ONE, "ps -e -o comm= | head -1") == "tini"
    assert ssh(lab, ONE, "touch /usr/bin/x").returncode != 0
    assert out(lab, ONE, "cat /etc/resolv.conf") == ""


def test_the_store_is_one_mounted_file_system_everywhere(lab: Lab) -> None:
    out(lab, ONE, "echo seen > /vmstorage/note")
    for host in lab.hosts:
        assert out(lab, host, "mountpoint -q /vmstorage && cat /vmstorage/note") == "seen"
    assert len({out(lab, host, "stat -c %d /vmstorage") for host in lab.hosts}) == 1


def test_hosts_log_in_on_each_other_and_ops_may_use_sudo(lab: Lab) -> None:
    assert out(lab, ONE, f"ssh {TWO} hostname") == TWO
    assert out(lab, f"ops@{ONE}", "sudo -n id -u; id -u").split() == ["0", "1000"]


def test_the_network_does_not_reach_the_machine(lab: Lab) -> None:
    shown = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True).stdout
    assert "10.77.0." not in shown
    assert (
        out(lab, ONE, "ip -o route")
        == f"10.77.0.0/24 dev eth0 proto kernel scope link src {lab.address(ONE)} "[:-1]
    )


# guests


@pytest.mark.parametrize(("acpi", "least"), [("now", 0.0), ("3", 2.9)])
def test_a_guest_reacts_to_the_power_button(clean_lab: Lab, acpi: str, least: float) -> None:
    clean_lab.add_vm("web", ONE, acpi=acpi, booted=True)
    begin = time.monotonic()
    clean_lab.virsh(ONE, "shutdown", "web")
    wait(lambda: clean_lab.running(ONE) == [], "web to end")
    assert time.monotonic() - begin >= least


def test_a_guest_may_ignore_the_power_button(clean_lab: Lab) -> None:
    uuid = clean_lab.add_vm("legacy", ONE, acpi="never", booted=True)
    clean_lab.virsh(ONE, "shutdown", "legacy")
    console = clean_lab.disk(ONE) / f"var/log/libvirt/console-{uuid}.log"
    wait(lambda: "power button ignored" in console.read_text(errors="replace"), "the guest to ignore it")
    clean_lab.wait_counting("legacy")
    assert clean_lab.running(ONE) == ["legacy"]


def test_a_guest_tells_its_story_across_hosts(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", ONE, booted=True)
    xml = clean_lab.virsh(ONE, "dumpxml", "--inactive", "web")
    clean_lab.virsh(ONE, "destroy", "web")
    before = clean_lab.testimony("web")
    clean_lab.define_vm(TWO, xml)
    clean_lab.virsh(TWO, "start", "web")
    clean_lab.wait_counting("web")
    after = clean_lab.testimony("web")
    assert after.good
    assert [boot.number for boot in after.boots] == [1, 2]
    assert after.boots[1].start == before.counter
    assert [(start.host, start.outcome) for start in law.starts(clean_lab)[-2:]] == [
        (ONE, "run"),
        (TWO, "run"),
    ]


def test_names_may_be_odd(clean_lab: Lab) -> None:
    names = sorted(["Büro Süd", "-x", "a'b", "$HOME", 'say "hi"', "a&b,c"])
    for name in names:
        clean_lab.add_vm(name, ONE)
    assert clean_lab.running(ONE) == names
    assert sorted(one.name.replace(",,", ",") for one in law.emulators(clean_lab)) == names
    assert clean_lab.images() == names


def test_a_double_run_is_not_prevented_but_proved(restored_lab: Lab) -> None:
    """Neither QEMU's locks nor libvirt protect an image, exactly as on OCFS2; the lab must see it."""
    lab = restored_lab
    watch = law.Watch(lab)
    watch.start()
    lab.add_vm("web", ONE, booted=True)
    lab.define_vm(TWO, lab.virsh(ONE, "dumpxml", "--inactive", "web"))
    lab.virsh(TWO, "start", "web")
    with pytest.raises(law.LawBroken, match=r"web\.img is open on vmhost"):
        law.check(lab)
    lab.wait_counting("web")
    wait(lambda: len(lab.testimony("web").boots) == 2, "the second boot")
    for _ in range(10):
        lab.wait_counting("web")
    for host in (ONE, TWO):
        lab.virsh(host, "destroy", "web")
    with pytest.raises(law.LawBroken):
        watch.finish()
    with pytest.raises(law.LawBroken, match="web: "):
        law.check(lab)


def test_a_start_while_another_host_runs_it_is_seen_even_if_it_fails(restored_lab: Lab) -> None:
    lab = restored_lab
    lab.add_vm("web", ONE, booted=True)
    lab.define_vm(TWO, lab.virsh(ONE, "dumpxml", "--inactive", "web"))
    lab.fail_next_start(TWO)
    watch = law.Watch(lab)
    watch.look()
    assert "on purpose" in ssh(lab, TWO, "virsh start web").stderr
    watch.look()
    assert list(watch.wrong) == ["web: started on vmhost2 while vmhost1 ran it"]


def test_two_names_for_one_image_are_seen(restored_lab: Lab) -> None:
    restored_lab.add_vm("web", ONE)
    restored_lab.define_vm(TWO, restored_lab.xml("copy", image_of="web"))
    restored_lab.virsh(TWO, "start", "copy")
    with pytest.raises(law.LawBroken, match=r"web\.img is open"):
        law.check(restored_lab)


def test_live_migration_breaks_no_law(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", ONE, booted=True)
    clean_lab.virsh(ONE, "migrate", "--live", "--p2p", "--unsafe", "web", f"qemu+ssh://{TWO}/system")
    assert clean_lab.running(ONE) == []
    assert clean_lab.running(TWO) == ["web"]
    clean_lab.wait_counting("web")
    assert len(clean_lab.testimony("web").boots) == 1


# faults: network


def test_a_cut_network_hangs_connections_until_it_is_mended(clean_lab: Lab) -> None:
    words = ["ssh", "-F", str(clean_lab.root / "ssh_config"), TWO, "read line; echo got $line"]
    with subprocess.Popen(
        [*clean_lab.laptop_prefix(), *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as session:
        wait(lambda: "read line" in clean_lab.run_on(TWO, ["ps", "-e", "-o", "args="]).stdout, "the session")
        clean_lab.cut_network(TWO)
        assert ssh(clean_lab, TWO, "true", timeout=1).returncode == 255
        assert out(clean_lab, ONE, "hostname") == ONE
        clean_lab.mend_network(TWO)
        said, _ = session.communicate("hello\n", timeout=120)
    assert said == "got hello\n"


def test_latency_is_added_in_both_directions_and_taken_away(clean_lab: Lab) -> None:
    def round_trip() -> float:
        code = (
            "import socket, time; begin = time.monotonic();"
            f" socket.create_connection(({clean_lab.address(TWO)!r}, 22)).close();"
            " print(time.monotonic() - begin)"
        )
        return min(float(clean_lab.run_on_laptop(["/usr/bin/python3", "-c", code]).stdout) for _ in range(10))

    assert round_trip() < 0.05
    clean_lab.add_latency(TWO, 40)
    clean_lab.add_latency(TWO, 40)
    assert 0.08 <= round_trip() < 0.16
    assert out(clean_lab, TWO, "head -c 3000000 /dev/zero | wc -c") == "3000000"
    clean_lab.add_latency(TWO, 0)
    assert round_trip() < 0.05


def test_sessions_are_cut_in_the_middle(clean_lab: Lab) -> None:
    words = ["ssh", "-F", str(clean_lab.root / "ssh_config"), TWO, "sleep 60"]
    with subprocess.Popen([*clean_lab.laptop_prefix(), *words], stderr=subprocess.DEVNULL) as session:
        wait(lambda: "sleep 60" in clean_lab.run_on(TWO, ["ps", "-e", "-o", "args="]).stdout, "the session")
        clean_lab.cut_sessions(TWO)
        assert session.wait(timeout=60) == 255
    assert out(clean_lab, TWO, "hostname") == TWO


# faults: daemons


def test_a_frozen_sshd_lets_nobody_in(clean_lab: Lab) -> None:
    clean_lab.freeze(TWO, "sshd")
    assert "banner exchange" in ssh(clean_lab, TWO, "true", timeout=1).stderr
    clean_lab.thaw(TWO, "sshd")
    assert out(clean_lab, TWO, "hostname") == TWO


def test_a_frozen_libvirtd_answers_nobody(clean_lab: Lab) -> None:
    clean_lab.freeze(TWO, "libvirtd")
    with pytest.raises(LabError, match="No end within"):
        clean_lab.virsh(TWO, "list", timeout=1)
    clean_lab.thaw(TWO, "libvirtd")
    assert clean_lab.running(TWO) == []


def test_killed_daemons_are_gone_until_started(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", TWO, booted=True)
    clean_lab.kill(TWO, "libvirtd")
    with pytest.raises(LabError, match="Failed to connect"):
        clean_lab.virsh(TWO, "list")
    clean_lab.kill(TWO, "sshd")
    assert "refused" in ssh(clean_lab, TWO, "true").stderr
    clean_lab.wait_counting("web")
    clean_lab.start_daemon(TWO, "libvirtd")
    clean_lab.start_daemon(TWO, "sshd")
    assert clean_lab.running(TWO) == ["web"]
    assert out(clean_lab, TWO, "hostname") == TWO


def test_power_off_kills_all_and_power_on_boots(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", TWO, booted=True)
    boot_id = out(clean_lab, TWO, "cat /proc/sys/kernel/random/boot_id")
    out(clean_lab, TWO, "touch /root/kept /tmp/lost /run/lost")
    crontab = clean_lab.disk(TWO) / "var/spool/cron/crontabs/root"
    crontab.write_text("# m h\n@reboot echo $PATH $PWD > /root/booted\n0 0 * * * touch /root/wrong\n")
    clean_lab.power_off(TWO)
    clean_lab.power_off(TWO)
    assert law.emulators(clean_lab) == []
    assert not clean_lab.is_on(TWO)
    assert ssh(clean_lab, TWO, "true", timeout=1).returncode == 255
    with pytest.raises(LabError, match="switched off"):
        clean_lab.virsh(TWO, "list")
    clean_lab.power_on(TWO)
    clean_lab.power_on(TWO)
    wait((clean_lab.disk(TWO) / "root/booted").exists, "the job of the boot")
    assert out(clean_lab, TWO, "cat /proc/sys/kernel/random/boot_id") != boot_id
    assert float(out(clean_lab, TWO, "cat /proc/uptime").split()[0]) < 60
    assert out(clean_lab, TWO, "ls /tmp /run/lost 2>/dev/null; ls /root") in (
        "/tmp:\nbooted\nkept",
        "booted\nkept",
    )
    wait(lambda: out(clean_lab, TWO, "cat /root/booted") == "/usr/bin:/bin /root", "its words")
    assert clean_lab.running(TWO) == []
    assert clean_lab.defined(TWO) == ["web"]
    assert Path(clean_lab.image("web")).exists()
    out(clean_lab, TWO, "rm /root/booted /root/kept")
    crontab.unlink()


def test_the_store_outlives_all_hosts(clean_lab: Lab) -> None:
    out(clean_lab, ONE, "echo still > /vmstorage/here")
    for host in clean_lab.hosts:
        clean_lab.power_off(host)
    clean_lab.mend_all()
    assert out(clean_lab, TWO, "cat /vmstorage/here") == "still"


# faults: store and starts


def test_a_full_store_refuses_writes_but_guests_count_on(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", ONE, booted=True)
    clean_lab.fill_store()
    assert "No space left" in ssh(clean_lab, ONE, "echo x > /vmstorage/x").stderr
    clean_lab.wait_counting("web")
    clean_lab.unfill_store()
    out(clean_lab, ONE, "echo x > /vmstorage/x")


def test_the_store_can_be_taken_off_one_host(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", ONE, booted=True)
    clean_lab.unmount_store(ONE)
    clean_lab.unmount_store(ONE)
    assert out(clean_lab, ONE, "mountpoint -q /vmstorage || ls -A /vmstorage") == ""
    out(clean_lab, TWO, "mountpoint -q /vmstorage")
    clean_lab.wait_counting("web")
    clean_lab.mount_store(ONE)
    clean_lab.mount_store(ONE)
    assert out(clean_lab, ONE, "grep -c ' /vmstorage ' /proc/mounts; ls /vmstorage/images") == "1\nweb.img"


def test_the_store_can_become_read_only_on_one_host(clean_lab: Lab) -> None:
    clean_lab.add_vm("web", ONE, booted=True)
    clean_lab.read_only_store(ONE)
    assert "Read-only file system" in ssh(clean_lab, ONE, "touch /vmstorage/x").stderr
    out(clean_lab, TWO, "touch /vmstorage/x")
    clean_lab.mount_store(ONE)
    out(clean_lab, ONE, "touch /vmstorage/y")


def test_starts_can_be_made_to_fail(clean_lab: Lab) -> None:
    uuid = clean_lab.add_vm("web", ONE, start=False)
    clean_lab.fail_next_start(ONE, times=2)
    for _ in range(2):
        with pytest.raises(LabError, match="on purpose"):
            clean_lab.virsh(ONE, "start", "web")
    clean_lab.virsh(ONE, "start", "web")
    assert [start.outcome for start in law.starts(clean_lab) if start.uuid == uuid] == [
        "refused",
        "refused",
        "run",
    ]


def test_starts_can_be_held_until_they_are_let_go(clean_lab: Lab) -> None:
    uuid = clean_lab.add_vm("web", ONE, start=False)
    clean_lab.hold_starts(ONE)
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(clean_lab.virsh, ONE, "start", "web")
        wait(lambda: any(start.uuid == uuid for start in law.starts(clean_lab)), "the start")
        assert law.emulators(clean_lab) == []
        assert not start.done()
        clean_lab.mend_starts(ONE)
        start.result(60)
    assert clean_lab.running(ONE) == ["web"]


def test_guests_can_be_made_to_die_after_their_start(clean_lab: Lab) -> None:
    clean_lab.die_after_start(ONE, 3)
    clean_lab.add_vm("web", ONE)
    assert clean_lab.running(ONE) == ["web"]
    wait(lambda: clean_lab.running(ONE) == [], "web to die")
    assert "crashed" in clean_lab.virsh(ONE, "domstate", "web", "--reason")
    clean_lab.mend_starts(ONE)
    clean_lab.virsh(ONE, "start", "web")
    clean_lab.wait_counting("web")
