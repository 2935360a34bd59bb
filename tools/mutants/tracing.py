"""A plugin of pytest that notes which test runs which lines of the files that are mutated, and for how long.

Loaded with `-p tools.mutants.tracing` in the directory of a copy; leaves `trace.coverage` and `seconds.json`
there. The seeds of the simulator note their lines in the same way, all under one name.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest
from coverage import Coverage

from tools.mutants.suites import SUITES

TRACE, SECONDS = "trace.coverage", "seconds.json"
SEEDS = "seeds"


def start(directory: Path) -> Coverage:
    """Note lines from now on, under no name."""
    include = [str(directory / pattern) for suite in SUITES for pattern in suite.files]
    coverage = Coverage(str(directory / TRACE), include=include, config_file=False, messages=False)
    coverage.start()
    return coverage


class Tracer:
    """Gives each test a name of its own, and takes its time."""

    def __init__(self) -> None:
        self._directory = Path.cwd()
        self._coverage = start(self._directory)
        self._seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """The lines of a test, of what it needs and of what it leaves behind."""
        self._coverage.switch_context(item.nodeid)
        result = yield
        self._coverage.switch_context("")
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """All its phases count."""
        self._seconds[report.nodeid] = self._seconds.get(report.nodeid, 0.0) + report.duration

    def pytest_sessionfinish(self) -> None:
        """Leave what was noted."""
        self._coverage.stop()
        self._coverage.save()
        (self._directory / SECONDS).write_text(json.dumps(self._seconds))


def pytest_configure(config: pytest.Config) -> None:
    """Begin."""
    config.pluginmanager.register(Tracer())
