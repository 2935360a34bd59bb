"""Whole runs of the simulator: seeds hold, repeat exactly, and catch what is planted."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

from kvstore.sim.__main__ import main
from kvstore.sim.checker import Checker, Violation
from kvstore.sim.run import Plan, Report, run_seed, try_plan
from kvstore.sim.shape import nodes_of
from tests.sim import planted


@pytest.mark.parametrize("seed", range(3, 9))
def test_a_seed_holds_and_exercises_something(seed: int) -> None:
    exercised_by(seed)


def exercised_by(seed: int) -> Report:
    report = run_seed(seed, nodes_of(seed))
    assert report.checked > 0
    assert report.faults
    assert report.operations["write ok"]
    assert report.operations["read ok"]
    return report


def test_seeds_hold_and_take_the_same_course_in_another_process_with_another_hash_seed() -> None:
    """One of three nodes, and one of five."""
    assert (nodes_of(1), nodes_of(2)) == (3, 5)
    here = [exercised_by(seed).trace for seed in (1, 2)]
    assert here[0] != here[1], "another seed takes another course"
    assert _traces("4711") == here


def _traces(hash_seed: str) -> list[str]:
    script = (
        "from kvstore.sim.run import run_seed; from kvstore.sim.shape import nodes_of\n"
        "for seed in (1, 2): print(run_seed(seed, nodes_of(seed)).trace)"
    )
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_failing_seed_prints_the_command_that_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*_: object) -> int:
        raise Violation("planted")

    monkeypatch.setattr(Checker, "check", planted)
    result = CliRunner().invoke(main, ["--count", "2", "--nodes", "3", "--time", "2.5", "--processes", "1"])
    assert result.exit_code == 1
    command = re.search(r"replay: make (sim SEED=(\d+) NODES=3 TIME=2.5)", result.output)
    assert command, result.output
    dry_run = ["make", "--no-print-directory", "-n", *command[1].split()]
    made = subprocess.run(dry_run, capture_output=True, text=True, check=True)
    words = made.stdout.partition("kvstore.sim ")[2].replace("\\\n", " ").split()
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1
    assert f"seed {command[2]} failed: planted" in again.output


def test_a_run_that_exercised_nothing_fails() -> None:
    assert try_plan(Plan(1, 3, 0.0)) == "this run exercised nothing"


def test_a_kind_of_fault_that_no_run_has_seen_fails_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.sim.__main__._ENOUGH", 1)
    result = CliRunner().invoke(main, ["--seed", "1", "--time", "2"])
    assert result.exit_code == 1
    assert "nothing exercised: " in result.output


def test_a_report_says_what_was_exercised() -> None:
    result = CliRunner().invoke(main, ["--seed", "5", "--time", "4"])
    assert result.exit_code == 0, result.output
    for part in ("virtual cluster-hours", "times real time", "crashes", "operations:", "faults:", "write ok"):
        assert part in result.output


@pytest.mark.parametrize(
    ("plant", "seed"),
    [
        (planted.ack_before_fsync, 1),
        (planted.actor_not_renewed_after_a_crash, 1),
        (planted.a_put_returns_a_context_that_covers_unseen_siblings, 1),
        (planted.a_write_overwrites_what_it_did_not_see, 1),
        (planted.frames_of_peers_not_checked, 4),
        (planted.dots_reused_after_a_wipe, 1),
        (planted.hint_deleted_before_its_ack, 2),
        (planted.corrupt_read_as_not_found, 1),
        (planted.reads_of_a_session_like_any_other, 9),
        (planted.the_clocks_of_others_believed, 1),
        (planted.a_write_repeated_after_an_unknown_outcome, 1),
        (planted.fence_lifted_after_one_answer, 12),
        (planted.fetched_versions_written_at_once, 12),
        (planted.actors_not_renewed_after_a_refetch, 12),
        (planted.frames_as_large_as_the_queue, 2),
        (planted.hint_deleted_although_it_has_changed, 50),
    ],
)
def test_a_planted_defect_is_caught(plant: planted.Plant, seed: int) -> None:
    """With the seeds that `make planted` has found."""
    assert planted.first_violation(plant, seed, seed) is not None, f"{plant.__name__} is not caught any more"
