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
    assert cache.pin(2, 30)
    assert (cache.memory, cache.get(1, 2, Item), cache.get(1, 3, Item) is not None) == (100, None, True)
    assert not cache.pin(3, 21)
    assert cache.pin(3, 20)
    cache.forget(2)
    cache.forget(3)
    assert cache.memory == 50


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
