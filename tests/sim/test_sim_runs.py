"""Whole runs of the simulator: seeds hold, repeat exactly, and catch what is planted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from kvstore.quorum.actors import Actors
from kvstore.quorum.coordinator import Coordinator
from kvstore.quorum.durability import Durability
from kvstore.quorum.merkle import Trees
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.reap import Reaper
from kvstore.quorum.replica import Changes, Replica
from kvstore.sim.__main__ import main
from kvstore.sim.checker import Checker, Violation
from kvstore.sim.host import Host
from kvstore.sim.run import Plan, Report, run_seed, try_plan
from kvstore.versions import Dot


@pytest.mark.parametrize("seed", range(1, 21))
def test_a_seed_holds_and_exercises_something(seed: int) -> None:
    report = run_seed(seed, 3 if seed % 2 else 5)
    assert report.checked > 0
    assert report.faults
    assert report.operations["write ok"]
    assert report.operations["read ok"]


SEEDS = range(1, 11)
SHORT = 6.0


def test_ten_seeds_take_the_same_course_in_another_process_with_another_hash_seed() -> None:
    here = [run_seed(seed, 3 if seed % 2 else 5, SHORT).trace for seed in SEEDS]
    assert len(set(here)) == len(SEEDS), "another seed takes another course"
    assert _traces("4711") == here


def _traces(hash_seed: str) -> list[str]:
    script = (
        "from kvstore.sim.run import run_seed\n"
        f"for seed in {list(SEEDS)}: print(run_seed(seed, 3 if seed % 2 else 5, {SHORT}).trace)"
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
    result = CliRunner().invoke(main, ["--seed", "2", "--time", "10"])
    assert result.exit_code == 0, result.output
    for part in ("virtual cluster-hours", "times real time", "crashes", "operations:", "faults:", "write ok"):
        assert part in result.output


Plant = Callable[[pytest.MonkeyPatch], None]


def _ack_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """BUGS 15, etcd#14370."""
    patch.setattr(Durability, "after", lambda self, lsn, action: action())


def _actor_not_renewed_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2, riak_kv#679."""
    patch.setattr(Actors, "_name", lambda self, partition, generation: f"{self._node}.{partition}")


def _dots_reused_after_a_wipe(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2: counters that survive every crash, but not the loss of the disk."""
    counters: Counter[str] = Counter()
    wipe = Host.wipe

    def mint(self: Actors, partition: int) -> Dot:
        counters[self._node] += 1
        return Dot(f"{self._node}.{partition}", counters[self._node])

    def forget(self: Host) -> None:
        counters[self.name] = 0
        wipe(self)

    patch.setattr(Actors, "mint", mint)
    patch.setattr(Host, "wipe", forget)


def _repair_without_waiting(patch: pytest.MonkeyPatch) -> None:
    """BUGS 6: reads that go back in time."""
    evaluate = ReadOperation._evaluate

    def reply_at_once(self: ReadOperation) -> None:
        evaluate(self)
        if self.respond is not None and len(self.answers) >= self.request.required:
            result = b""
            for version in self.answers.values():
                result = self.core.replica.combine(self.request.key, result, version)
            self._reply(result)

    patch.setattr(ReadOperation, "_evaluate", reply_at_once)


def _a_put_returns_a_context_that_covers_unseen_siblings(patch: pytest.MonkeyPatch) -> None:
    from kvstore.quorum.messages import Stored
    from kvstore.versions import encode_context

    patch.setattr(
        Coordinator,
        "_stored",
        lambda self, request, version, _: Stored(encode_context(version.context, request.token), 1),
    )


def _a_write_overwrites_what_it_did_not_see(patch: pytest.MonkeyPatch) -> None:
    """BUGS 1: what last-write-wins does."""
    from kvstore.quorum import coordinator
    from kvstore.versions import CausalContext, Sibling, Version, join, write

    def overwrite(current: Version, seen: CausalContext, sibling: Sibling) -> Version:
        return write(current, join(seen, current.context), sibling)

    patch.setattr(coordinator, "write", overwrite)


def _a_leaf_not_updated_by_replica_writes(patch: pytest.MonkeyPatch) -> None:
    """BUGS 18: the tree says equal, or different, and is wrong."""

    def replace_all(self: Replica, changes: Changes) -> int:
        return self.write([(key, new) for key, (_, new) in changes.items()])

    patch.setattr(Replica, "replace_all", replace_all)


def _a_leaf_not_updated_by_the_coordinator(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        Replica, "replace", lambda self, key, old, new, others=(): self.write([(key, new), *others])
    )


def _an_old_hash_left_in_its_leaf(patch: pytest.MonkeyPatch) -> None:
    update = Trees.update
    patch.setattr(Trees, "update", lambda self, key, old, new: update(self, key, b"", new))


def _reaping_by_timer_alone(patch: pytest.MonkeyPatch) -> None:
    """BUGS 11: every replica forgets its tombstones by itself when they are old enough."""
    patch.setattr(Reaper, "_everyone", lambda self: ())
    patch.setattr(Reaper, "_is_mine", lambda self, key: self._core.name in self._core.primaries(key))


def _reads_of_a_session_like_any_other(patch: pytest.MonkeyPatch) -> None:
    """BUGS 6, where R + W is not above N."""
    patch.setattr(ReadOperation, "_has_seen", lambda self, result: True)


def _first_violation(seeds: int) -> str | None:
    for seed in range(1, seeds + 1):
        outcome = try_plan(Plan(seed, 3 if seed % 2 else 5))
        if not isinstance(outcome, Report):
            return outcome
    return None


@pytest.mark.parametrize(
    "plant",
    [
        _ack_before_fsync,
        _actor_not_renewed_after_a_crash,
        _dots_reused_after_a_wipe,
        _repair_without_waiting,
        _a_put_returns_a_context_that_covers_unseen_siblings,
        _a_write_overwrites_what_it_did_not_see,
        _a_leaf_not_updated_by_replica_writes,
        _a_leaf_not_updated_by_the_coordinator,
        _an_old_hash_left_in_its_leaf,
        _reaping_by_timer_alone,
        _reads_of_a_session_like_any_other,
    ],
)
def test_a_planted_defect_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert _first_violation(20) is not None, f"{plant.__name__} was not caught by 20 seeds"
