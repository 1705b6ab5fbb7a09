"""Run the benchmark: `.venv/bin/python -m tests.bench`, as root, in the project's folder."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tasks.lab.problem import LabError
from tests.bench import table
from tests.bench.result import BenchError
from tests.bench.suite import NEED_ROOT, PARTS, Suite

DESCRIPTION = """\
Compare vmfab with (a) the same work as a shell script (ssh per command, polling once a second, one VM after
another) and (b) an Ansible playbook, in one run on one machine, against the project's speed budgets.

Brings up practice clusters of its own (needs root and the packages of lab.up; another practice cluster that
is up is not touched) and takes them down again. For (b) it installs ansible-core from the Python package
index into a throw-away environment; nothing else of vmfab needs it.
"""
PARTS_HELP = """\
Parts: list (fab --list), planner (without hosts), move (one cold move; detection of a guest's end), drain
(eight VMs), status (four hosts), delay (status of 16 hosts far away). Progress goes to stderr, the table to
stdout.
A missed budget is shown, nothing more: the exit code is 0 when everything asked for was measured.
"""


def main() -> int:
    """Measure what was asked for; the exit code."""
    chosen = _parser().parse_args()
    parts = [part for part in PARTS if part in (chosen.parts or PARTS)]
    if os.geteuid() != 0 and not NEED_ROOT.isdisjoint(parts):
        print("The benchmark's practice cluster needs root.", file=sys.stderr)
        return 2
    for end in (signal.SIGTERM, signal.SIGHUP):
        # So that the practice cluster is taken down as well.
        signal.signal(end, lambda number, _: sys.exit(128 + number))
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="vmfab-bench-") as folder:
        suite = Suite(Path(folder), quick=chosen.quick, say=lambda text: progress.print(text, style="dim"))
        try:
            if "drain" in parts and not chosen.no_ansible:
                try:
                    suite.install_ansible()
                except BenchError as error:
                    # The rest is worth measuring without it; the table says what is missing.
                    progress.print(str(error), style="red", markup=False)
            rows = [row for part in parts for row in suite.measure(part)] + suite.connections()
        except (BenchError, LabError) as error:
            print(error, file=sys.stderr)
            return 1
        finally:
            suite.close()
    text = table.markdown(rows, suite.notes())
    if chosen.markdown == "-":
        print(text, end="")
        return 0
    table.show(Console(width=None if sys.stdout.isatty() else 150), rows, suite.notes())
    if chosen.markdown:
        Path(chosen.markdown).write_text(text, encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=DESCRIPTION,
        epilog=PARTS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", type=_part, help="what to measure (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--no-ansible", action="store_true", help="leave (b) out")
    parser.add_argument(
        "--markdown", metavar="FILE", help="write the table as Markdown too; - prints it instead of the table"
    )
    return parser


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"no such part: {text} (there are {', '.join(PARTS)})")
    return text


if __name__ == "__main__":
    sys.exit(main())
