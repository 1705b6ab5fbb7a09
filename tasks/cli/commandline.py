"""What the operator typed, for locks, cordons and journals that others read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

#: Options that the launcher adds, with a value; nobody typed them.
_ADDED = ("--search-root", "-r")


def typed(argv: Sequence[str] | None = None) -> str:
    """The command line as a shell would take it: fab -H vmhost1 drain."""
    words = list(sys.argv[1:] if argv is None else argv)
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _ADDED:
            skip = True
        elif not word.startswith("--search-root="):
            kept.append(word)
    return shlex.join(["fab", *kept])
