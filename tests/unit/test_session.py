"""The links to the hosts are closed together, whatever their users do meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tasks.cluster.asking.link import Progress
from tasks.cluster.asking.session import Session
from tasks.cluster.errors import LinkLost
from tests.unit.clusters import inventory


class UsedLink:
    """A link whose user notices at once when it is closed."""

    def __init__(self, name: str, users: dict[str, Session], closed: list[str]) -> None:
        self.host = name
        self._users = users
        self._closed = closed

    def call(
        self, op: str, args: Mapping[str, Any], *, deadline: float, progress: Progress | None = None
    ) -> Mapping[str, Any]:
        raise LinkLost(self.host, "closed")

    def close(self) -> None:
        if self.host not in self._closed:
            self._closed.append(self.host)
            session = self._users["all"]
            with suppress(LinkLost), session.using(self.host) as ops:
                ops.running()


def test_links_that_are_lost_while_they_are_closed_are_all_closed() -> None:
    users: dict[str, Session] = {}
    closed: list[str] = []
    cluster = inventory("vmhost1", "vmhost2", "vmhost3")
    session = users["all"] = Session(cluster, lambda host, seconds: UsedLink(host.name, users, closed))
    with session:
        for name in cluster.hosts:
            session.host(name)
    assert closed == list(cluster.hosts)
