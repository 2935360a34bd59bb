"""Partitions that move under load, crashes and splits: nothing acknowledged is lost, no strict read stale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from kvstore.membership.tracker import Tracker
from kvstore.node.progress import Progress
from kvstore.quorum import placement
from kvstore.ring import ClusterState, Move, ReplicaSets, Step, replica_sets
from kvstore.sim.checker import Violation
from tests.sim.moves import MovesRun

Plant = Callable[[pytest.MonkeyPatch], None]
SEEDS = range(1, 25)
_SHARES = 2


@pytest.fixture(autouse=True)
def decided_by_the_script_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes do not tell each other how far they are: so none of them proposes a next step."""
    monkeypatch.setattr(Progress, "_tell", lambda _: None)


@pytest.mark.parametrize("share", range(_SHARES))
def test_partitions_move_under_load_and_nothing_is_lost(share: int) -> None:
    exercised: Counter[str] = Counter()
    for seed in SEEDS[share::_SHARES]:
        run = MovesRun(seed)
        try:
            exercised["checked"] += run.execute()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}")
        exercised += run.churn.counts + run.faults + run.outcomes
    for what in ("checked", "moves", "cancelled", "crash", "split", "lost frames", "read ok", "write ok"):
        assert exercised[what], f"no seed has exercised: {what}"
    assert exercised["moves"] >= len(SEEDS) / _SHARES, "a seed makes a whole move, or more"


def flip_before_proof(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Tracker, "_is_proven", lambda *_: True)


def _changed(patch: pytest.MonkeyPatch, change: Callable[[ReplicaSets, Move], ReplicaSets]) -> None:
    def changed(state: ClusterState, partition: int, n: int) -> ReplicaSets:
        sets, move = replica_sets(state, partition, n), state.move(partition)
        return sets if move is None else change(sets, move)

    patch.setattr(placement, "replica_sets", changed)


def w_of_the_old_list_alone(patch: pytest.MonkeyPatch) -> None:
    _changed(patch, lambda sets, _: sets._replace(written=sets.written[:1]))


def w_of_the_new_list_alone(patch: pytest.MonkeyPatch) -> None:
    _changed(patch, lambda sets, _: sets._replace(written=sets.written[-1:]))


def a_coming_replica_counted_in_a_read(patch: pytest.MonkeyPatch) -> None:
    def counted(sets: ReplicaSets, move: Move) -> ReplicaSets:
        if move.step is Step.WRITE_BOTH_READ_OLD:
            return sets._replace(read=move.new[: len(sets.read)])
        return sets

    _changed(patch, counted)


@pytest.mark.parametrize(
    ("plant", "likely"),
    [
        (flip_before_proof, 1),
        (w_of_the_old_list_alone, 36),
        (w_of_the_new_list_alone, 1),
        (a_coming_replica_counted_in_a_read, 5),
    ],
)
def test_a_planted_defect_of_moves_is_found(
    plant: Plant, likely: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By some of the seeds, which hold without it; which one, any change of what nodes send may change."""
    plant(monkeypatch)
    seeds = [likely, *SEEDS]
    assert any(_fails(seed) for seed in seeds), f"{plant.__name__} is not found any more"


def _fails(seed: int) -> bool:
    try:
        MovesRun(seed).execute()
    except Violation:
        return True
    return False
