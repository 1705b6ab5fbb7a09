"""`fab host.verify`: what others than vmfab's own code see on a host."""

from __future__ import annotations

import subprocess
import sys

from tasks.check import ROOT, install_tools
from tasks.cli import Hosts, Operator, vmtask
from tasks.cluster.errors import Failed, Unknown

#: pytest's codes: something is missing; a host could not be asked (tests/hosts/conftest.py).
MISSING, NOT_ASKED = 1, 3


@vmtask(Hosts.SEVERAL)
def verify(op: Operator) -> None:
    """Look at set-up hosts with testinfra, read-only.

    Runs tests/hosts: what a host looks like that is set up, said a second time and independently of the code
    that sets it up (host.check asks that code). Logs in with ssh itself, one line per test, and one sentence
    for everything that is missing. Changes nothing on the hosts; installs pytest and testinfra into .venv the
    first time.

    Exit codes: 0 all is there, 1 something is missing, 3 a host could not be asked.

    Example: fab -H vmhosts host.verify
    """
    inventory = op.inventory.path
    install_tools(op)
    words = [sys.executable, "-m", "pytest", "-v", "-rN", "-p", "no:cacheprovider", "tests/hosts"]
    options = [f"--hosts={','.join(op.hosts)}", f"--ansible-inventory={inventory}"]
    code = subprocess.run([*words, *options], cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
    if code == NOT_ASKED:
        raise Unknown("A host could not be asked (see above).", "Plain ssh has to work without a question.")
    if code == MISSING:
        hosts = ",".join(op.hosts)
        raise Failed(
            "Something is missing (see above).",
            f"What host.setup would do about it: fab -H {hosts} host.setup --dry-run",
        )
    if code:
        raise Failed(f"pytest ended with {code} (see above).")
    op.say(f"{', '.join(op.hosts)}: all is there.", "green")
