"""How tests start real clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kvstore.local.cluster import LocalCluster


def serving(directory: Path, *flags: str) -> Iterator[LocalCluster]:
    """Three nodes that serve, started with these flags, until the test is over."""
    found = LocalCluster.create(directory / "cluster", first_port=None)
    try:
        found.start(flags=flags)
        yield found
    finally:
        found.stop()
