"""Real clusters for tests: processes of their own, on free ports, gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.local.cluster import LocalCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three nodes that serve."""
    found = LocalCluster.create(tmp_path / "cluster", first_port=None)
    try:
        found.start()
        yield found
    finally:
        found.stop()
