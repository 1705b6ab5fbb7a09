"""Why VMs are refused, as an operator sees it: what several have in common is said once."""

from __future__ import annotations

from collections.abc import Iterable

from tasks.cli.context import Operator
from tasks.cluster.model import Refusal


def show(op: Operator, refusals: Iterable[Refusal], verb: str) -> None:
    """Every reason, with the hosts that it is about and the flag that overrides it.

    VMs that are refused for exactly the same reasons are named together. `verb` completes "cannot be ...",
    as in "moved".
    """
    by_vm: dict[str, dict[Refusal, None]] = {}
    for refusal in refusals:
        by_vm.setdefault(refusal.vm, {})[refusal] = None
    alike: dict[tuple[str, ...], list[str]] = {}
    for vm, own in by_vm.items():
        alike.setdefault(tuple(_lines(own)), []).append(vm)
    for lines, vms in alike.items():
        op.warn(f"{', '.join(vms)} cannot be {verb}:")
        for line in lines:
            op.say(f"  {line}")


def _lines(refusals: Iterable[Refusal]) -> list[str]:
    """One line for each reason, naming all hosts that have it."""
    hosts: dict[tuple[str, str], list[str]] = {}
    for r in refusals:
        hosts.setdefault((r.reason, r.flag), []).append(r.host)
    lines = []
    for (reason, flag), on in hosts.items():
        where = ", ".join(filter(None, on))
        override = f" (override: {flag})" if flag else ""
        lines.append(f"{where + ': ' if where else ''}{reason}{override}")
    return lines
