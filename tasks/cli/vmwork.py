"""Carry out planned operations on single VMs, with live progress, and ask the cluster again at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tasks.cli.context import Operator
from tasks.cli.progress import progress
from tasks.cluster.asking.session import Session
from tasks.cluster.events import Notify
from tasks.cluster.moving.batch import Batch
from tasks.cluster.moving.gates import StartGates
from tasks.cluster.vm import start as vmstart
from tasks.cluster.vm import stop as vmstop
from tasks.cluster.vm.result import VmResult
from tasks.cluster.vm.startplan import Start
from tasks.cluster.vm.stopplan import Stop, Verb

P = TypeVar("P", Start, Stop)

_INTERRUPTED = "Interrupted: what is under way is finished, no more is begun. Ctrl-C again stops at once."


def start_all(
    op: Operator, session: Session, starts: Sequence[Start], *, parallel: int, overrides: Sequence[str]
) -> tuple[tuple[VmResult, ...], bool]:
    """Start them; the verified results, and whether it was interrupted."""
    begun, clock, gates = op.begin(), op.clock, StartGates()

    def work(start: Start, notify: Notify) -> VmResult:
        return vmstart.VmStart(
            session, start, begun, clock=clock, notify=notify, gate=gates, overrides=overrides
        ).run()

    results, interrupted = _each(op, starts, work, parallel)
    after = session.running_now()
    return tuple(vmstart.verified(r, s, after) for r, s in zip(results, starts, strict=True)), interrupted


def stop_all(
    op: Operator,
    session: Session,
    stops: Sequence[Stop],
    verb: Verb,
    *,
    parallel: int,
    timeout: float | None = None,
) -> tuple[tuple[VmResult, ...], bool]:
    """Shut down, destroy or reboot them; the verified results, and whether it was interrupted."""
    begun, clock = op.begin(), op.clock

    def work(stop: Stop, notify: Notify) -> VmResult:
        seconds = op.inventory.timeout_of(stop.vm.name) if timeout is None else timeout
        return vmstop.VmStop(session, stop, verb, begun, timeout=seconds, clock=clock, notify=notify).run()

    results, interrupted = _each(op, stops, work, parallel)
    after = session.running_now()
    return tuple(vmstop.proved(r, s, verb, after) for r, s in zip(results, stops, strict=True)), interrupted


def _each(
    op: Operator, planned: Sequence[P], work: Callable[[P, Notify], VmResult], parallel: int
) -> tuple[Sequence[VmResult], bool]:
    """Carry them out, `parallel` at a time; the results in the same order, and whether it was interrupted."""
    with progress(op.output, len(planned), clock=op.clock) as notify:
        batch = Batch(
            planned,
            lambda one: work(one, notify),
            parallel=parallel,
            left=lambda one: VmResult(one.vm, one.host, "left", "not begun: interrupted"),
            describe=lambda one: one.vm.name,
            interrupted=lambda: op.warn(_INTERRUPTED),
        )
        return batch.run(), batch.stopped_early
