"""The simulated cluster, and the operator's desk at it."""

from __future__ import annotations

import pytest

from tests.domain.desk import Desk
from tests.sim.cluster import SimCluster


@pytest.fixture
def sim() -> SimCluster:
    """Four hosts; time goes on in it from `with sim:` on."""
    return SimCluster()


@pytest.fixture
def desk(sim: SimCluster) -> Desk:
    return Desk(sim)
