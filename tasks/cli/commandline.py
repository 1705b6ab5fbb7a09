"""What the operator typed, for locks, cordons and journals that others read."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

#: The option that the launcher adds with a value; nobody typed it.
_ADDED = "--search-root"


def typed(argv: Sequence[str] | None = None) -> str:
    """The command line as a shell would take it: fab -H vmhost1 drain."""
    words = list(sys.argv[1:] if argv is None else argv)
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word == _ADDED:
            skip = True
        elif word != "--write-pyc":
            kept.append(word)
    return shlex.join(["fab", *kept])
