"""The guard as a step of a host's set-up: in place, and each VM that runs there owned by the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostError, HostSilent, Refused
from tasks.cluster.model import Silent
from tasks.cluster.setup import adoption, guard
from tasks.cluster.setup.adoption import Adoption
from tasks.cluster.setup.steps import AlreadySo, Change, Finding, Lacking, Step


def guard_step(session: Session, host: str) -> Step:
    """What `host.guard` sets up on a host, with the owner files of the VMs that run there."""
    installed = guard.step(session.inventory, host)
    return Step(installed.name, (*installed.wishes, RunningVmsOwned(session)))


@dataclass(frozen=True, slots=True)
class RunningVmsOwned:
    """Every VM that runs on the host has owner files that name it, so that no other host starts it."""

    session: Session

    def look(self, ops: HostOps) -> Finding:
        mine = self._adoptions(ops)
        for one in mine:
            if one.result == "conflict":
                name = one.running.vm.name
                raise Refused(
                    f"{name} runs on {ops.host} and cannot be noted as owned by it: {one.why}.",
                    f"fab audit tells more. fab -H {ops.host} host.guard notes the other VMs.",
                )
        wanted = [one for one in mine if one.result == "adopt"]
        if not wanted:
            return AlreadySo(
                "owner files", f"each of {len(mine)} running VMs has them" if mine else "no VM runs"
            )
        names = ", ".join(one.running.vm.name for one in wanted)

        def claim(ops: HostOps) -> str:
            # Looked at again: VMs may have come and gone since the plan.
            self._claim(self._adoptions(ops))
            return ""

        return Change("owner files", f"written for the running VMs {names}", claim)

    def _adoptions(self, ops: HostOps) -> tuple[Adoption, ...]:
        snapshot = self.session.observe(plan=True)
        seen = snapshot.hosts[ops.host]
        if isinstance(seen, Silent):
            raise HostSilent(seen.host, seen.reason, seen.hint, alive=seen.alive)
        if seen.libvirt_problem:
            raise HostError(ops.host, "libvirt-silent", seen.libvirt_problem)
        if seen.store.problem:
            raise Lacking(ops.host, f"cannot use the store: {seen.store.problem}", by="ocfs2")
        return adoption.plan(snapshot, adoption.look(self.session, snapshot), [ops.host])

    def _claim(self, adoptions: Sequence[Adoption]) -> None:
        for one in adoptions:
            if one.result == "adopt":
                adoption.carry_out(self.session, one)
