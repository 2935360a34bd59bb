"""What is chosen to be compacted, over random layouts of tables: order by age is never broken.

A table here is its info and the numbers of the keys in it, so that results can be simulated without files.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.lsm import Compaction, Options
from kvstore.lsm.compaction import Choice, choose, everything
from kvstore.lsm.messages import TableInfo

TIERED = st.builds(
    Options,
    tier_tables=st.integers(2, 4),
    tier_ratio=st.sampled_from([1.0, 2.0, 10.0]),
    slow_tables=st.integers(4, 8),
)
LEVELED = st.builds(
    Options,
    compaction=st.just(Compaction.LEVELED),
    tier_tables=st.integers(2, 4),
    table_bytes=st.integers(1, 8),
    level_bytes=st.integers(1, 30),
    level_ratio=st.integers(2, 4),
)
LONG_RUNS = [
    Options(tier_tables=3),
    Options(compaction=Compaction.LEVELED, tier_tables=2, table_bytes=3, level_bytes=6, level_ratio=2),
]
KEYS = st.sets(st.integers(0, 30), min_size=1, max_size=10)


@dataclass
class Layout:
    """The tables of a store, and for each key in each of them the LSN of its newest write there."""

    options: Options
    tables: dict[int, TableInfo] = field(default_factory=dict)
    keys: dict[int, dict[int, int]] = field(default_factory=dict)
    lsn: int = 0
    number: int = 0
    running: list[Choice] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def add(self, keys: dict[int, int], level: int, last_lsn: int, size: int) -> None:
        self.number += 1
        low, high = bytes([min(keys)]), bytes([max(keys)])
        self.tables[self.number] = TableInfo(self.number, level, size, len(keys), 0, low, high, last_lsn)
        self.keys[self.number] = keys

    def flush(self, keys: set[int], size: int) -> None:
        self.lsn += len(keys)
        self.add(dict.fromkeys(keys, self.lsn), 0, self.lsn, size)

    @property
    def busy(self) -> set[int]:
        return {table.number for choice in self.running for table in choice.inputs}

    def begin(self) -> bool:
        """Begin one more compaction, if one is due."""
        choice = choose(list(self.tables.values()), self.busy, self.options)
        if choice is not None:
            assert not self.busy & {table.number for table in choice.inputs}, "a busy table was chosen"
            self.check(choice)
            self.running.append(choice)
            self.done["several at a time"] += len(self.running) > 1
        return choice is not None

    def check(self, choice: Choice) -> None:
        """Of two inputs with a key in common the later one is the newer; what is dropped hides nothing."""
        merged: dict[int, int] = {}
        for table in choice.inputs:
            for key, lsn in self.keys[table.number].items():
                assert lsn > merged.get(key, 0), "an older table comes after a newer one"
                merged[key] = lsn
        if choice.drop_deletions:
            rest = self.tables.keys() - {table.number for table in choice.inputs}
            for number in rest:
                older = [key for key, lsn in self.keys[number].items() if lsn < merged.get(key, 0)]
                assert not older, f"dropped deletions uncover {older}"

    def finish(self, i: int) -> None:
        """The result of one that runs, with every second key gone for good if it may drop deletions."""
        choice = self.running.pop(i % len(self.running))
        merged: dict[int, int] = {}
        for table in choice.inputs:
            merged |= self.keys.pop(table.number)
            del self.tables[table.number]
        if choice.drop_deletions:
            merged = {key: lsn for key, lsn in merged.items() if key % 2}
        last_lsn = max(table.last_lsn for table in choice.inputs)
        keys = sorted(merged)
        step = self.options.table_bytes if choice.level else len(keys) or 1
        for at in range(0, len(keys), step):
            part = {key: merged[key] for key in keys[at : at + step]}
            self.add(part, choice.level, last_lsn, len(part))
        self.done[f"to level {choice.level}"] += 1
        self.check_order()

    def check_order(self) -> None:
        """Deep levels do not overlap, and a lookup from top to bottom meets the newest write first."""
        tables = sorted(self.tables.values(), key=lambda table: (table.level, -table.last_lsn))
        for i, upper in enumerate(tables):
            for lower in tables[i + 1 :]:
                if upper.level == lower.level > 0:
                    assert not upper.meets(lower.smallest, lower.largest), "tables of a level overlap"
                mine, its = self.keys[upper.number], self.keys[lower.number]
                assert all(mine[key] > its[key] for key in mine.keys() & its.keys()), (
                    "an older write lies above"
                )


# most are flushes: layouts that are worth a choice have many tables
FLUSH = st.tuples(st.just("flush"), KEYS, st.sampled_from([1, 2, 8, 30]))
STEPS = st.lists(
    FLUSH
    | FLUSH
    | st.tuples(st.just("begin"), st.none(), st.none())
    | st.tuples(st.just("finish"), st.none(), st.integers(0, 3)),
    min_size=12,
    max_size=50,
)


def simulate(options: Options, steps: list[tuple[str, set[int] | None, int | None]]) -> Layout:
    layout = Layout(options)
    for step, keys, number in steps:
        if step == "flush":
            layout.flush(keys or {0}, number or 1)
        elif step == "begin":
            layout.begin()
        elif layout.running:
            layout.finish(number or 0)
    return layout


@given(LEVELED, STEPS)
def test_leveled_choices_keep_levels_apart_and_in_order(
    options: Options, steps: list[tuple[str, set[int] | None, int | None]]
) -> None:
    simulate(options, steps).check_order()


@given(TIERED, STEPS)
def test_tiered_choices_are_neighbours_in_age(
    options: Options, steps: list[tuple[str, set[int] | None, int | None]]
) -> None:
    layout = simulate(options, steps)
    layout.check_order()
    ages = sorted(layout.tables.values(), key=lambda table: table.last_lsn)
    for choice in layout.running:
        at = [ages.index(table) for table in choice.inputs]
        assert at == list(range(at[0], at[0] + len(at)))
        assert choice.level == 0
        assert len(choice.inputs) >= 2


@given(TIERED | LEVELED, TIERED | LEVELED, STEPS, STEPS)
def test_a_store_goes_over_from_one_kind_of_compaction_to_another(
    before: Options,
    after: Options,
    first: list[tuple[str, set[int] | None, int | None]],
    second: list[tuple[str, set[int] | None, int | None]],
) -> None:
    layout = simulate(before, first)
    layout.running.clear()  # the store is opened anew
    layout.options = after
    for step, keys, number in second:
        if step == "flush":
            layout.flush(keys or {0}, number or 1)
        elif step == "begin":
            layout.begin()
        elif layout.running:
            layout.finish(number or 0)
    layout.check_order()


def random_steps(rng: random.Random, count: int) -> list[tuple[str, set[int] | None, int | None]]:
    """Flushes of neighbouring keys mostly, so that some tables of a level do not meet."""
    steps: list[tuple[str, set[int] | None, int | None]] = []
    for _ in range(count):
        kind = rng.choice(["flush", "begin", "begin", "finish"])
        first = rng.randrange(28)
        keys = {rng.randrange(first, min(first + rng.choice([3, 12]), 31)) for _ in range(6)}
        steps.append((kind, keys if kind == "flush" else None, rng.choice([1, 2, 8, 30])))
    return steps


@pytest.mark.parametrize("options", [*LONG_RUNS], ids=lambda options: options.compaction.value)
def test_long_lives_of_a_store_keep_its_order(options: Options) -> None:
    """Far more tables than hypothesis makes: deep levels, several compactions at a time."""
    done: Counter[str] = Counter()
    for seed in range(40):
        done += simulate(options, random_steps(random.Random(seed), 200)).done
    levels = {"to level 0"} if options.compaction is Compaction.SIZE_TIERED else {"to level 1", "to level 3"}
    assert levels <= done.keys()
    assert done["several at a time"] > 20


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("options", [*LONG_RUNS], ids=lambda options: options.compaction.value)
def test_compactions_end_and_leave_writers_free(options: Options, seed: int) -> None:
    """When none is due any more, there are fewer overlapping tables than slow writers down.

    With sizes of which no neighbours are alike none was due, and writes were refused for ever.
    """
    layout = Layout(options)
    rng = random.Random(seed)
    for _ in range(options.max_tables):
        layout.flush({rng.randrange(31)}, rng.choice([1, 100, 10_000]))
    for _ in range(200):
        if layout.running:
            layout.finish(0)
        elif not layout.begin():
            break
    assert not layout.running
    assert not layout.begin(), "compactions go on for ever"
    assert sum(table.level == 0 for table in layout.tables.values()) < options.slow_tables


@given(TIERED | LEVELED, STEPS)
def test_everything_becomes_one_run(
    options: Options, steps: list[tuple[str, set[int] | None, int | None]]
) -> None:
    layout = simulate(options, steps)
    layout.running.clear()
    if layout.tables:
        choice = everything(list(layout.tables.values()), options)
        layout.check(choice)
        layout.running.append(choice)
        layout.finish(0)
        assert len({table.level for table in layout.tables.values()}) <= 1
        assert all(table.level for table in layout.tables.values()) or len(layout.tables) <= 1
