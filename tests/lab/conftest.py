"""The practice cluster for tests: one for each process that runs tests, put right before each test.

lab           four hosts without VMs, made once; somewhere of its own, beside any lab of the operator's
restored_lab  the same, with everything mended and all VMs removed
clean_lab     restored_lab with the law watched during the test and checked at its end: the one to use
fab           vmfab's command line on the laptop of clean_lab
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.lab import law, packages
from tasks.lab.lab import PROJECT, Lab
from tests.lab.fab import Fab


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    packages.require()
    made = Lab(tmp_path_factory.mktemp("lab"), cache=PROJECT / ".lab/cache")
    try:
        made.up(hosts=4, vms=0)
        yield made
    finally:
        made.down()


@pytest.fixture
def restored_lab(lab: Lab) -> Lab:
    lab.restore()
    return lab


@pytest.fixture
def clean_lab(restored_lab: Lab) -> Iterator[Lab]:
    with law.Watch(restored_lab):
        yield restored_lab
    law.check(restored_lab)


@pytest.fixture
def fab(clean_lab: Lab, tmp_path: Path) -> Iterator[Fab]:
    with Fab(clean_lab, tmp_path / "home") as operator:
        yield operator
