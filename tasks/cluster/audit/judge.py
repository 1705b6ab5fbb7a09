"""An audit from its first question to its last finding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.cluster.asking.session import Session
from tasks.cluster.audit import boot, definitions, hosts, images, law, operations, owners
from tasks.cluster.audit.finding import Finding, in_order
from tasks.cluster.audit.look import look
from tasks.cluster.audit.seen import Seen
from tasks.cluster.clock import Clock

#: Seconds between two looks: what a move or a start changes in the middle of one is gone by the next.
PAUSE = 2.0
#: Kinds that no move, start or end of a VM brings about for a moment.
_STEADY = frozenset(
    {
        *("silent", "libvirt", "store", "other-store", "store-nameless", "not-judged", "clock"),
        *("guard-missing", "guard-outdated", "guard-foreign", "autostart", "unused-image"),
        *("cordon-old", "cordon-unknown", "evacuated", "journal-unclear", "two-uuids"),
    }
)


@dataclass(frozen=True, slots=True)
class Report:
    """What was found, gravest first. `notes` tell what looks odd and is as it should be."""

    seen: Seen
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything could be looked at."""
        return all(finding.severity != "unknown" for finding in self.findings)

    @property
    def code(self) -> int:
        """0 when nothing was found, 1 when something was, 3 when something could not be looked at."""
        if not self.complete:
            return 3
        return 1 if self.findings else 0


def audit(session: Session, clock: Clock) -> Report:
    """Look at everything, and once more at what may have been caught in the middle of a change."""
    seen = look(session, clock)
    found = findings(seen)
    passing = [finding for finding in found if finding.kind not in _STEADY]
    if passing:
        clock.sleep(PAUSE)
        before = {finding.subject for finding in found}
        seen = look(session, clock, survey=seen.survey, vms=_uuids(seen, passing))
        found = [
            f for f in findings(seen) if f.kind in _STEADY or f.severity == "breach" or f.subject in before
        ]
        found = [f for f in found if not _at_work(seen, f)]
    notes = (*operations.notes(seen), *owners.notes(seen))
    return Report(seen, in_order(found), notes)


def _uuids(seen: Seen, found: Iterable[Finding]) -> frozenset[str]:
    names = {name for finding in found for name in finding.vms}
    return frozenset(d.vm.uuid for d in seen.snapshot.domains() if d.vm.name in names)


def _at_work(seen: Seen, finding: Finding) -> bool:
    """Whether somebody is working on all VMs of a finding right now: it may be gone when that is done."""
    if finding.severity == "breach" or finding.kind in _STEADY or not finding.vms:
        return False
    held = seen.held or {}
    busy = {d.vm.name for d in seen.snapshot.domains() if operations.lock_of_vm(d.vm.uuid) in held}
    return busy >= set(finding.vms)


def findings(seen: Seen) -> list[Finding]:
    """Everything that is not as it should be, by subject."""
    return [
        *law.findings(seen),
        *owners.findings(seen),
        *hosts.findings(seen),
        *boot.findings(seen),
        *definitions.findings(seen),
        *operations.findings(seen),
        *images.findings(seen),
    ]
