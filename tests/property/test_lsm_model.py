"""The engine against a plain dict: in any order of steps, and under any options alike."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kvstore.lsm import Fate
from tests.conftest import Exercised
from tests.property.lsm_model import OPTION_SETS, Batch, Pair

# few keys, so that they meet; among them the empty one, prefixes of each other, and the end of the range
KEY_LIST = [
    b"",
    b"\0",
    b"\xff",
    b"\xff\xff",
    *(b"%c%c" % (a, b) for a in b"abc" for b in b"xyz\xff"),
    b"a",
    b"b",
]
KEYS = st.sampled_from(KEY_LIST)
ENDS = st.none() | KEYS
VALUES = st.none() | st.binary(max_size=8) | st.integers(0, 255).map(lambda i: bytes([i]) * 300)
BATCHES = st.lists(st.tuples(KEYS, VALUES), max_size=6)
INDEX = st.integers(0, 7)


class EngineBesideDict(RuleBasedStateMachine):
    done: ClassVar[Counter[str]] = Counter()

    @initialize(options=st.sampled_from(sorted(OPTION_SETS)))
    def begin(self, options: str) -> None:
        self.pair = Pair(OPTION_SETS[options])

    @rule(batches=st.lists(BATCHES, max_size=6))
    def write(self, batches: list[Batch]) -> None:
        for batch in batches:
            self.pair.write(batch)

    @rule()
    def sync(self) -> None:
        self.pair.sync()

    @rule()
    def begin_sync(self) -> None:
        self.pair.begin_sync()

    @precondition(lambda self: self.pair.syncing)
    @rule()
    def finish_sync(self) -> None:
        self.pair.finish_sync()

    @rule()
    def take_jobs(self) -> None:
        self.pair.take_jobs()

    @precondition(lambda self: self.pair.waiting)
    @rule(i=INDEX)
    def run_job(self, i: int) -> None:
        self.pair.run_job(i)

    @precondition(lambda self: self.pair.results)
    @rule(i=INDEX)
    def finish_job(self, i: int) -> None:
        self.pair.finish_job(i)

    @rule(i=INDEX)
    def fail_job(self, i: int) -> None:
        self.pair.take_jobs()
        self.pair.fail_job(i)

    @rule()
    def catch_up(self) -> None:
        self.pair.catch_up()

    @rule(everything=st.booleans())
    def flush(self, everything: bool) -> None:
        self.pair.flush()
        if everything:
            self.pair.compact()

    @rule(fate=st.none() | st.sampled_from(Fate), seed=st.integers(0, 99))
    def end(self, fate: Fate | None, seed: int) -> None:
        """One rule for all ends, or snapshots and scans would never grow old."""
        if fate:
            self.pair.crash(fate, seed)
        else:
            self.pair.reopen()

    @rule()
    def checkpoint(self) -> None:
        self.pair.checkpoint()

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        self.pair.check_get(key)

    @rule(start=KEYS, end=ENDS, reverse=st.booleans())
    def scan(self, start: bytes, end: bytes | None, reverse: bool) -> None:
        self.pair.check_scan(start, end, reverse)

    @rule(prefix=st.sampled_from([b"", b"a", b"b", b"a\xff", b"\xff"]), reverse=st.booleans())
    def scan_prefix(self, prefix: bytes, reverse: bool) -> None:
        self.pair.check_prefix(prefix, reverse)

    @rule(start=KEYS, end=ENDS, reverse=st.booleans(), count=st.integers(1, 6))
    def hold(self, start: bytes, end: bytes | None, reverse: bool, count: int) -> None:
        """A snapshot, and a scan that is left half read."""
        self.pair.hold_snapshot()
        self.pair.begin_scan(start, end, reverse)
        self.pair.go_on_scanning(-1, count)

    @invariant()
    def snapshots_stand_still(self) -> None:
        for i in range(len(self.pair.snapshots)):
            self.pair.check_snapshot(i, b"", None, reverse=i % 2 == 1)

    @precondition(lambda self: self.pair.snapshots)
    @rule(i=INDEX, start=KEYS, end=ENDS, reverse=st.booleans())
    def read_snapshot(self, i: int, start: bytes, end: bytes | None, reverse: bool) -> None:
        self.pair.check_snapshot(i, start, end, reverse)

    @precondition(lambda self: self.pair.snapshots)
    @rule(i=INDEX)
    def close_snapshot(self, i: int) -> None:
        self.pair.close_snapshot(i)

    @precondition(lambda self: self.pair.scans)
    @rule(i=INDEX, count=st.integers(1, 6))
    def go_on_scanning(self, i: int, count: int) -> None:
        self.pair.go_on_scanning(i, count)

    def teardown(self) -> None:
        if hasattr(self, "pair"):
            self.pair.check_scan(b"", None, False)
            self.pair.reopen()
            self.pair.check_scan(b"", None, True)
            self.done.update(self.pair.done)


def test_the_engine_is_a_dict_that_survives(exercised: Exercised) -> None:
    EngineBesideDict.done.clear()
    run_state_machine_as_test(EngineBesideDict, settings=settings(stateful_step_count=60))
    for name, count in EngineBesideDict.done.items():
        exercised(f"engine beside a dict: {name}", count)
    assert EngineBesideDict.done["CompactionJob"]
    assert EngineBesideDict.done["snapshot read"]


# the same steps under other options

Step = Callable[[Pair, random.Random], object]


def _key(rng: random.Random) -> bytes:
    return rng.choice(KEY_LIST)


def _end(rng: random.Random) -> bytes | None:
    return None if rng.random() < 0.3 else _key(rng)


def _batch(rng: random.Random) -> Batch:
    return [
        (_key(rng), None if rng.random() < 0.3 else rng.randbytes(rng.choice([0, 3, 200])))
        for _ in range(rng.randrange(7))
    ]


def _synced_crash(pair: Pair, rng: random.Random) -> None:
    """Before a sync the options decide what a crash leaves."""
    pair.sync()
    pair.crash(rng.choice(list(Fate)), rng.randrange(100))


def _reverse(rng: random.Random) -> bool:
    return rng.random() < 0.5


STEPS: list[tuple[int, Step]] = [
    (30, lambda pair, rng: pair.write(_batch(rng))),
    (10, lambda pair, rng: pair.check_get(_key(rng))),
    (5, lambda pair, rng: pair.check_scan(_key(rng), _end(rng), _reverse(rng))),
    (5, lambda pair, rng: pair.check_prefix(_key(rng)[:1], _reverse(rng))),
    (4, lambda pair, rng: pair.begin_sync()),
    (4, lambda pair, rng: pair.finish_sync()),
    (6, lambda pair, rng: pair.take_jobs()),
    (8, lambda pair, rng: pair.run_job(rng.randrange(8))),
    (8, lambda pair, rng: pair.finish_job(rng.randrange(8))),
    (2, lambda pair, rng: pair.fail_job(rng.randrange(8))),
    (3, lambda pair, rng: pair.hold_snapshot()),
    (6, lambda pair, rng: pair.check_snapshot(rng.randrange(8), _key(rng), _end(rng), _reverse(rng))),
    (2, lambda pair, rng: pair.close_snapshot(rng.randrange(8))),
    (3, lambda pair, rng: pair.begin_scan(_key(rng), _end(rng), _reverse(rng))),
    (6, lambda pair, rng: pair.go_on_scanning(rng.randrange(8), rng.randrange(1, 6))),
    (1, lambda pair, rng: pair.flush()),
    (1, lambda pair, rng: pair.compact()),
    (1, lambda pair, rng: pair.reopen()),
    (1, lambda pair, rng: pair.checkpoint()),
    (1, _synced_crash),
]


def answers(options: str, seed: int, steps: int = 250) -> list[object]:
    """Each step draws from its own source: how many draws one takes must not change the next."""
    pair = Pair(OPTION_SETS[options])
    chosen = random.Random(seed).choices([s for _, s in STEPS], [w for w, _ in STEPS], k=steps)
    found = [step(pair, random.Random(f"{seed}/{i}")) for i, step in enumerate(chosen)]
    return [*found, pair.check_scan(b"", None, False)]


def check_alike(seed: int) -> int:
    """Take the steps of a seed under every option set; returns how many were taken."""
    usual = answers("as shipped", seed)
    for options in OPTION_SETS:
        assert answers(options, seed) == usual, options
    return len(usual) * len(OPTION_SETS)


@pytest.mark.parametrize("seed", range(12))
def test_the_same_steps_give_the_same_answers_under_all_options(seed: int, exercised: Exercised) -> None:
    assert len(OPTION_SETS) >= 10
    exercised("steps taken alike under all option sets", check_alike(seed))
