"""What needs a terminal: the operator's own ssh takes this process's place."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tasks.cli.context import Operator
from tasks.cluster.errors import Refused


def need(what: str) -> None:
    """Raise Refused without a terminal."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty()):
        raise Refused(f"{what} needs a terminal.", "Type it yourself, outside of scripts and pipes.")


def open(op: Operator, host: str, words: Sequence[str]) -> NoReturn:
    """Run words on a host as root, with this terminal. Raises Refused when there is no ssh."""
    from tasks.cluster.remote.console import terminal_command

    command = terminal_command(op.inventory, op.inventory.hosts[host], words)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise Refused(f"ssh cannot be run: {error.strerror}.", "Install openssh-client.") from error
