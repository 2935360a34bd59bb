"""The checks of the boundary, taken out one at a time: the test named beside each must fail then.

`make planted-boundary` runs all, `--check WORD` those with the word in their names (may be repeated). The
table is in tests/hostile/boundary_checks.py, and in docs/security.md.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from typing import NamedTuple

import pytest

from tests.hostile.boundary_checks import CHECKS, QUICK
from tests.hostile.names_of_tests import context, test_of
from tests.hostile.plants import Plant

_ARGS = (
    *("-q", "-x", "-p", "no:cacheprovider", "--timeout", "30"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
)

HONEST = (
    test_of("unit/test_quorum_requests", "the_limits_themselves_are_allowed"),
    context("what_one_node_gave_out_is_good_at_all_of_them_and_after_every_restart"),
)
"""These must not fail: else more than a check was taken out."""


class Run(NamedTuple):
    """How tests went: those that failed, and what pytest has said."""

    failed: tuple[str, ...]
    passed: int
    said: str
    seconds: float


class _Planting:
    """Plants when all tests are there: what they make of the program when they are loaded is as ever."""

    def __init__(self, patch: pytest.MonkeyPatch, plant: Plant) -> None:
        self._patch = patch
        self._plant = plant
        self.failed: list[str] = []
        self.passed = 0

    def pytest_collection_finish(self) -> None:
        self._plant(self._patch)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.failed:
            self.failed.append(report.nodeid)
        elif report.when == "call":
            self.passed += report.passed


def run(tests: Iterable[str], plant: Plant = lambda patch: None) -> Run:
    """Run tests, named as pytest names them, with a plant in place."""
    began, said = time.monotonic(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said):
        planting = _Planting(patch, plant)
        pytest.main([*_ARGS, *tests], plugins=[planting])
    return Run(tuple(planting.failed), planting.passed, said.getvalue(), time.monotonic() - began)


def _of(number: int) -> Run:
    check = CHECKS[number]
    return run([*HONEST, check.test], check.plant)


def _numbers(words: Sequence[str], quick: bool) -> list[int]:
    chosen = [i for i, c in enumerate(CHECKS) if not words or any(word in c.name for word in words)]
    return [i for i in chosen if not quick or CHECKS[i].name in QUICK]


def main() -> int:
    """Take out each check; how many nothing has caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.planted", description=__doc__)
    parser.add_argument("--check", action="append", default=[])
    parser.add_argument("--quick", action="store_true", help="only what `make test` runs")
    given = parser.parse_args()
    numbers = _numbers(given.check, given.quick)
    whole = run([*HONEST, *sorted({CHECKS[i].test for i in numbers})])
    if whole.failed or not whole.passed:
        print(f"these fail without a plant: {', '.join(whole.failed)}\n{whole.said}")
        return 1
    missed = 0
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        for i, found in zip(numbers, pool.map(_of, numbers), strict=True):
            check = CHECKS[i]
            caught = bool(found.failed) and not set(HONEST) & set(found.failed)
            missed += not caught
            how = check.test if caught else f"NOT CAUGHT by {check.test} alone\n{found.said}"
            print(f"{check.topic}: {check.name}: {found.seconds:.1f} s: {how}", flush=True)
    print(f"{len(numbers) - missed} of {len(numbers)} are caught")
    return missed


if __name__ == "__main__":
    sys.exit(main())
