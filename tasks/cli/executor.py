"""How tasks are run: every task once, told all the hosts of -H, and every end turned into an exit code.

Fabric's own executor calls a task once per host with a connection to whatever name was typed. vmfab's tasks
act on aliases of the inventory, plan over all hosts at once and open their connections themselves.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from invoke import Call, Executor, Task
from invoke.exceptions import Exit, ParseError

from tasks.cli import exits
from tasks.cli.commandline import as_typed_here
from tasks.cli.context import Operator
from tasks.cli.output import Output
from tasks.cli.task import VmTask
from tasks.cluster.errors import Refused

#: Options of fab itself that would be ignored here, and what to use instead.
NOT_HERE = {
    "dry": ("-R (--dry)", "Use the task's own --dry-run."),
    "identity": ("-i", "Put IdentityFile into ~/.ssh/config."),
    "ssh-config": ("-S", "~/.ssh/config is read."),
    "connect-timeout": ("-t", "A host that does not answer is reported after a few seconds."),
    "command-timeout": ("-T", "Use the task's own --timeout."),
    "prompt-for-login-password": ("--prompt-for-login-password", "vmfab logs in with ssh keys only."),
    "prompt-for-passphrase": ("--prompt-for-passphrase", "Put the key into ssh-agent: ssh-add."),
    "prompt-for-sudo-password": ("--prompt-for-sudo-password", "vmfab uses sudo -n."),
}


#: How Invoke tells that a flag's value is missing.
_NO_VALUE = re.compile(r"Flag <Argument: ([\w-]+)[^>]*> needed value and was not given one!")

#: What to type where the command line is not understood.
LISTS = "fab --list shows the tasks, fab --help TASK all of one. Several VMs or hosts: one word, with commas."


class OperatorCall(Call):
    """A call of one of vmfab's tasks; its context is the Operator."""

    def __init__(self, call: Call, task: VmTask, operator: Operator) -> None:
        super().__init__(task, called_as=call.called_as, args=call.args, kwargs=task.understood(call.kwargs))
        self.operator = operator

    def make_context(self, config: Any) -> Any:
        return self.operator


class VmExecutor(Executor):
    """Checks the whole command line before the first task starts, then runs task after task."""

    def execute(self, *tasks: Any) -> Any:
        self.output = Output.of_process()
        self.results: dict[Task[Any], Any] = {}
        code = exits.ending(lambda: self._run(*tasks), self.output)
        if code:
            raise Exit(code=code)
        return self.results

    def _run(self, *tasks: Any) -> int:
        exits.need_streams()
        self._check_options()
        self.results = super().execute(*tasks)
        return 0

    def _check_options(self) -> None:
        for option, (spelled, instead) in NOT_HERE.items():
            if self._option(option):
                raise Refused(f"{spelled} has no effect on vmfab's tasks.", instead)
        if self.core is not None and self.core.remainder:
            raise Refused("What follows -- is not run by vmfab.", "A VM's name may be given as --vm=NAME.")

    def _option(self, name: str) -> Any:
        return None if self.core is None else self.core[0].args[name].value

    def expand_calls(self, calls: Iterable[Any], apply_hosts: bool = True) -> list[Call]:
        """One call per task, checked: flags understood, hosts known, -H where it is wanted.

        Raises Refused; nothing has been done then.
        """
        typed = self._option("hosts") if apply_hosts else None
        expanded: list[Call] = []
        for given in calls:
            call = Call(given) if isinstance(given, Task) else given
            expanded += self.expand_calls(call.pre, apply_hosts=False)
            expanded.append(self._aimed(call, typed))
            expanded += self.expand_calls(call.post, apply_hosts=False)
        return expanded

    def _aimed(self, call: Call, typed: str | None) -> Call:
        task = call.task
        name = call.called_as or task.name
        if not isinstance(task, VmTask):
            if typed is not None:
                raise Refused(f"{name} does not act on a host: leave -H out.")
            return call
        task.check_wanted(typed is not None, name)
        operator = task.operator(call.kwargs, self.output)
        if typed is not None:
            operator.aim(typed)
            task.check_number(operator.hosts, name)
        return OperatorCall(call, task, operator)

    def dedupe(self, calls: list[Call]) -> list[Call]:
        """Keep every call: `fab status drain status` means what it says."""
        return calls


def install() -> None:
    """Make the running fab use this executor, and exit with 2 when the command line cannot be understood.

    The fabfile calls it: fab loads that before it looks at the tasks that were typed. A configuration file
    beside the fabfile could name the executor as well, but not the exit code.
    """
    from fabric.main import program

    program.executor_class = VmExecutor
    program.parse_tasks = _refusing(_spelled_out(program, program.parse_tasks))
    program.parse_cleanup = _refusing(program.parse_cleanup)
    program.print_task_help = _with_values(program, program.print_task_help)
    program.no_tasks_given = _no_task


def _no_task() -> None:
    raise Exit(f"fab: No task is given.\n{as_typed_here(LISTS)}", 2)


def _with_values(program: Any, tell: Callable[[str], None]) -> Callable[[str], None]:
    """Let help show that repeatable flags take a value: Invoke shows it of text and numbers only."""

    def tell_with_values(name: str) -> None:
        for argument in program.parser.contexts[name].args.values():
            if argument.kind is list:
                argument.kind = str  # nothing is parsed any more
        tell(name)

    return tell_with_values


def _spelled_out(program: Any, parse: Callable[[], None]) -> Callable[[], None]:
    def spell_out_and_parse() -> None:
        tasks = {name: program.collection[name] for name in program.collection.task_names}
        program.core.unparsed[:] = spelled_out(program.core.unparsed, tasks)
        parse()

    return spell_out_and_parse


def spelled_out(words: Sequence[str], tasks: Mapping[str, Task[Any]]) -> list[str]:
    """The command line with a word that a task may be given spelled out: history web -> history --vm=web.

    Invoke knows no arguments that may be left out except flags.
    """
    made: list[str] = []
    task: Task[Any] | None = None
    may_name, value_follows = "", False
    for word in words:
        if value_follows:
            value_follows = False
        elif word.startswith("-"):
            value_follows = isinstance(task, VmTask) and "=" not in word and task.takes_a_value(word)
        elif may_name and word not in tasks:
            word, may_name = f"--{may_name}={word}", ""
        else:
            task = tasks.get(word)
            may_name = task.may_name if isinstance(task, VmTask) else ""
        made.append(word)
    return made


def _refusing(parse: Callable[[], None]) -> Callable[[], None]:
    def parse_or_refuse() -> None:
        try:
            try:
                parse()
            finally:
                if sys.stdout is not None:
                    sys.stdout.flush()
        except ParseError as error:
            told = _NO_VALUE.sub(r"--\1 needs a value.", str(error))
            raise Exit(f"fab: {told}\n{as_typed_here(LISTS)}", 2) from None
        except BrokenPipeError:
            # fab --list | head: it has what it wanted. Python would flush once more and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(code=0) from None

    return parse_or_refuse
