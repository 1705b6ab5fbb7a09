"""evacuate with real parts: hosts without power, cut cables, libvirt, the guard, guests that count."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest

from tasks.lab import evidence
from tasks.lab.lab import Lab
from tasks.lab.namespaces import until
from tasks.lab.problem import LabError
from tests.lab.fab import FOUR, ONE, PATIENCE, THREE, TWO, Fab

ALL = ",".join((ONE, TWO, THREE, FOUR))


@pytest.fixture
def guarded(fab: Fab) -> Fab:
    """An operator whose hosts have the guard, and their locks."""
    done = fab("-H", ALL, "host.guard", "--yes")
    assert done.code == 0, done.said
    for host in (ONE, TWO, THREE, FOUR):
        until(lambda host=host: not lock_is_free(fab.lab, host), PATIENCE, f"the lock of {host}")  # type: ignore[misc]
    return fab


def lock_is_free(lab: Lab, host: str) -> bool:
    path = lab.store / ".vmfab/hosts" / host
    return not path.exists() or subprocess.run(["flock", "-n", path, "true"]).returncode == 0


def owners(lab: Lab) -> dict[str, str]:
    """The owner of each VM that has one."""
    found = {}
    for path in (lab.store / ".vmfab/owners").glob("*.json"):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found[record["vm"]] = record["host"]
    return found


def log(lab: Lab) -> list[str]:
    """The words of the restart script's log, without time and host."""
    file = lab.store / "restart_running_vms.log"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [re.sub(r"^\S+ \S+ \S+ \S+ ", "", line) for line in lines]


def test_fault_13_a_dead_host_is_evacuated_and_its_reboot_starts_none(guarded: Fab) -> None:
    lab = guarded.lab
    assert guarded("-H", THREE, "host.autostart", "--yes").code == 0
    guarded.add(THREE, "web", "db")
    before = evidence.standing(lab)
    assert guarded.running_vms(THREE) == ["web", "db"]
    lab.power_off(THREE)
    preview = guarded("-H", THREE, "evacuate", "--dry-run")
    assert preview.code == 0, preview.said
    assert "none for 12 s" in preview.out
    assert guarded.where() == {}
    unsure = guarded("-H", THREE, "evacuate")
    assert (unsure.code, unsure.reason()[1]) == (2, f"Add --confirm {THREE}.")
    done = guarded("-H", THREE, "evacuate", "--to", f"{ONE},{TWO}", "--confirm", THREE)
    assert done.code == 0, done.said
    guarded.counting("web", "db")
    places = {name: hosts[0] for name, hosts in guarded.where().items()}
    assert set(places) == {"web", "db"}
    assert set(places.values()) == {ONE, TWO}
    assert owners(lab) == places
    assert guarded.cordons() == [THREE]
    lab.power_on(THREE)
    until(lambda: any(line.startswith("done:") for line in log(lab)), PATIENCE, "the restart script", 0.2)
    assert log(lab)[-1] == "done: 0 started, 0 ran already, 0 refused, 0 failed, 2 left off, 0 unknown"
    for name, host in places.items():
        with pytest.raises(LabError, match=f"is owned by {host}"):
            lab.virsh(THREE, "start", name)
    told = guarded("status").out
    assert "vmhost3 was evacuated by" in told
    assert "is back: its VMs were started elsewhere, it starts none of them" in told
    audited = {f["kind"]: f for f in guarded("audit", "--json").document["findings"] if THREE in f["hosts"]}
    assert sorted(audited["evacuated"]["vms"]) == ["db", "web"]
    assert "running-vms" not in audited
    back = guarded("-H", THREE, "undrain", "--stay", "--yes")
    assert back.code == 0, back.said
    assert guarded.running_vms(THREE) == []
    assert {name: hosts[0] for name, hosts in guarded.where().items()} == places
    assert evidence.doubts(before, evidence.standing(lab), {"web": 1, "db": 1}) == []


def test_fault_13_killed_half_way_and_typed_again_elsewhere(guarded: Fab) -> None:
    lab = guarded.lab
    guarded.add(THREE, "web", "db")
    before = evidence.standing(lab)
    lab.power_off(THREE)
    words = ("-H", THREE, "evacuate", "--parallel", "1", "--confirm", THREE)
    first = guarded.begin(*words)
    first.await_words("db: proving that it is off everywhere")
    first.signal(signal.SIGKILL)
    first.done()
    # Its agents end by themselves, and with them its locks.
    until(lambda: lock_is_free(lab, THREE), PATIENCE, "the end of the first one's agents")
    done = guarded.other_laptop()(*words)
    assert done.code == 0, done.said
    guarded.counting("web", "db")
    assert all(len(hosts) == 1 and hosts != (THREE,) for hosts in guarded.where().values())
    assert evidence.doubts(before, evidence.standing(lab), {"web": 1, "db": 1}) == []
    assert len(guarded.starts("web")) == len(guarded.starts("db")) == 1


