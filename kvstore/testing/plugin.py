"""The pytest plugin: the fixture `kvcluster` and the marker of the same name.

Loaded by pytest itself wherever kvstore is installed, so it imports nothing else before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from kvstore.testing.cluster import Cluster


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", "kvcluster(nodes=3, seed=1, buckets=[]): the cluster that the fixture `kvcluster` gives"
    )


@pytest.fixture
def kvcluster(request: pytest.FixtureRequest) -> Cluster:
    """A simulated kvstore cluster, new for each test: see kvstore.testing.Cluster."""
    from kvstore.testing.cluster import Cluster

    marker = request.node.get_closest_marker("kvcluster")
    return Cluster(*marker.args, **marker.kwargs) if marker else Cluster()
