"""A cluster of hosts for the rendered hook; needs root for its namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.guard.hooks import HookCluster, HookHost


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[HookCluster]:
    made = HookCluster(tmp_path)
    yield made
    made.end()


@pytest.fixture
def one(cluster: HookCluster) -> HookHost:
    return cluster.host("vmhost1")


@pytest.fixture
def two(cluster: HookCluster, one: HookHost) -> HookHost:
    return cluster.host("vmhost2")