def test_fault_14_a_host_that_is_only_cut_off_is_not_evacuated(guarded: Fab) -> None:
    lab = guarded.lab
    guarded.add(THREE, "web")
    lab.cut_network(THREE)
    before = guarded.state()
    held = guarded("-H", THREE, "evacuate", "--confirm", THREE)
    assert held.code == 2
    assert "Missing: its lock is free." in held.out
    assert "cut its power" in held.out
    lab.run_on(THREE, ["systemctl", "stop", "vmfab-liveness.service"])
    stopped = guarded("-H", THREE, "evacuate", "--confirm", THREE)
    assert stopped.code == 2
    assert "somebody stopped the guard's service" in stopped.out
    assert "(1 VM ran)" in stopped.out
    after = guarded.state()
    for state in (before, after):
        state["kept"] = {p: t for p, t in state["kept"].items() if not p.startswith("hosts/")}
    assert before == after
    guarded.counting("web")


def test_fault_15_all_hosts_lose_their_power_at_once_and_come_back_together(guarded: Fab) -> None:
    lab, homes = guarded.lab, {"web": ONE, "db": TWO, "mail": THREE, "wiki": FOUR}
    assert guarded("-H", ALL, "host.autostart", "--yes").code == 0
    for name, host in homes.items():
        guarded.add(host, name)
        # Wherever else it may be wanted, by libvirt itself or by somebody: only its owner starts it.
        other = next(one for one in homes.values() if one != host)
        lab.define_vm(other, lab.virsh(host, "dumpxml", "--inactive", name))
    before, own = evidence.standing(lab), owners(lab)
    assert own == homes
    for host in homes.values():
        lab.power_off(host)
    for host in homes.values():
        lab.power_on(host, wait=False)
    until(lambda: sum(line.startswith("done:") for line in log(lab)) == 4, 180, "all four scripts", 0.2)
    guarded.counting(*homes)
    assert guarded.where() == {name: (host,) for name, host in homes.items()}
    assert owners(lab) == homes
    assert evidence.doubts(before, evidence.standing(lab), dict.fromkeys(homes, 1)) == []
    for host in homes.values():
        until(lambda host=host: not lock_is_free(lab, host), 20, f"the lock of {host}")  # type: ignore[misc]
    assert guarded("audit").code == 0


def test_fault_15_and_16_all_come_back_where_they_were_and_nothing_on_the_wrong_host(guarded: Fab) -> None:
    """Power comes back everywhere; on one host libvirt's autostart and cron want another one's VM, too."""
    lab = guarded.lab
    assert guarded("-H", f"{ONE},{TWO}", "host.autostart", "--yes").code == 0
    guarded.add(ONE, "web", "mail")
    guarded.add(TWO, "db")
    for name in ("web", "mail"):
        lab.define_vm(TWO, lab.virsh(ONE, "dumpxml", "--inactive", name))
    before = evidence.standing(lab)
    for host in (TWO, ONE):
        lab.power_off(host)
    (lab.disk(TWO) / "root/running_vms").write_text("web\ndb\n")
    folder = lab.disk(TWO) / "etc/libvirt/qemu"
    (folder / "autostart").mkdir(exist_ok=True)
    (folder / "autostart/mail.xml").symlink_to("/etc/libvirt/qemu/mail.xml")
    for host in (TWO, ONE):
        lab.power_on(host)
    until(lambda: sum(line.startswith("done:") for line in log(lab)) == 2, PATIENCE, "both scripts", 0.2)
    guarded.counting("web", "mail", "db")
    assert guarded.where() == {"web": (ONE,), "mail": (ONE,), "db": (TWO,)}
    assert [line for line in log(lab) if line.startswith("web: refused: ") and "is owned by vmhost1" in line]
    refusals = (lab.store / ".vmfab/guard.log").read_text(encoding="utf-8")
    assert re.search(rf"{TWO} refused mail .* is owned by {ONE}", refusals)
    assert evidence.doubts(before, evidence.standing(lab), {"web": 1, "mail": 1, "db": 1}) == []
