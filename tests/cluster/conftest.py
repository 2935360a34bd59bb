"""Real clusters for tests: processes of their own, on free ports, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.local.cluster import LocalCluster
from tests.cluster.clusters import serving


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes that serve, for a test that harms them."""
    yield from serving(tmp_path)


@pytest.fixture(scope="session")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three nodes that serve, for tests that leave them alone and use buckets of their own."""
    yield from serving(tmp_path_factory.mktemp("shared"))
