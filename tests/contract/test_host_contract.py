"""The simulated host keeps the contract; tests/lab asks the same of a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.host_contract import HostContract
from tests.contract.sim_bench import SimBench
from tests.sim.cluster import SimCluster


@pytest.fixture
def bench() -> Iterator[SimBench]:
    with SimCluster() as cluster:
        yield SimBench(cluster)


class TestSimulatedHost(HostContract):
    """Every test of the contract."""
