"""The steps of a host's set-up in their order: what host.setup goes through and host.check looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import HostError
from tasks.cluster.setup import afterboot, bridge, iscsi, ocfs2, ownership, packages, serial
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.steps import Lacking, Plan, Step


@dataclass(frozen=True, slots=True)
class Stage:
    """One step by its name, which is that of its task: `host.NAME`.

    `step` makes it from the inventory alone and asks no host, so that what is wrong in hosts.ini is refused
    before anything is touched; the session is for wishes that concern other hosts or log in anew.
    """

    name: str
    step: Callable[[Session, str], Step]


#: A new step is a line here.
STAGES: tuple[Stage, ...] = (
    Stage("packages", lambda session, host: packages.step(host, session.clock)),
    Stage("bridge", bridge.step),
    Stage("iscsi", iscsi.step),
    Stage(ocfs2.NAME, ocfs2.step),
    Stage("guard", ownership.guard_step),
    Stage("autostart", afterboot.step),
    Stage("serial", lambda session, host: serial.step(session.inventory, host)),
)


@dataclass(frozen=True, slots=True)
class Later:
    """A step that cannot be planned yet: an earlier one brings what it lacks."""

    step: Step
    after: str
    lacks: str


def steps(session: Session, host: str) -> tuple[Step, ...]:
    """All steps for a host. Raises Refused for settings that make no sense; nothing was asked then."""
    return tuple(stage.step(session, host) for stage in STAGES)


def plan(ops: HostOps, wanted: Sequence[Step], brought: Sequence[str] = ()) -> tuple[Plan | Later, ...]:
    """What each step would do on a host; a step that lacks what an earlier one will bring is Later.

    `brought` names what comes between the steps (see `Lacking.by`). Raises HostSilent, Refused, HostError:
    a step that fails although all before it are done.
    """
    found: list[Plan | Later] = []
    coming = [*brought]
    for step in wanted:
        try:
            planned = hostsetup.plan(ops, step)
        except Lacking as error:
            if error.by not in coming:
                raise
            found.append(Later(step, error.by, f"{ops.host} {error.lacks}"))
            coming.append(step.name)
        except HostError as error:
            if len(coming) == len(brought):
                raise
            found.append(Later(step, coming[-1], error.message))
            coming.append(step.name)
        else:
            found.append(planned)
            if planned.changes:
                coming.append(step.name)
    return tuple(found)
