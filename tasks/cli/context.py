"""What the body of a task works with."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.cli import confirm
from tasks.cli.output import Output
from tasks.cluster.clock import Clock

if TYPE_CHECKING:
    from tasks.cluster.asking.link import Connector
    from tasks.cluster.asking.session import Session
    from tasks.cluster.model import Inventory
    from tasks.cluster.store.operation import Operation


class Operator:
    """One call of one task: the inventory, the hosts it is aimed at, and the person who typed it.

    `inventory` is read on first use (raises Refused); `hosts` are aliases of it, in the order given after
    -H and each once.
    """

    def __init__(
        self,
        *,
        hosts: tuple[str, ...] = (),
        output: Output | None = None,
        yes: bool = False,
        inventory: Inventory | None = None,
        connector: Callable[[Inventory], Connector] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.hosts = hosts
        self.output = output or Output.of_process()
        self.yes = yes
        self.clock = clock or Clock()
        self._connector = connector
        if inventory is not None:
            self.inventory = inventory

    @cached_property
    def inventory(self) -> Inventory:
        from tasks.cluster.inventory import inventory

        return inventory.load(inventory.find(None, os.environ))

    def aim(self, typed: str) -> None:
        """Act on the hosts that were typed after -H: aliases, groups or addresses. Raises Refused."""
        from tasks.cluster.inventory.inventory import resolve

        self.hosts = tuple(host.name for host in resolve(self.inventory, [typed]))

    @property
    def host(self) -> str:
        """The host of a task that is declared with Hosts.ONE."""
        (name,) = self.hosts
        return name

    def session(self, *, unhurried: bool = False) -> Session:
        """Links to the hosts, opened on first use; use it with `with`. `unhurried` gives hosts more time."""
        from tasks.cli.longwork import LongWork
        from tasks.cluster.asking.session import UNHURRIED, Session

        working = LongWork(self.output, self.clock)
        patience = UNHURRIED if unhurried else 1.0
        if self._connector is None:
            from tasks.cluster.remote import links as remote

            return Session(self.inventory, remote.connector(self.inventory), self.clock, working, patience)
        return Session(self.inventory, self._connector(self.inventory), self.clock, working, patience)

    def begin(self) -> Operation:
        """The identity of what is done from now on, for locks, cordons and journals."""
        from tasks.cli.commandline import typed
        from tasks.cluster.store import operation

        return operation.begin(typed(), at=self.clock.now())

    def say(self, text: str = "", style: str = "", *, as_is: bool = False) -> None:
        """See Output.say."""
        self.output.say(text, style, as_is=as_is)

    def warn(self, text: str) -> None:
        """See Output.warn."""
        self.output.warn(text)

    def confirm(self, question: str) -> None:
        """Ask, unless --yes was given. Raises Refused on a no and without a terminal."""
        confirm.confirm(question, self.yes, self.output)

    def confirm_typed(self, question: str, word: str, given: str = "") -> None:
        """Ask for a word to be typed in full, or take it from --confirm. Raises Refused on anything else."""
        confirm.confirm_typed(question, word, self.output, given=given)
