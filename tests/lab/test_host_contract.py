"""A real host keeps the contract that the simulated one is held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.lab.lab import Lab
from tests.contract.host_contract import HostContract
from tests.lab.lab_bench import LabBench


@pytest.fixture
def bench(clean_lab: Lab) -> Iterator[LabBench]:
    made = LabBench(clean_lab)
    yield made
    made.close()


class TestRealHost(HostContract):
    """Every test of the contract."""
