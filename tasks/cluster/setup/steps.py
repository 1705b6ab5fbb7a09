"""Setting a host up: look at what there is, plan, change, look again.

A `Step` is a list of wishes: things that a host shall have, each of which can look whether it has them. To
add a step, write its wishes; a wish compares the host with what is wanted and gives a Change that would make
it so, or AlreadySo with the reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from tasks.cluster.asking.hostfiles import Ended
from tasks.cluster.asking.hostops import HostOps
from tasks.cluster.errors import Failed, HostError, HostSilent, Refused, Unknown


class Lacking(Refused):
    """The host lacks something that an earlier step of its set-up brings, such as a program or a mount.

    `host.setup` shows such a step as one that comes after the earlier one, and looks again then; alone it is
    a refusal, whose hint names the task that brings what is lacking.
    """

    def __init__(self, host: str, lacks: str, *, by: str) -> None:
        """`lacks` completes "HOST ..."; `by` is the step that brings it."""
        super().__init__(f"{host} {lacks}.", f"Type fab -H {host} host.{by}")
        self.lacks = lacks
        self.by = by


#: Every step may be taken again, whatever became of it.
AGAIN = "Type the same again: what is done already is left alone."


@dataclass(frozen=True, slots=True)
class AlreadySo:
    """Nothing is to do about `what`, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """What would be done about `what`. `apply` does it on the host that was looked at; it gives a note.

    `diff` is a unified diff with a final line end, or empty when there is no text to compare.
    """

    what: str
    why: str
    apply: Callable[[HostOps], str]
    diff: str = ""


Finding = AlreadySo | Change


class Wish(Protocol):
    """One thing that a host shall have."""

    def look(self, ops: HostOps) -> Finding:
        """Compare the host with the wish. Changes nothing. Raises HostError, HostSilent, Refused."""
        ...


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a host's set-up, in the order in which its wishes are to come true."""

    name: str
    wishes: tuple[Wish, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a step found on one host."""

    host: str
    step: Step
    findings: tuple[Finding, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(f for f in self.findings if isinstance(f, Change))


def plan(ops: HostOps, step: Step) -> Plan:
    """Look at the host; see `Wish.look` for what it raises."""
    return Plan(ops.host, step, tuple(wish.look(ops) for wish in step.wishes))


def apply(
    ops: HostOps,
    planned: Plan,
    tell: Callable[[str], object],
    *,
    current: Callable[[], HostOps] | None = None,
) -> Plan:
    """Make the planned changes one after the other, then look again; what was found then.

    `tell` hears of each change that was made. `current` gives the open link to the host, for steps that may
    put a new one in the place of `ops` (see `Session.renew`). Raises Failed when a change failed or something
    is still not as it is wished, Unknown when that cannot be seen, HostError when the host said no: changes
    before the one that failed are made then, those behind it are not.
    """
    current = current or (lambda: ops)
    for change in planned.changes:
        try:
            note = change.apply(current())
        except HostSilent as error:
            raise Unknown(
                f"{ops.host} does not answer any more ({error.reason}): it may be half set up.", AGAIN
            ) from error
        except Refused as error:
            raise Failed(error.message, error.hint) from error
        tell(f"{change.what}: {change.why}" + (f" ({note})" if note else ""))
    try:
        after = plan(current(), planned.step)
    except (Refused, HostSilent, HostError) as error:
        raise Unknown(
            f"{ops.host} was changed, but cannot be looked at again: {error.message}", AGAIN
        ) from error
    if after.changes:
        left = "; ".join(f"{change.what} ({change.why})" for change in after.changes)
        raise Failed(
            f"{ops.host} is still not as it was set up: {left}.", f"Somebody else may change it. {AGAIN}"
        )
    return after


def diff(what: str, before: str | None, after: str | None) -> str:
    """A unified diff, empty for equal texts; None is a file that does not exist."""
    old, new = _lines(before or ""), _lines(after or "")
    source, target = ("/dev/null" if text is None else what for text in (before, after))
    made = list(difflib.unified_diff(old, new, source, target, n=2, lineterm=""))
    return "".join(f"{line}\n" for line in made)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    if lines[-1]:
        return [*lines[:-1], f"{lines[-1]}\n\\ No newline at end of file"]
    return lines[:-1]


def run(ops: HostOps, argv: Sequence[str], *, stdin: str = "") -> Ended:
    """Run a program of the host's set-up, which takes a moment at most. Raises Lacking when there is none.

    What may take minutes is for `HostOps.work`.
    """
    try:
        return ops.command(argv, stdin=stdin, timeout=20.0)
    except HostError as error:
        if error.kind != "bad-request":
            raise
        raise Lacking(ops.host, f"has no {argv[0]}", by="packages") from error


@dataclass(frozen=True, slots=True)
class Booted:
    """The host is a machine of its own, booted with systemd: what concerns all of it concerns nobody else."""

    def look(self, ops: HostOps) -> Finding:
        if run(ops, ["test", "-d", "/run/systemd/system"]).rc != 0:
            raise Refused(
                f"{ops.host} was not booted with systemd: it is no machine of its own.",
                "A container's or a practice host's packages and boots are those of the machine around it.",
            )
        return AlreadySo("system", "was booted with systemd")


@dataclass(frozen=True, slots=True)
class OwnFile:
    """A file of vmfab's, wholly as rendered. A different one that is there is replaced, and kept aside.

    `check` is a command that gets the path as its last word and ends with 0 when the file is good. A file
    that lacks `mark` is somebody else's and refused; `hint` says what to do about it. Where others write the
    file as well, `reads` gives what it says: one that says the same is left as it is.
    """

    path: str
    text: str
    mode: int
    check: Sequence[str] = ()
    mark: str = ""
    hint: str = "Move it away first."
    reads: Callable[[str], object] = str

    def look(self, ops: HostOps) -> Finding:
        found = ops.file_read(self.path)
        if found.text is not None and self.mark not in found.text:
            raise Refused(f"{self.path} on {ops.host} is not vmfab's.", self.hint)
        same = found.text is not None and self.reads(found.text) == self.reads(self.text)
        if same and found.mode == self.mode:
            self._check(ops)
            return AlreadySo(self.path, "is there as it should be")
        if found.text is None:
            why = "made"
        elif same:
            why = f"given the mode {self.mode:04o} instead of {found.mode:04o}"
        else:
            why = "replaced"

        def write(ops: HostOps) -> str:
            kept = ops.file_write(self.path, self.text, mode=self.mode, expect=found.sha256)
            return f"the old one is kept as {kept}" if kept else ""

        return Change(self.path, why, write, diff(self.path, found.text, self.text))

    def _check(self, ops: HostOps) -> None:
        if self.check:
            ended = run(ops, [*self.check, self.path])
            if ended.rc != 0:
                raise Failed(f"{ops.host}: {self.check[0]} does not like {self.path}: {ended.said}.")


@dataclass(frozen=True, slots=True)
class NoFile:
    """A file of vmfab's is not there any more; it is kept aside. One that lacks `mark` is somebody else's."""

    path: str
    mark: str

    def look(self, ops: HostOps) -> Finding:
        found = ops.file_read(self.path)
        digest = found.sha256
        if found.text is None or digest is None:
            return AlreadySo(self.path, "is not there")
        if self.mark not in found.text:
            raise Refused(f"{self.path} on {ops.host} is not vmfab's.", "Nothing was removed.")

        def remove(ops: HostOps) -> str:
            kept = ops.file_remove(self.path, expect=digest)
            return f"the old one is kept as {kept}" if kept else ""

        return Change(self.path, "removed", remove, diff(self.path, found.text, None))
