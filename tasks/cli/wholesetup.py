"""host.setup and host.check at the operator's surface: all steps of a host's set-up, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tasks.cli import formatting, settingup
from tasks.cli.context import Operator
from tasks.cli.text import DRY
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import Failed, HostError, HostSilent, Interrupted, Refused, VmfabError
from tasks.cluster.model import Silent
from tasks.cluster.setup import ocfs2, sequence
from tasks.cluster.setup import steps as hostsetup
from tasks.cluster.setup.sequence import Later
from tasks.cluster.setup.steps import AGAIN, Change, Lacking, Plan, Step

#: Seconds for looking at all steps on all hosts.
PATIENCE = 120.0


def set_up(op: Operator, *, labels: Sequence[str] | None, dry_run: bool) -> None:
    """Take all steps on the hosts of -H; with `labels` also make file systems (see formatting.labels_of).

    All hosts are looked at first: one that is silent or refuses ends it before anything is changed. After one
    question host after host is set up, each step looked at again before it is taken; the first failure ends
    it, and what was not reached is named.
    """
    with op.session(unhurried=True) as session:
        wanted = {name: sequence.steps(session, name) for name in op.hosts}
        brought = () if labels is None else (ocfs2.FORMAT,)
        plans = {name: _planned(session, name, steps, brought) for name, steps in wanted.items()}
        for name, planned in plans.items():
            for one in planned:
                _show(op, name, one, whole=dry_run)
        todo = {name: planned for name, planned in plans.items() if any(map(_is_open, planned))}
        if not todo:
            op.say(f"{', '.join(op.hosts)}: set up already, nothing was changed", "green")
        if dry_run:
            op.say(DRY)
        if dry_run or not todo:
            return
        later = any(isinstance(one, Later) for planned in todo.values() for one in planned)
        op.confirm(f"Change {', '.join(todo)}?" + (" What comes later is shown then." if later else ""))
        progress = _Progress(todo)
        make = None if labels is None else partial(formatting.make_file_systems, op, session, labels=labels)
        try:
            for name, planned in todo.items():
                _set_up(op, session, name, planned, wanted[name], progress, make)
        except VmfabError as error:
            for line in progress.left():
                op.warn(line)
            raise (settingup.after_changes(error) if progress.changed else error) from error
        except KeyboardInterrupt:
            raise Interrupted("Interrupted: what was begun may be half done.", AGAIN) from None


def _planned(
    session: Session, host: str, steps: Sequence[Step], brought: Sequence[str]
) -> Sequence[Plan | Later]:
    try:
        return sequence.plan(session.host(host), steps, brought)
    except HostError as error:
        raise Refused(error.message, "Nothing was changed.") from error


def _is_open(one: Plan | Later) -> bool:
    return isinstance(one, Later) or bool(one.changes)


class _Progress:
    """How far it has come, for the report when it ends early."""

    def __init__(self, todo: Mapping[str, Sequence[Plan | Later]]) -> None:
        self._open = {name: [one.step.name for one in planned] for name, planned in todo.items()}
        self.changed = False

    def done(self, host: str, step: str) -> None:
        self._open[host].remove(step)

    def left(self) -> list[str]:
        """One line about each host on which something was not reached; the step that failed is not in it."""
        hosts = [(host, steps) for host, steps in self._open.items() if steps]
        behind = [(host, steps[1:] if n == 0 else steps) for n, (host, steps) in enumerate(hosts)]
        return [f"Not reached: {host} ({', '.join(steps)})" for host, steps in behind if steps]


def _set_up(
    op: Operator,
    session: Session,
    host: str,
    shown: Sequence[Plan | Later],
    wanted: Sequence[Step],
    progress: _Progress,
    make_file_systems: Callable[[str], bool] | None,
) -> None:
    for before, step in zip(shown, wanted, strict=True):
        if step.name == ocfs2.NAME and make_file_systems and make_file_systems(host):
            progress.changed = True
        with session.using(host) as ops:
            planned = hostsetup.plan(ops, step)
            if _differs(before, planned):
                _show(op, host, planned)
            if planned.changes:
                progress.changed = True
                current = partial(session.host, host)
                hostsetup.apply(ops, planned, partial(settingup.tell, op, host), current=current)
                op.say(f"{host}: {step.name} is set up", "green")
        progress.done(host, step.name)
    left = [one.step.name for one in sequence.plan(session.host(host), wanted) if _is_open(one)]
    if left:
        raise Failed(f"{host}: {', '.join(left)} is not as it was set up any more.", AGAIN)
    op.say(f"{host} is set up", "green")


def _differs(before: Plan | Later, now: Plan) -> bool:
    """Whether what is to be done now was not shown before."""
    if isinstance(before, Later):
        return True
    return [(c.what, c.why, c.diff) for c in now.changes] != [(c.what, c.why, c.diff) for c in before.changes]


def _show(op: Operator, host: str, one: Plan | Later, *, whole: bool = False) -> None:
    if isinstance(one, Later):
        op.say(f"{host}: {one.step.name}: comes after {one.after} ({one.lacks})", "bold")
    elif one.changes:
        settingup.show(op, one, whole=whole)
    else:
        op.say(f"{host}: {one.step.name}: already so")


# -- host.check ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a host's set-up lacks, and what to type about it; no `what` when it cannot be seen."""

    host: str
    step: str
    what: str
    why: str
    advice: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was seen on one host: by step what is missing; `silent` says why it could not be looked at."""

    host: str
    steps: tuple[str, ...]
    missing: tuple[Missing, ...]
    silent: str = ""


def check(session: Session, hosts: Sequence[str]) -> tuple[Checked, ...]:
    """Look at every step on these hosts at the same time. Changes nothing. Raises Refused for settings."""
    wanted = {name: sequence.steps(session, name) for name in hosts}
    names = tuple(stage.name for stage in sequence.STAGES)

    def missing(ops: HostOps) -> list[Missing]:
        return [lack for step in wanted[ops.host] for lack in _missing(ops, step)]

    seen = session.each(hosts, missing, seconds=PATIENCE)
    answers = {name: seen[name] for name in hosts}
    return tuple(
        Checked(name, names, (), answer.reason)
        if isinstance(answer, Silent)
        else Checked(name, names, tuple(answer))
        for name, answer in answers.items()
    )


def _reason(error: VmfabError) -> str:
    """What is wrong with a host that is named already."""
    if isinstance(error, Lacking):
        return error.lacks
    return error.detail if isinstance(error, HostError) else error.message


def _missing(ops: HostOps, step: Step) -> list[Missing]:
    """What one step lacks on a host. Raises HostSilent."""
    mend = f"fab -H {ops.host} host.{step.name}"
    found = []
    for wish in step.wishes:
        try:
            finding = wish.look(ops)
        except HostSilent:
            raise
        except VmfabError as error:
            advice = f"fab -H {ops.host} host.{error.by}" if isinstance(error, Lacking) else error.hint
            found.append(Missing(ops.host, step.name, "", _reason(error), advice or mend))
            # What comes behind it in a step stands on it.
            break
        if isinstance(finding, Change):
            found.append(Missing(ops.host, step.name, finding.what, f"to be {finding.why}", mend))
    return found
