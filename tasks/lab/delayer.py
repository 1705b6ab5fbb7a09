"""Delay everything on one cable of the lab's bridge, in both directions.

Run as a file in the anchor's network namespace: `python delayer.py PORT BRIDGE MILLISECONDS`. The cable is
taken off the bridge; a tap takes its place, and each frame waits its time between the two. netem would do the
same but is not in every kernel. Frames carry their offload header along, so nothing is split or
recomputed. Standard library only.
"""

from __future__ import annotations

import collections
import fcntl
import os
import select
import socket
import struct
import subprocess
import sys
import time

ETH_P_ALL, SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 3, 263, 15, 23
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 2, 0x1000, 0x4000
TUNSETOFFLOAD, ALL_OFFLOADS = 0x400454D0, 0x0F  # checksum, TCPv4, TCPv6, ECN


def open_cable(port: str) -> int:
    """Open the cable's end for whole frames."""
    cable = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    cable.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    cable.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    cable.bind((port, 0))
    return cable.detach()


def open_tap(name: str) -> int:
    """Make a tap interface that lives as long as this process."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tap, TUNSETOFFLOAD, ALL_OFFLOADS)
    return tap


def forward(one: int, two: int, delay: float) -> None:
    """Carry frames between both for ever, each `delay` seconds late."""
    other = {one: two, two: one}
    waiting: collections.deque[tuple[float, int, bytes]] = collections.deque()
    for fd in other:
        os.set_blocking(fd, False)
    while True:
        pause = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for fd in select.select([one, two], [], [], pause)[0]:
            try:
                waiting.append((time.monotonic() + delay, other[fd], os.read(fd, 80000)))
            except OSError:
                continue  # the interface is down for a moment
        while waiting and waiting[0][0] <= time.monotonic():
            _, fd, frame = waiting.popleft()
            try:
                os.write(fd, frame)
            except OSError:
                continue  # down or full: the frame is lost, as on a real wire


def main() -> None:
    """Put the delay in place and stay."""
    port, bridge, milliseconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    cable = open_cable(port)
    tap = open_tap(f"late-{port}")
    for words in (f"{port} nomaster", f"late-{port} master {bridge} up"):
        subprocess.run(["ip", "link", "set", *words.split()], check=True)
    forward(cable, tap, milliseconds / 1000)


if __name__ == "__main__":
    main()
