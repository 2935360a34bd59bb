"""What `make planted-boundary` takes out: its table is of the program as it is, and a few of it are run."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.hostile.boundary_checks import CHECKS, QUICK
from tests.hostile.plants import Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_each_check_is_still_where_it_is_taken_out(check: Check) -> None:
    with pytest.MonkeyPatch.context() as patch:
        check.plant(patch)


def test_a_few_are_taken_out_and_caught() -> None:
    command = [sys.executable, "-m", "tests.hostile.planted", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(QUICK)} of {len(QUICK)} are caught" in done.stdout


def test_at_least_thirty_are_taken_out_each_by_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS) >= 30
