"""What every test shares: how hypothesis searches, and that real clusters run one after another."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# In CI a failure must come again when it is run again; at a desk each run looks somewhere new.
settings.register_profile("desk", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("desk"), max_examples=5_000)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


class ClustersInTurn(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Gives all tests of real clusters to one worker, at once, and each other test to whoever is free.

    `--dist loadgroup` is made for this, but does nothing with pytest 9.2 (pytest-xdist issue 1386).
    """

    def _split_scope(self, nodeid: str) -> str:
        return "cluster" if nodeid.startswith("tests/cluster/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ClustersInTurn:
    return ClustersInTurn(config, log)
