"""Lookups: what the cache keeps for tables, and blocks that are searched before their keys are decoded."""

from __future__ import annotations

import pytest

from kvstore.lsm import Engine, MemoryFileSystem, Options
from kvstore.lsm.block import DataBlock, encode_entries
from kvstore.lsm.cache import BlockCache

KEYS = [b"k%03d" % i for i in range(100)]


class Item:
    memory = 10


def test_what_is_pinned_counts_and_makes_room_but_takes_no_more_than_half() -> None:
    cache = BlockCache(100)
    for offset in range(10):
        cache.put(1, offset, Item())
    assert cache.pin(2, 0, 30)
    assert (cache.memory, cache.get(1, 2, Item), cache.get(1, 3, Item) is not None) == (100, None, True)
    assert not cache.pin(3, 0, 21)
    assert cache.pin(3, 0, 20)
    cache.forget(2)
    cache.forget(3)
    assert cache.memory == 50


def test_what_was_kept_is_counted_once_when_it_is_pinned() -> None:
    cache = BlockCache(100)
    cache.put(1, 7, Item())
    assert cache.pin(1, 7, 10)
    assert (cache.memory, cache.get(1, 7, Item)) == (10, None)


def test_a_tables_index_and_filter_are_at_hand_once_there_is_room_for_them() -> None:
    engine = Engine.open(MemoryFileSystem(), "d", Options(block_bytes=100, cache_bytes=2_800))
    for part in range(2):
        engine.write([(key + b"%d" % part, b"") for key in KEYS])
        engine.flush()
    tables = list(engine.tables.levels)
    assert all(table.holds_hash for table in tables)
    engine.maintenance.compact()
    (table,) = engine.tables.levels
    assert not table.holds_hash, "those of its inputs took the room when it was opened"
    assert engine.get(KEYS[0] + b"0") == b""
    assert table.holds_hash
    engine.close()


def test_a_table_that_was_replaced_takes_no_part_of_the_cache_again() -> None:
    engine = Engine.open(MemoryFileSystem(), "d", Options(block_bytes=100, cache_bytes=2_000))
    for part in range(3):
        engine.write([(key + b"%d" % part, b"") for key in KEYS])
        engine.flush()
    assert [bool(table.holds_hash) for table in engine.tables.levels] == [True, True, False]
    with engine.snapshot() as snapshot:
        engine.maintenance.compact()
        before = engine.statistics().cache_bytes
        assert all(snapshot.get(key + b"2") == b"" for key in KEYS)
        assert list(snapshot.scan())
        assert engine.statistics().cache_bytes == before
    engine.close()


@pytest.mark.parametrize("cache_bytes", [1, 2_000, 1_000_000])
def test_lookups_do_not_depend_on_what_the_cache_can_hold(cache_bytes: int) -> None:
    options = Options(block_bytes=100, cache_bytes=cache_bytes)
    engine = Engine.open(MemoryFileSystem(), "d", options)
    for round_ in range(3):
        engine.write([(key, b"%d" % round_) for key in KEYS[round_:]])
        engine.flush()
    for _ in range(2):
        assert [engine.get(key) for key in KEYS] == [b"0", b"1", *[b"2"] * 98]
        assert [engine.get(key + b"-") for key in KEYS] == [None] * 100
    assert engine.statistics().cache_bytes <= max(cache_bytes, 0)
    engine.close()


def test_a_block_answers_the_same_before_and_after_its_keys_are_decoded() -> None:
    values = [None if i % 7 == 0 else b"v%d" % i for i in range(100)]
    block = DataBlock(encode_entries(KEYS, values))
    for _ in range(3):
        assert [block.get(key, b"absent") for key in KEYS] == values
        assert block.get(b"", b"absent") == block.get(b"k0005", b"absent") == block.get(b"z", b"absent")
    assert block.keys() == KEYS
    assert block.values(0, 100) == values
