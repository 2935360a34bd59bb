"""Whole runs of the simulator: seeds hold, repeat exactly, and catch what is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from kvstore.quorum.actors import Actors
from kvstore.quorum.coordinator import Coordinator
from kvstore.quorum.durability import Durability
from kvstore.quorum.merkle import Trees
from kvstore.quorum.read import ReadOperation
from kvstore.quorum.reap import Reaper
from kvstore.quorum.replica import Replica
from kvstore.sim.run import Report, run_seed, try_seed


@pytest.mark.parametrize("seed", range(1, 21))
def test_a_seed_holds_and_exercises_something(seed: int) -> None:
    report = run_seed(seed, 3 if seed % 2 else 5)
    assert report.checked > 0
    assert report.faults
    assert report.operations["write ok"]
    assert report.operations["read ok"]


def test_the_same_seed_takes_the_same_course_in_another_process_with_another_hash_seed() -> None:
    traces = {_trace(hash_seed) for hash_seed in ("0", "1", "4711")}
    assert traces == {run_seed(7, 3).trace}


def _trace(hash_seed: str) -> str:
    script = "from kvstore.sim.run import run_seed; print(run_seed(7, 3).trace)"
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_another_seed_takes_another_course() -> None:
    assert run_seed(7, 3).trace != run_seed(9, 3).trace


Plant = Callable[[pytest.MonkeyPatch], None]


def _ack_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """BUGS 15, etcd#14370."""
    patch.setattr(Durability, "after", lambda self, lsn, action: action())


def _actor_not_renewed_after_a_crash(patch: pytest.MonkeyPatch) -> None:
    """BUGS 2, riak_kv#679."""
    patch.setattr(Actors, "_name", lambda self, partition, generation: f"{self._node}.{partition}")


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
        lambda self, request, version: Stored(encode_context(version.context, request.token), 1),
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

    def apply(self: Replica, key: bytes, incoming: bytes) -> int:
        current = self.read(key)
        result = self.combine(key, current, incoming)
        return self.unsynced(key) if result == current else self.write([(key, result)])

    patch.setattr(Replica, "apply", apply)


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
    patch.setattr(Reaper, "_is_mine", lambda self, key: self._core.name in self._primaries(key))


def _first_violation(seeds: int) -> str | None:
    for seed in range(1, seeds + 1):
        outcome = try_seed(seed, 3 if seed % 2 else 5)
        if not isinstance(outcome, Report):
            return outcome
    return None


@pytest.mark.parametrize(
    "plant",
    [
        _ack_before_fsync,
        _actor_not_renewed_after_a_crash,
        _repair_without_waiting,
        _a_put_returns_a_context_that_covers_unseen_siblings,
        _a_write_overwrites_what_it_did_not_see,
        _a_leaf_not_updated_by_replica_writes,
        _a_leaf_not_updated_by_the_coordinator,
        _an_old_hash_left_in_its_leaf,
        _reaping_by_timer_alone,
    ],
)
def test_a_planted_defect_is_caught(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    assert _first_violation(20) is not None, f"{plant.__name__} was not caught by 20 seeds"
