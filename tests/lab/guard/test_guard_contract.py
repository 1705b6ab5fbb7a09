"""The rendered hook keeps the contract that the one on simulated hosts is held to."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.guard_contract import ONE, TWO, GuardContract
from tests.lab.guard.hooks import HookCluster, domain


class RealGuards:
    """See `tests.contract.guard_contract.GuardBench`."""

    def __init__(self, cluster: HookCluster) -> None:
        self._cluster = cluster
        self._hosts = {name: cluster.host(name, deadline=5.0) for name in (ONE, TWO)}

    def _xml(self, vm: str, image: str) -> str:
        if not (self._cluster.store / image).exists():
            self._cluster.image(image)
        return domain(str(self._cluster.mount / image), name=vm)

    def start(self, host: str, vm: str, image: str) -> str:
        return self._hosts[host].start(self._xml(vm, image))

    def stop(self, host: str, vm: str, image: str) -> None:
        self._hosts[host].stop(self._xml(vm, image))

    def power_cycle(self, host: str) -> None:
        self._hosts[host].boot()

    def link(self, image: str, name: str) -> None:
        (self._cluster.store / name).symlink_to(image)

    def owner(self, image: str) -> str:
        return self._cluster.owner(image)

    def listed(self, host: str) -> list[str]:
        return self._hosts[host].list

    def refusals(self) -> list[str]:
        return self._cluster.log

    @contextmanager
    def unmounted(self, host: str) -> Iterator[None]:
        mount = self._cluster.mount
        self._hosts[host].sh('mkdir -p /run/kept; mount --bind "$1" /run/kept; umount "$1"', mount)
        yield
        self._hosts[host].sh('mount --move /run/kept "$1"', mount)

    @contextmanager
    def read_only(self, host: str) -> Iterator[None]:
        self._hosts[host].sh('mount -o remount,bind,ro "$1"', self._cluster.mount)
        yield
        self._hosts[host].sh('mount -o remount,bind,rw "$1"', self._cluster.mount)

    @contextmanager
    def full(self) -> Iterator[None]:
        fill = self._cluster.store / "fill"
        space = os.statvfs(self._cluster.store)
        with fill.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, space.f_bavail * space.f_bsize)
        yield
        fill.unlink()

    @contextmanager
    def lock_held(self) -> Iterator[None]:
        lock = os.open(self._cluster.store / ".vmfab/locks/owners", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        os.close(lock)


@pytest.fixture
def guards(cluster: HookCluster) -> RealGuards:
    return RealGuards(cluster)


class TestRealGuard(GuardContract):
    """Every test of the contract."""
