"""One deliberate breakage: which text of the project becomes which, and who has to notice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Tests that may be asked to notice, by subject; the quickest come first. None needs the practice cluster.
MOVES = ("tests/domain/test_move.py",)
EVACUATION = ("tests/domain/test_evacuate.py",)
STARTS = ("tests/domain/test_vm_start.py",)
STOPS = ("tests/domain/test_vm_stop.py",)
TRACES = ("tests/unit/test_proof.py",)
PLANS = ("tests/unit/test_eligibility.py", "tests/unit/test_placement.py")
OBSERVED = ("tests/unit/test_session.py", *STARTS, "tests/domain/test_drain.py")
ONHOST = ("tests/unit/onhost/test_onhost_lifecycle.py", "tests/unit/onhost/test_onhost_domains.py")
AGENT = ("tests/unit/onhost/test_onhost_agent.py", "tests/unit/onhost/test_onhost_store.py")
RESTART = ("tests/unit/test_restart_running_vms.py",)
HOOK = ("tests/lab/guard/test_hook.py",)
MIGRATIONS = ("tests/sim/test_guard.py",)
TENDER = ("tests/lab/guard/test_tend.py",)


class NotApplicable(Exception):
    """The project's source has changed: the breakage does not fit it any more."""


@dataclass(frozen=True)
class Breakage:
    """`edits` are pairs (text, what becomes of it); each text stands exactly once in `file`.

    `why` says what would be lost. Some of `tests` have to fail with it, and to pass without it.
    """

    name: str
    why: str
    file: str
    edits: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]

    def broken(self, root: Path) -> str:
        """The text of the file with the breakage in it. Raises NotApplicable."""
        path = root / self.file
        if not path.is_file():
            raise NotApplicable(f"{self.file} is not there")
        text = path.read_text(encoding="utf-8")
        for old, new in self.edits:
            count = text.count(old)
            if count != 1:
                raise NotApplicable(f"{self.file} has this {count} times, not once: {old!r}")
            text = text.replace(old, new)
        if self.file.endswith(".py"):
            compile(text, self.file, "exec")
        return text


def unfit(breakages: tuple[Breakage, ...], root: Path) -> Iterator[str]:
    """Say which breakages do not fit the source, or name tests that are not there."""
    for one in breakages:
        try:
            one.broken(root)
        except (NotApplicable, SyntaxError) as problem:
            yield f"{one.name}: {problem}"
        for test in one.tests:
            if not (root / test).is_file():
                yield f"{one.name}: {test} is not there"
