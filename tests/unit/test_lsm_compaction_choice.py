"""What is chosen for compaction."""

from __future__ import annotations

import random

import pytest

from kvstore.lsm import Options
from kvstore.lsm.compaction import choose
from kvstore.lsm.messages import TableInfo


@pytest.mark.parametrize("ratio", [3, 10, 1000])
def test_tables_of_which_no_neighbours_are_alike_do_not_pile_up(ratio: int) -> None:
    """Opening again and again left small tables between large ones, and in the end no write was taken."""
    options = Options()
    rng = random.Random(ratio)
    tables: list[TableInfo] = []
    for number in range(1, 400):
        size = rng.randrange(1000, 1500) * (ratio if number % 2 else 1)
        tables.append(TableInfo(number, 0, size, 1, 0, b"a", b"z", number))
        while choice := choose(tables, (), options):
            merged, newest = sum(info.size for info in choice.inputs), choice.inputs[-1]
            at = tables.index(choice.inputs[0])
            assert tables[at : at + len(choice.inputs)] == list(choice.inputs), "not neighbours in age"
            tables[at : at + len(choice.inputs)] = [
                TableInfo(number, 0, merged, 1, 0, b"a", b"z", newest.last_lsn)
            ]
        assert len(tables) < options.slow_tables
