"""The guard: libvirt's hook that refuses a second start, and the service that shows that the host lives."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from testinfra.host import Host

from tasks.cluster.setup import guard
from tests.hosts.demand import demand, demand_file, demand_service, said
from tests.hosts.wanted import Wanted

HOOK = "/etc/libvirt/hooks/qemu"
PROGRAMS = ("/usr/local/sbin/vmfab-liveness", "/usr/local/sbin/vmfab-tend")
UNIT = "vmfab-liveness.service"
MARK = "# vmfab guard, written by fab host.guard"
#: Compiles a file with the host's own Python and writes nothing.
COMPILE = "import sys; compile(open(sys.argv[1], encoding='utf-8').read(), sys.argv[1], 'exec')"


@pytest.mark.parametrize("path", [HOOK, *PROGRAMS])
def test_program_is_vmfabs_and_its_python_is_good(host: Host, wanted: Wanted, path: str) -> None:
    text = demand_file(wanted, host, path, "755")
    first, second, *_ = [*text.splitlines(), "", ""]
    demand(wanted, second.startswith(MARK), f"{path} is not vmfab's")
    demand(wanted, first == "#!/usr/bin/python3 -IS", f"{path} begins with {first}, not with python3 -IS")
    done = host.run("/usr/bin/python3 -IS -c %s %s", COMPILE, path)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    demand(wanted, done.rc == 0, f"the Python of {path} is not understood there: {last}")


def test_hook_is_for_this_host_and_the_store_with_the_vms(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, HOOK, "755")
    found = dict(re.findall(r'^(HOST|MOUNT) = "(.*)"$', text, re.MULTILINE))
    for name, value in {"HOST": wanted.name, "MOUNT": wanted.vm_store.mount}.items():
        demand(wanted, found.get(name) == value, f"{HOOK} has {name} = {found.get(name)}, not {value}")


def test_hook_is_of_this_version_and_as_it_was_written(host: Host, wanted: Wanted) -> None:
    lines = demand_file(wanted, host, HOOK, "755").splitlines(keepends=True)
    version, digest = ([*lines[2][1:].split(), "", ""] if len(lines) > 2 else ["", ""])[:2]
    rest = "".join(lines[:2] + lines[3:])
    true = hashlib.sha256(rest.encode()).hexdigest()[:16]
    demand(wanted, digest == true, f"{HOOK} was changed by hand: its digest is {true}, not {digest}")
    # The one thing that only vmfab can tell.
    new = guard.version(wanted.name, wanted.vm_store.mount)
    demand(wanted, version == new, f"{HOOK} is of version {version}; host.guard would install {new}")


def test_libvirtd_has_been_restarted_for_the_hook(host: Host, wanted: Wanted) -> None:
    demand_file(wanted, host, HOOK, "755")
    late = host.run("test -e /run/vmfab/restart-libvirtd").rc == 0
    demand(wanted, not late, "libvirtd does not know the hook: it was not restarted since the hook is there")


def test_service_is_on_now_and_after_a_reboot(host: Host, wanted: Wanted) -> None:
    demand_service(wanted, host, UNIT)


def test_service_is_the_last_that_runs_out_of_memory(host: Host, wanted: Wanted) -> None:
    pid = said(host, "systemctl show --property=MainPID --value %s", UNIT)
    score = said(host, "cat %s", f"/proc/{pid}/oom_score_adj") if pid.strip("0") else ""
    demand(
        wanted,
        score == "-1000",
        f"{UNIT} may be ended when memory is short: oom_score_adj {score or 'unknown'}",
    )


def test_service_holds_the_hosts_lock_on_the_store(host: Host, wanted: Wanted) -> None:
    path = f"{wanted.vm_store.mount}/.vmfab/hosts/{wanted.name}"
    pid = said(host, "systemctl show --property=MainPID --value %s", UNIT)
    inode = said(host, "stat -c %%i %s", path)
    demand(wanted, inode, f"there is no {path}: the host has never shown that it lives")
    locks = said(host, "cat /proc/locks")
    # 1: FLOCK  ADVISORY  WRITE 812 08:10:65610 0 EOF
    held = re.search(rf"FLOCK +ADVISORY +WRITE +{pid} +\S+:{inode} ", locks)
    demand(wanted, held, f"{UNIT} does not hold its lock on {path}: evacuate could take the host for dead")
    record = json.loads(host.run("cat %s", path).stdout or "{}")
    boot = said(host, "cat /proc/sys/kernel/random/boot_id")
    demand(wanted, record.get("boot_id") == boot, f"{path} tells of another boot: {record.get('boot_id')}")
    demand(wanted, record.get("released") is None, f"{path} says that the lock was given back")


def test_service_beats(host: Host, wanted: Wanted) -> None:
    path = f"{wanted.vm_store.mount}/.vmfab/hosts/{wanted.name}.beat"
    text = host.run("cat %s", path).stdout
    demand(wanted, text, f"there is no {path}: the host gives no sign of life")
    age = float(said(host, "date +%s")) - float(json.loads(text)["at"])
    demand(
        wanted, age < 30, f"the last sign of life in {path} is {age:.0f} s old; there should be one every 5 s"
    )


def test_logrotate_takes_the_guards_log(host: Host, wanted: Wanted) -> None:
    path = "/etc/logrotate.d/vmfab-guard"
    text = demand_file(wanted, host, path, "644")
    log = f"{wanted.vm_store.mount}/.vmfab/guard.log"
    demand(wanted, log in text, f"{path} does not name {log}")
    done = host.run("/usr/sbin/logrotate --debug %s", path)
    demand(wanted, done.rc == 0 and "error:" not in done.stderr, f"logrotate does not understand {path}")
