"""Prove that a VM is off: every host of the inventory is asked, and every one has to answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.cluster.asking.session import Session
from tasks.cluster.clock import Clock
from tasks.cluster.errors import Unknown
from tasks.cluster.model import Evidence, RunningNow, Silent, Vm, evidence_of

#: Seconds within which all answers of a round have to come. When a host is slow, what the others said before
#: it is old by then: somebody may have started the VM there by hand in the meantime.
MOMENT = 2.0

#: A round that took longer than this is asked again, so many times, before one within MOMENT will do: what a
#: slow host holds up grows old, and somebody may type a start meanwhile.
QUICK = 0.5
QUICK_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Trace:
    """What all hosts say about one VM at one moment."""

    vm: Vm
    evidence: tuple[Evidence, ...]
    silent: tuple[Silent, ...]
    #: problem of the store on each host that answered; an empty text means that it is fine there
    stores: Mapping[str, str]

    @property
    def off(self) -> bool:
        """Proved: every host answered and none shows a trace. Anything less is not off."""
        return not self.evidence and not self.silent

    @property
    def running_on(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e.host for e in self.evidence))

    def words(self) -> str:
        """The evidence, for people."""
        parts = [f"{e.host}: {e.what}" for e in self.evidence]
        parts += [f"{s.host} does not answer ({s.reason})" for s in self.silent]
        return "; ".join(parts) or "every host answered, and none runs it"


def look(session: Session, vm: Vm, images: frozenset[str]) -> Trace:
    """Ask every host once, all at the same time."""
    return trace_of(vm, images, session.running_now())


def trace_of(vm: Vm, images: frozenset[str], seen: Mapping[str, RunningNow | Silent]) -> Trace:
    """Read the trace of one VM out of what all hosts answered."""
    evidence: list[Evidence] = []
    silent: list[Silent] = []
    stores: dict[str, str] = {}
    for name, answer in seen.items():
        if isinstance(answer, Silent):
            silent.append(answer)
        else:
            evidence += evidence_of(vm, images, answer)
            stores[name] = answer.store_problem
    return Trace(vm, tuple(evidence), tuple(silent), stores)


def look_patiently(session: Session, vm: Vm, images: frozenset[str], clock: Clock) -> Trace:
    """Ask until every host has answered in one short round, or the session's time to come back is over.

    Ends at once when the VM is seen running, because then nothing needs to be proved any more. Raises
    Unknown when all hosts answer but never within MOMENT.
    """
    end = clock.monotonic() + session.comeback
    rounds = 0
    while True:
        rounds += 1
        seen = session.running_round()
        trace = trace_of(vm, images, seen.answers)
        now = clock.monotonic()
        good_for = QUICK if rounds <= QUICK_ROUNDS else MOMENT
        if trace.evidence or (not trace.silent and now - seen.begun <= good_for):
            return trace
        if now >= end:
            if trace.silent:
                return trace
            raise Unknown(
                f"{vm.name} is not proved to be off: the hosts took {now - seen.begun:.1f} s to answer, "
                f"and the first answers are too old after {MOMENT:.0f} s.",
                "Nothing was started. Run 'fab status' when the hosts are less busy.",
            )
        if trace.silent:
            clock.sleep(1.0)


def require_off(trace: Trace) -> None:
    """Raise Unknown unless the trace proves that the VM is off everywhere."""
    if not trace.off:
        raise Unknown(
            f"{trace.vm.name} is not proved to be off: {trace.words()}.",
            "Nothing was started. Run 'fab status' when all hosts answer.",
        )
