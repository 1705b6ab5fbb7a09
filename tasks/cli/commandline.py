"""What the operator typed, for those who read it later, and how what is advised is typed here."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence

#: The option that the launcher adds with a value; nobody typed it.
_ADDED = "--search-root"

#: Set by the launcher: itself as it was called, with --lab or --inventory FILE.
_CALL = "VMFAB_CALL"

#: A command in a message (and not a VM called fab). Those of the practice cluster itself take no --lab.
_ADVISED = re.compile(
    r"(?<![\w./-])fab (?=(?P<own>lab\.\w|demo\b|test\b)|-H |--(?:list|help)\b|(?:vm|host)\.\w"
    r"|(?:audit|drain|evacuate|history|migrate|resume|status|undrain)\b)"
)


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


def as_typed_here(text: str) -> str:
    """Spell the commands in a message so that they can be typed: fab undrain -> ./fab --lab undrain.

    Without that a hint on the practice cluster, typed as it stands, would act on the hosts of hosts.ini.
    """
    call = os.environ.get(_CALL, "fab")
    if call == "fab" or "fab " not in text:
        return text
    return _ADVISED.sub(lambda found: (call.removesuffix(" --lab") if found["own"] else call) + " ", text)
