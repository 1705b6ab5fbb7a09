"""Practice hosts that are full machines, with systemd, netplan, iSCSI, OCFS2 and reboots of their own."""

from tasks.lab.machines.machines import Machines, here

__all__ = ["Machines", "here"]
