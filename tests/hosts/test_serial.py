"""The serial lines that an admin opens with minicom, one configuration each."""

from __future__ import annotations

import re

from testinfra.host import Host

from tests.hosts.demand import demand, demand_file, said
from tests.hosts.wanted import Wanted


def test_each_console_has_its_configuration(host: Host, wanted: Wanted) -> None:
    if wanted.consoles:
        demand(
            wanted, said(host, "sh -c %s", "command -v minicom"), "there is no minicom, which opens consoles"
        )
    for console in wanted.consoles:
        path = f"/etc/minicom/minirc.{console.name}"
        text = demand_file(wanted, host, path, "644")
        found = dict(re.findall(r"^pu (\w+)\s+(\S+)", text, re.MULTILINE))
        for name, value in {
            "port": console.device,
            "baudrate": console.speed,
            "bits": "8",
            "parity": console.parity[:1].upper(),
            "stopbits": "1",
        }.items():
            is_so = found.get(name, "nothing")
            demand(wanted, value == is_so, f"{path} sets {name} to {is_so}, not to {value}")
