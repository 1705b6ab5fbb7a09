'''The operator's surface: what every task shares, so that all of them look and end alike.

A task is a function that gets an Operator and its flags:

    from tasks.cli import Hosts, Operator, vmtask

    @vmtask(Hosts.SEVERAL)
    def drain(op: Operator, parallel: int = 4, dry_run: bool = False, yes: bool = False) -> None:
        """Empty a host: move all its VMs away."""
        with op.session() as session:            # tasks.cluster.asking.session.Session
            snapshot = session.observe(plan=True)
            ...                                  # op.hosts: ("vmhost1", "vmhost2") for -H "vmhost1, vmhost2"
            op.output.table(Table(("VM", "from", "to"), rows))
            op.confirm("Go?")                    # --yes answers; without a terminal it refuses

Hosts says how a task takes -H: NONE (refused), FILTER (optional), ONE, SEVERAL. The body is always called
once. Aliases are checked against the inventory before any task of the command line starts.

Flags: help texts, number formats and what may be repeated come from `tasks.cli.flags` by the parameter's
name; give `help=` only for others. Write `parallel: int = 4` or `timeout: float | None = None`; a wrong
number is refused with a sentence. There are no one-letter flags. A VM whose name starts with a dash is given
as `--vm=-name`.

Ends: return None (exit code 0) or a code; raise a VmfabError for everything foreseeable: its sentence and
hint go to standard error and its code becomes the exit code. Never print, never call sys.exit.

Output: `op.say`, `op.warn`, `op.output.table(Table(...))`, `op.output.document(dict)`. With --json, messages
and tables go to standard error by themselves. Names are made harmless on the way out.

VMs: `tasks.cli.select.select(snapshot, vm, hosts=op.hosts, running=True)` understands names, patterns, UUIDs
and lists with commas. Long work: `with progress(op.output, len(moves)) as notify:` (tasks.cli.progress) shows
the events of tasks.cluster.events; Operator(output=..., inventory=..., connector=...) makes one for tests,
and `drain.answer(operator, ...)` calls a task with it. `overrides=OF_A_MOVE` gives a task the flags against
refusals; its body gets those that were typed as `overrides`.
'''

from tasks.cli.context import Operator
from tasks.cli.task import Hosts, vmtask
from tasks.cli.text import Table

__all__ = ["Hosts", "Operator", "Table", "vmtask"]
