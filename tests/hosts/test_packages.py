"""The programs and kernel modules that a host needs to run VMs from the store."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from tests.hosts.demand import demand, demand_service, said
from tests.hosts.wanted import Wanted

#: Program and the work that it is there for.
PROGRAMS = {
    "qemu-system-x86_64": "runs the VMs",
    "virsh": "is what libvirt is asked with",
    "iscsiadm": "makes the session to the store",
    "mount.ocfs2": "mounts the store",
    "o2cb": "joins OCFS2's cluster",
    "netplan": "makes the bridge",
    "crontab": "brings VMs back after a reboot",
    "logrotate": "keeps the logs on the store short",
    "flock": "locks VMs on the store",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program_is_there(host: Host, wanted: Wanted, program: str) -> None:
    found = said(host, "sh -c %s", f"PATH=$PATH:/usr/sbin:/sbin; command -v {program}")
    demand(wanted, found, f"there is no {program}, which {PROGRAMS[program]}")


@pytest.mark.parametrize("module", ["ocfs2", "ocfs2_stack_o2cb", "iscsi_tcp", "bridge"])
def test_kernel_module_is_there(host: Host, wanted: Wanted, module: str) -> None:
    found = said(host, "/sbin/modprobe --dry-run --show-depends %s", module)
    demand(wanted, found, f"the running kernel has no module {module}")


def test_libvirt_answers(host: Host, wanted: Wanted) -> None:
    asked = host.run("LC_ALL=C virsh -c qemu:///system version --daemon")
    demand(
        wanted, "Running against daemon" in asked.stdout, f"libvirt does not answer: {asked.stderr.strip()}"
    )


def test_libvirt_is_there_after_a_reboot(host: Host, wanted: Wanted) -> None:
    units = ("libvirtd.service", "libvirtd.socket", "virtqemud.service", "virtqemud.socket")
    on = [unit for unit in units if said(host, "systemctl is-enabled %s", unit) == "enabled"]
    demand(wanted, on, f"none of {', '.join(units)} is enabled: libvirt would not run after a reboot")


def test_cron_runs(host: Host, wanted: Wanted) -> None:
    demand_service(wanted, host, "cron.service")
