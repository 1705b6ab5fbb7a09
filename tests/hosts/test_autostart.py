"""How VMs come back after a reboot: cron's entry and its script, and nothing else."""

from __future__ import annotations

import re

from testinfra.host import Host

from tests.hosts.demand import demand, demand_file, said
from tests.hosts.wanted import Wanted

SCRIPT = "/usr/local/bin/restart_running_vms"
ROTATION = "/etc/logrotate.d/restart_running_vms"


def test_crontab_runs_the_script_once_after_a_boot(host: Host, wanted: Wanted) -> None:
    lines = said(host, "crontab -u root -l").splitlines()
    active = [line for line in lines if re.match(rf"\s*@reboot\s.*{re.escape(SCRIPT)}(\s|$)", line)]
    demand(wanted, len(active) == 1, f"root's crontab has {len(active)} lines @reboot {SCRIPT}, not one")


def test_script_is_there_and_good(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, SCRIPT, "755")
    demand(wanted, text.startswith("#!/bin/sh\n"), f"{SCRIPT} is no script of sh")
    demand(wanted, "Installed by `fab host.autostart`" in text, f"{SCRIPT} is not vmfab's")
    mount = wanted.vm_store.mount
    demand(wanted, re.search(rf"^mount={mount}$", text, re.MULTILINE), f"{SCRIPT} does not wait for {mount}")
    done = host.run("sh -n %s", SCRIPT)
    demand(wanted, done.rc == 0, f"sh does not understand {SCRIPT}: {done.stderr.strip()}")


def test_logrotate_takes_the_scripts_log(host: Host, wanted: Wanted) -> None:
    text = demand_file(wanted, host, ROTATION, "644")
    log = f"{wanted.vm_store.mount}/restart_running_vms.log"
    demand(wanted, log in text, f"{ROTATION} does not name {log}")
    done = host.run("/usr/sbin/logrotate --debug %s", ROTATION)
    demand(wanted, done.rc == 0 and "error:" not in done.stderr, f"logrotate does not understand {ROTATION}")


def test_libvirt_starts_no_vm_by_itself(host: Host, wanted: Wanted) -> None:
    asked = host.run("LC_ALL=C virsh -c qemu:///system list --all --autostart --name")
    demand(wanted, asked.rc == 0, f"libvirt does not tell which VMs it would start: {asked.stderr.strip()}")
    names = asked.stdout.split("\n")
    marked = ", ".join(filter(None, names))
    demand(wanted, not marked, f"libvirt would start at boot, without asking other hosts: {marked}")


def test_libvirt_guests_starts_no_vm(host: Host, wanted: Wanted) -> None:
    # Where nothing is set, its script's own default counts: upstream's starts VMs, Debian's does not.
    script = "for f in /usr/lib/libvirt/libvirt-guests.sh /usr/libexec/libvirt-guests.sh; do "
    script += '[ ! -r $f ] || eval "$(grep ^ON_BOOT= $f)"; done; '
    script += (
        "for f in /etc/default/libvirt-guests /etc/sysconfig/libvirt-guests; do [ ! -r $f ] || . $f; done; "
    )
    on_boot = said(host, "sh -c %s", f"{script} echo ${{ON_BOOT-unset}}")
    enabled = host.run("systemctl is-enabled libvirt-guests.service").stdout.strip()
    demand(
        wanted,
        on_boot == "ignore" or enabled not in ("enabled", "enabled-runtime"),
        f"libvirt-guests would start VMs at boot without asking other hosts: ON_BOOT is {on_boot}",
    )
