"""What every test shares: how hypothesis searches, and that real clusters run one after another."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# In CI a failure must come again when it is run again; at a desk each run looks somewhere new.
settings.register_profile("desk", deadline=None, max_examples=100, print_blob=True)
settings.register_profile("ci", settings.get_profile("desk"), derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("desk"), max_examples=5_000)
settings.load_profile("ci" if os.environ.get("CI") else "desk")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cluster" in item.path.relative_to(item.config.rootpath).parts:
            item.add_marker(pytest.mark.xdist_group("cluster"))
