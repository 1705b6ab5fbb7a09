"""fab with one change: it kills itself with SIGKILL before or after it writes a certain line of its journal.

    python -m tests.lab.killed_fab before|after WHAT fab's own words...

WHAT is a step that is announced, or another kind of line: plan, outcome, end. All else is fab itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from fabric.main import program

from tasks.cluster.store.sharedstore import SharedStore
from tasks.lab.lab import PROJECT

_append = SharedStore.append


def main() -> None:
    when, what = sys.argv[1:3]
    sys.argv = ["fab", "--search-root", str(PROJECT), *sys.argv[3:]]

    def append(self: SharedStore, path: str, text: str) -> None:
        last = json.loads(text.splitlines()[-1])
        meant = what in (last["line"], last.get("step") if last["line"] == "before" else None)
        if meant and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        _append(self, path, text)
        if meant:
            os.kill(os.getpid(), signal.SIGKILL)

    SharedStore.append = append  # type: ignore[method-assign]
    program.run()


if __name__ == "__main__":
    main()
