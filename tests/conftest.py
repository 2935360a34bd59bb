"""What every test shares: how hypothesis searches, what was exercised, that real clusters run in turn."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# In CI a failure must come again when it is run again; at a desk each run looks somewhere new. How long an
# example takes, or to think of one, says something of the machine only.
settings.register_profile(
    "desk",
    deadline=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
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


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests are made, none of which is garbage: nobody looks for it meanwhile."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


Exercised = Callable[[str, int], None]
_EXERCISED = "exercised: "


@pytest.fixture
def exercised(record_property: Callable[[str, object], None]) -> Exercised:
    """Counts something that a test has done: the sums over all tests are printed at the end of the run.

    As properties of the tests they come back from the workers of xdist by themselves.
    """
    return lambda what, count: record_property(_EXERCISED + what, count)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    sums: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", None) == "call":
                sums.update({n: c for n, c in report.user_properties if n.startswith(_EXERCISED)})
    if sums:
        terminalreporter.section("exercised")
        for name, count in sorted(sums.items()):
            terminalreporter.write_line(f"{name.removeprefix(_EXERCISED)}: {count:,}")
