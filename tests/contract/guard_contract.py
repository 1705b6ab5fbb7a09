"""What libvirt's hook does on a host, real or simulated, as those see it who start and stop VMs there.

`tests/contract` runs this on simulated hosts, `tests/lab` on the rendered hook in namespaces of its own.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import pytest

ONE, TWO = "vmhost1", "vmhost2"


class GuardBench(Protocol):
    """Hosts with the guard, one store, and a VM for each image that is named."""

    def start(self, host: str, vm: str, image: str) -> str:
        """Start a VM that writes this image; what the hook said against it, "" when it started."""
        ...

    def stop(self, host: str, vm: str, image: str) -> None: ...

    def power_cycle(self, host: str) -> None:
        """Cut the power and boot again, without anything that starts VMs."""
        ...

    def link(self, image: str, name: str) -> None:
        """Make a symbolic link on the store."""
        ...

    def owner(self, image: str) -> str:
        """The host in the owner file of an image; "" without one."""
        ...

    def listed(self, host: str) -> list[str]:
        """The names in running_vms."""
        ...

    def refusals(self) -> list[str]:
        """The lines of guard.log."""
        ...

    def unmounted(self, host: str) -> AbstractContextManager[None]: ...

    def read_only(self, host: str) -> AbstractContextManager[None]: ...

    def full(self) -> AbstractContextManager[None]: ...

    def lock_held(self) -> AbstractContextManager[None]:
        """Somebody holds the lock of the owner files and does not give it back."""
        ...


class GuardContract:
    """Inherited by the tests of each kind of bench; the fixture `guards` is theirs."""

    def test_a_start_claims_and_an_end_gives_back(self, guards: GuardBench) -> None:
        assert guards.start(ONE, "web", "web.img") == ""
        assert (guards.owner("web.img"), guards.listed(ONE)) == (ONE, ["web"])
        guards.stop(ONE, "web", "web.img")
        assert (guards.owner("web.img"), guards.listed(ONE)) == ("", [])
        assert guards.start(TWO, "web", "web.img") == ""
        assert guards.owner("web.img") == TWO

    def test_a_second_start_is_refused_with_the_owner(self, guards: GuardBench) -> None:
        assert guards.start(ONE, "web", "web.img") == ""
        said = guards.start(TWO, "web", "web.img")
        assert "web is not started" in said
        assert f"is owned by {ONE} (VM web" in said
        assert (guards.owner("web.img"), guards.listed(ONE), guards.listed(TWO)) == (ONE, ["web"], [])
        assert said.partition("is not started: ")[2].strip() in guards.refusals()[-1]

    def test_who_shares_the_image_is_refused_by_whatever_path(self, guards: GuardBench) -> None:
        guards.link("web.img", "other.img")
        assert guards.start(ONE, "web", "web.img") == ""
        assert f"is owned by {ONE} (VM web" in guards.start(ONE, "twin", "other.img")
        assert f"is owned by {ONE} (VM web" in guards.start(TWO, "twin", "other.img")

    def test_after_a_power_cut_only_the_owner_starts_it(self, guards: GuardBench) -> None:
        assert guards.start(ONE, "web", "web.img") == ""
        guards.power_cycle(ONE)
        assert (guards.owner("web.img"), guards.listed(ONE)) == (ONE, ["web"])
        assert f"is owned by {ONE}" in guards.start(TWO, "web", "web.img")
        assert guards.start(ONE, "web", "web.img") == ""
        guards.stop(ONE, "web", "web.img")
        assert guards.owner("web.img") == ""

    @pytest.mark.parametrize("how", ["unmounted", "read-only", "full", "lock held"])
    def test_what_cannot_be_judged_is_refused(self, guards: GuardBench, how: str) -> None:
        # All images are there, and what the guard needs on the store.
        assert guards.start(ONE, "web", "web.img") == ""
        guards.stop(ONE, "web", "web.img")
        assert guards.start(TWO, "db", "db.img") == ""
        broken, words = {
            "unmounted": (guards.unmounted(ONE), "is not mounted"),
            "read-only": (guards.read_only(ONE), "is read-only"),
            "full": (guards.full(), "is full"),
            "lock held": (guards.lock_held(), "does not answer within"),
        }[how]
        with broken:
            assert words in guards.start(ONE, "web", "web.img")
        assert (guards.owner("web.img"), guards.owner("db.img"), guards.listed(ONE)) == ("", TWO, [])
        assert guards.start(ONE, "web", "web.img") == ""

    def test_a_full_store_takes_an_image_back(self, guards: GuardBench) -> None:
        assert guards.start(ONE, "web", "web.img") == ""
        with guards.full():
            guards.stop(ONE, "web", "web.img")
        assert guards.owner("web.img") == ""

    def test_what_a_broken_store_could_not_take_back_stays_with_its_host(self, guards: GuardBench) -> None:
        assert guards.start(ONE, "web", "web.img") == ""
        with guards.unmounted(ONE):
            guards.stop(ONE, "web", "web.img")
        assert guards.owner("web.img") == ONE
        assert f"is owned by {ONE}" in guards.start(TWO, "web", "web.img")
        assert guards.start(ONE, "web", "web.img") == ""
        guards.stop(ONE, "web", "web.img")
        assert guards.start(TWO, "web", "web.img") == ""
