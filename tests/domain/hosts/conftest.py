"""The simulated cluster whose hosts are to be set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sim.cluster import SimCluster


@pytest.fixture
def sim() -> Iterator[SimCluster]:
    """Three hosts, in whose time the whole test takes place."""
    with SimCluster(("vmhost1", "vmhost2", "vmhost3")) as made:
        yield made
