"""The class of vmfab's tasks, and the decorator that makes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

from invoke import Argument, Task
from invoke.exceptions import Exit

from tasks.cli import flags
from tasks.cli.context import Operator
from tasks.cli.output import Output
from tasks.cluster.errors import Refused

#: The body of a task: gets an Operator and its flags; returns None or an exit code.
Body = Callable[..., "int | None"]


class Hosts(Enum):
    """How a task takes -H."""

    NONE = "acts on the whole cluster: -H is refused"
    FILTER = "shows the whole cluster, with -H only these hosts"
    ONE = "acts on exactly one host, named by -H"
    SEVERAL = "acts on the hosts named by -H, in one call"


class VmTask(Task):  # type: ignore[type-arg]
    """A task whose body is called once with an Operator, whatever the number of hosts.

    It runs only under `tasks.cli.executor.Executor`, which makes the Operator.
    """

    def __init__(
        self,
        body: Body,
        *,
        takes: Hosts = Hosts.NONE,
        may_name: str = "",
        overrides: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """`may_name` is a flag that may also be given as a word alone: `fab history web`.

        `overrides` are flags as they are typed (`--ignore-apart`); the body gets those that were given, as
        one parameter of this name.
        """
        self._overrides = {flag.lstrip("-").replace("-", "_"): flag for flag in overrides}
        parameters = self.argspec(body).parameters
        repeatable = [name for name in parameters if name in flags.REPEATABLE]
        options["iterable"] = [*options.get("iterable", ()), *repeatable]
        options["help"] = flags.help_for(parameters, options.get("help", {}))
        options.setdefault("auto_shortflags", False)
        super().__init__(body, **options)
        self.takes = takes
        self.may_name = may_name
        self.defaults = {name: parameter.default for name, parameter in parameters.items()}

    def argspec(self, body: Body) -> inspect.Signature:
        """What can be typed: the body's parameters, with a flag for each of the overrides."""
        signature: inspect.Signature = super().argspec(body)
        typed: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == "overrides":
                typed += (parameter.replace(name=name, default=False) for name in self._overrides)
            else:
                typed.append(parameter)
        return signature.replace(parameters=typed)

    def arg_opts(self, name: str, default: Any, taken_names: set[str]) -> dict[str, Any]:
        """Take numbers as text: Invoke would answer a wrong one with a traceback; see `understood`."""
        options = super().arg_opts(name, default, taken_names)
        if options.get("kind") in (int, float):
            options["kind"] = str
        return options

    def get_arguments(self, ignore_unknown_help: bool | None = None) -> list[Argument]:
        """A repeatable flag without its value is a mistake; to Invoke it would be one that was not given."""
        arguments: list[Argument] = super().get_arguments(ignore_unknown_help)
        for argument in arguments:
            if argument.kind is list:
                argument.raw_value = None
        return arguments

    def takes_a_value(self, flag: str) -> bool:
        """Whether a word that follows this flag (`--limit`) belongs to it."""
        return not isinstance(self.defaults.get(flag.lstrip("-").replace("-", "_"), False), bool)

    def understood(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The flags as the body wants them. Raises Refused for a value that makes no sense."""
        return {name: flags.understood(name, value, self.defaults.get(name)) for name, value in given.items()}

    def check_wanted(self, given: bool, called_as: str) -> None:
        """Raise Refused for a -H that the task does not take, and for a missing one that it needs."""
        if self.takes is Hosts.NONE and given:
            raise Refused(
                f"{called_as} does not act on a host: leave -H out.", f"fab --help {called_as} tells more."
            )
        if self.takes in (Hosts.ONE, Hosts.SEVERAL) and not given:
            raise Refused(
                f"{called_as} needs to know the host it acts on.", f"Example: fab -H vmhost1 {called_as}"
            )

    def check_number(self, hosts: tuple[str, ...], called_as: str) -> None:
        """Raise Refused for more hosts than the task acts on."""
        if self.takes is Hosts.ONE and len(hosts) > 1:
            raise Refused(
                f"{called_as} acts on one host at a time, not on {', '.join(hosts)}.",
                f"Example: fab -H {hosts[0]} {called_as}",
            )

    def operator(self, given: Mapping[str, Any], output: Output) -> Operator:
        """What the body gets: --json and --yes reach it through this as well."""
        output = output.with_json(bool(given.get("json")))
        return Operator(output=output, yes=bool(given.get("yes")))

    def __call__(self, operator: Any, *args: Any, **given: Any) -> Any:
        """Run the body. A code other than 0 that it returns ends the command with this exit code."""
        if not isinstance(operator, Operator):
            raise TypeError(f"{self.name} was called with {operator!r} instead of an Operator")
        code = self.answer(operator, *args, **given)
        if code:
            raise Exit(code=code)
        return code

    def answer(self, operator: Operator, *args: Any, **given: Any) -> int | None:
        """Run the body on what was typed; what it returns."""
        if self._overrides:
            chosen = {name for name in self._overrides if given.pop(name, False)}
            given["overrides"] = tuple(flag for name, flag in self._overrides.items() if name in chosen)
        code: int | None = self.body(operator, *args, **given)
        return code


def vmtask(
    takes: Hosts = Hosts.NONE,
    *,
    help: Mapping[str, str] | None = None,
    may_name: str = "",
    overrides: Sequence[str] = (),
    **options: Any,
) -> Callable[[Body], VmTask]:
    """Make a function a task that an operator can type; the examples are in `tasks.cli`.

    `help` gives words only for flags that are not in `tasks.cli.flags.HELP`, or mean something more
    special; `options` are those of `invoke.task` (name, iterable, positional, ...).
    """

    def made(body: Body) -> VmTask:
        return VmTask(
            body, takes=takes, may_name=may_name, overrides=overrides, help=dict(help or {}), **options
        )

    return made
