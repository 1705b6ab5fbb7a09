"""Operations that have not ended: find them, and judge what is to become of each of their VMs.

What a journal announced says how far a command may have come; where the VM runs now is what was observed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

from tasks.cluster.model import Domain, HostFacts, Inventory, Move, OpenOperation, Snapshot, Vm, evidence_of
from tasks.cluster.store import journal
from tasks.cluster.store.journal import END, FOLDER, Announced, Record
from tasks.cluster.store.sharedstore import SharedStore


class Action(Enum):
    """What resume does with a VM; the values are for programs, `Case.words` is for people."""

    FINISH = "finish"
    CARRY_ON = "carry-on"
    START = "start"
    RETURN = "return"
    BACK = "back"
    ADOPT = "adopt"
    AS_IT_IS = "as-it-is"
    LEAVE_OFF = "leave-off"
    NOT_BEGUN = "not-begun"
    LOOK = "look"
    TWICE = "twice"

    @property
    def changes(self) -> bool:
        """Whether anything is done on a host."""
        return self in _CHANGES


_CHANGES = frozenset({Action.FINISH, Action.CARRY_ON, Action.START, Action.RETURN, Action.BACK, Action.ADOPT})


@dataclass(frozen=True, slots=True)
class Case:
    """One VM of an interrupted operation: how far its move had come, where it runs, what to do, and why."""

    move: Move
    #: the last step that was announced; None when the move never began
    step: Announced | None
    running_on: tuple[str, ...]
    action: Action
    words: str
    #: how it was stopped, if it was: "shutdown" or "destroyed"
    stopped_by: str = ""
    #: libvirt started it by itself on the source before the move
    autostart: bool = False


@dataclass(frozen=True)
class Interrupted:
    """An operation that nobody works on any more, and its journal's text as it was read."""

    record: Record
    text: str
    cases: tuple[Case, ...]

    @cached_property
    def resumable(self) -> bool:
        """An evacuation goes on with its own command: it needs the proof that the host is dead."""
        return self.record.kind != "evacuate"

    @property
    def changing(self) -> tuple[Case, ...]:
        return tuple(case for case in self.cases if case.action.changes)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything on the store that has not ended, oldest first."""

    interrupted: tuple[Interrupted, ...]
    under_way: tuple[OpenOperation, ...]
    #: what was wrong with journals that cannot be read
    damaged: tuple[str, ...]
    #: operations that have ended or never began, of which only a lock file or an empty journal is left
    leftovers: tuple[str, ...]


def find(
    store: SharedStore, snapshot: Snapshot, inventory: Inventory, *, now: float, timeout: float | None = None
) -> Found:
    """Read the journals that have not ended. Raises Failed when the store cannot be read.

    The snapshot must have been made for planning, and every host must have answered. `timeout` (seconds)
    takes the place of what each move was to wait for a shutdown.
    """
    texts = store.read_folder(FOLDER, unless=END)
    marked = {one.id: one for one in snapshot.operations()}
    held = {one.id for one in marked.values() if one.held}
    read: list[tuple[Record, str]] = []
    damaged: list[str] = []
    nothing: list[str] = []
    for name, text in sorted(texts.items()):
        key = name.removesuffix(".json")
        if key in held:
            continue
        if "\n" not in text:
            nothing.append(key)  # not even its plan was written
            continue
        try:
            read.append((journal.read(key, text), text))
        except ValueError as error:
            damaged.append(str(error))
    found = []
    newer: set[str] = set()
    judge = _Judge(snapshot, inventory, now, timeout)
    for record, text in reversed(read):
        found.append(Interrupted(record, text, judge.cases(record, newer)))
        newer |= set(record.announced)
    known = {name.removesuffix(".json") for name in texts}
    return Found(
        interrupted=tuple(reversed(found)),
        under_way=tuple(one for one in marked.values() if one.held),
        damaged=tuple(damaged),
        leftovers=(*nothing, *(key for key in marked if key not in held and key not in known)),
    )


def judge_again(case: Case, record: Record, snapshot: Snapshot, inventory: Inventory, now: float) -> Case:
    """The same VM as a fresh snapshot shows it."""
    judge = _Judge(snapshot, inventory, now, case.move.shutdown_timeout)
    (planned,) = (m for m in record.moves if m["uuid"] == case.move.vm.uuid)
    return judge.case(record, planned)


class _Judge:
    def __init__(self, snapshot: Snapshot, inventory: Inventory, now: float, timeout: float | None) -> None:
        self._snapshot = snapshot
        self._inventory = inventory
        self._now = now
        self._timeout = timeout

    def cases(self, record: Record, newer: Collection[str]) -> tuple[Case, ...]:
        """A case per move whose end is not known; `newer` are VMs that a later operation worked on, too."""
        return tuple(
            self.case(record, move, superseded=move["uuid"] in newer)
            for move in record.moves
            if record.open(move["uuid"])
        )

    def case(self, record: Record, planned: Mapping[str, Any], *, superseded: bool = False) -> Case:
        vm = Vm(planned["uuid"], planned["vm"])
        steps = record.announced.get(vm.uuid, ())
        running = self._snapshot.where_running(vm)
        hosts = self._traces(vm)
        move = self._move(vm, planned)
        action, words = self._action(move, steps, running, hosts, superseded)
        stops = [step for step in steps if step.step in _STOPS]
        return Case(
            move,
            steps[-1] if steps else None,
            hosts,
            action,
            words,
            stopped_by=("destroyed" if stops[-1].step == "destroy" else "shutdown") if stops else "",
            autostart=any(step.autostart for step in stops),
        )

    def _traces(self, vm: Vm) -> tuple[str, ...]:
        images = self._snapshot.images_of(vm)
        seen = [e.host for facts in self._snapshot.facts() for e in evidence_of(vm, images, facts)]
        return tuple(dict.fromkeys(seen))

    def _move(self, vm: Vm, planned: Mapping[str, Any]) -> Move:
        known = [d for d in self._snapshot.domains() if d.vm.uuid == vm.uuid]
        timeout = self._timeout or planned.get("shutdown_timeout") or self._inventory.timeout_of(vm.name)
        memory = max((d.memory_kib for d in known), default=0)
        return Move(vm, planned["source"], planned["target"], memory, float(timeout))

    def _action(
        self,
        move: Move,
        steps: Sequence[Announced],
        running: Sequence[Domain],
        hosts: tuple[str, ...],
        superseded: bool,
    ) -> tuple[Action, str]:
        if len(hosts) > 1:
            return Action.TWICE, "RUNS TWICE: is not touched"
        if not steps:
            return Action.NOT_BEGUN, "not begun: stays as it is"
        if superseded:
            return Action.AS_IT_IS, "a later command went on with it"
        if other := self._other_user(move.vm, running, hosts):
            return Action.LEAVE_OFF, f"stays off: VM {other.vm.name} runs on {other.host} with its image"
        if hosts and [d.host for d in running] != list(hosts):
            return Action.LOOK, f"something else than libvirt's VM holds it on {hosts[0]}: look there"
        last = steps[-1]
        if not hosts:
            return _off(move, last)
        if last.step == "define":
            return Action.AS_IT_IS, "was not stopped: stays as it is"
        if hosts == (move.target,):
            return Action.FINISH, "arrived: do the books"
        if hosts == (move.source,):
            if last.step in _STOPS and not self._restarted(running[0], last):
                return Action.CARRY_ON, f"shutdown was asked for: carry on to {move.target}"
            return Action.BACK, f"runs again on {move.source}: note it there"
        return Action.ADOPT, f"was started on {hosts[0]}: note it there"

    def _other_user(self, vm: Vm, running: Sequence[Domain], hosts: Sequence[str]) -> Domain | None:
        """Another VM that libvirt runs on the one host with a trace of this one, if that is all there is."""
        if running or len(hosts) != 1:
            return None
        images, facts = self._snapshot.images_of(vm), self._snapshot.hosts[hosts[0]]
        if not isinstance(facts, HostFacts) or len(evidence_of(vm, images, facts)) != 1:
            return None
        users = [d for d in facts.domains if d.running and d.vm.name != vm.name and d.images & images]
        return users[0] if users else None

    def _restarted(self, domain: Domain, last: Announced) -> bool:
        """Whether the VM began to run only after that step, by the laptop's clock."""
        facts = self._snapshot.hosts[domain.host]
        if domain.since is None or not isinstance(facts, HostFacts):
            return False
        return domain.since - (facts.at - self._now) > last.at


_STOPS = ("shutdown", "destroy")


def _off(move: Move, last: Announced) -> tuple[Action, str]:
    """What to do with a VM that every host calls off."""
    if last.step == "define":
        return Action.LEAVE_OFF, "was not stopped by this command: stays off"
    if last.step == "bookkeeping":
        return Action.LEAVE_OFF, "had arrived, and went off since: stays off"
    if last.step == "return":
        return Action.RETURN, f"start it again on {move.source}"
    return Action.START, f"start it on {move.target}"
