"""How an operation on single VMs was planned and how it ended, VM by VM."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tasks.cluster.model import Vm

#: The results that are a good end: done and verified, or nothing was to do.
GOOD = ("done", "already")


@dataclass(frozen=True, slots=True)
class VmResult:
    """How it ended for one VM, as observed.

    `result` is one of: done, already (it was so before), left (not touched), failed, unknown.
    """

    vm: Vm
    #: where it was acted on, or where it is; empty when neither is known
    host: str
    result: str
    detail: str = ""
    warnings: tuple[str, ...] = ()
    #: seconds that it took
    seconds: float | None = None


def exit_code(results: Iterable[VmResult], *, interrupted: bool = False) -> int:
    """3 if anything is unknown, 130 if interrupted, 0 if all is good, 2 if nothing was touched, else 1."""
    seen = {r.result for r in results}
    if "unknown" in seen:
        return 3
    if interrupted:
        return 130
    if seen <= set(GOOD):
        return 0
    return 2 if seen <= {*GOOD, "left"} and "done" not in seen else 1
