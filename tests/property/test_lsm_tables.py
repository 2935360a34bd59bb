"""Blocks, tables, levels and the merge of runs, each against the dict that it stands for."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.lsm import Compaction, MemoryFileSystem, Options
from kvstore.lsm.block import DataBlock, encode_entries, seal, unseal
from kvstore.lsm.bloom import hash_key
from kvstore.lsm.cache import BlockCache
from kvstore.lsm.levels import Levels
from kvstore.lsm.memtable import ABSENT
from kvstore.lsm.merge import Chunk, merge, without_deletions
from kvstore.lsm.messages import TableInfo
from kvstore.lsm.sstable_writer import write_tables
from kvstore.lsm.table import Table
from kvstore.lsm.table_file import TableFile
from tests.property.lsm_tables import (
    CONTENTS,
    FULL_CONTENTS,
    KEYS,
    SIZES,
    VALUES,
    chunked,
    entries,
    within,
)

Content = dict[bytes, bytes | None]
RUNS = st.lists(st.tuples(CONTENTS, SIZES), max_size=5)
OPTIONS = st.builds(
    Options,
    block_bytes=st.sampled_from([1, 8, 40, 8192]),
    table_bytes=st.sampled_from([1, 300, 1 << 20]),
    cache_bytes=st.sampled_from([0, 500, 1 << 20]),
    false_positive_rate=st.sampled_from([0.01, 0.9]),
)


def united(newest_first: Iterable[Content]) -> Content:
    """The dumb merge."""
    result: Content = {}
    for content in reversed(list(newest_first)):
        result.update(content)
    return result


# merge


@given(RUNS, st.booleans())
def test_a_merge_is_what_dicts_put_over_one_another_are(
    runs: list[tuple[Content, list[int]]], reverse: bool
) -> None:
    merged = merge((chunked(content, sizes, reverse) for content, sizes in runs), reverse)
    expected = united(content for content, _ in runs)
    assert entries(merged, reverse) == within(expected, b"", None, reverse)


@given(RUNS)
def test_without_deletions_the_rest_stays(runs: list[tuple[Content, list[int]]]) -> None:
    found = entries(without_deletions(merge(chunked(content, sizes) for content, sizes in runs)))
    expected = united(content for content, _ in runs)
    assert found == [entry for entry in within(expected, b"", None) if entry[1] is not None]


@given(RUNS, st.integers(0, 3))
def test_a_merge_reads_no_further_than_it_is_asked(runs: list[tuple[Content, list[int]]], asked: int) -> None:
    """What a scan costs is what it reads: one chunk of each run ahead."""
    taken = 0

    def counted(chunks: Iterable[Chunk]) -> Iterable[Chunk]:
        nonlocal taken
        for chunk in chunks:
            taken += 1
            yield chunk

    merged = merge(iter(counted(chunked(content, sizes))) for content, sizes in runs)
    got = sum(1 for _ in zip(range(asked), merged, strict=False))
    assert taken <= len(runs) * (got + 1)


# blocks


@given(CONTENTS.filter(bool), st.lists(KEYS, max_size=5))
def test_a_block_holds_what_was_put_in(content: Content, others: list[bytes]) -> None:
    keys = sorted(content)
    values = [content[key] for key in keys]
    data = unseal(seal(encode_entries(keys, values)))
    for warm in (False, True):
        for key in [*keys, *others]:
            block = DataBlock(data)
            if warm:
                block.get(b"", ABSENT)
            assert block.get(key, ABSENT) == content.get(key, ABSENT)
            assert (block.get(key, ABSENT) is ABSENT) == (key not in content)
    block = DataBlock(data)
    assert block.keys() == keys
    assert len(block) == len(keys)
    for first in range(len(keys)):
        assert block.values(first, len(keys)) == values[first:]
        assert block.values(0, first) == values[:first]


@given(st.binary(max_size=300) | st.integers(0, 5000).map(bytes))
def test_a_sealed_block_opens_to_what_it_was(payload: bytes) -> None:
    assert unseal(seal(payload)) == payload


# tables


def written(fs: MemoryFileSystem, content: Content, sizes: list[int], options: Options) -> list[TableInfo]:
    count = len(content)
    return list(write_tables(fs, "d", range(count), chunked(content, sizes), 1, 7, count, options))


@given(FULL_CONTENTS, SIZES, OPTIONS, st.lists(st.tuples(KEYS, st.none() | KEYS), max_size=6))
def test_tables_hold_what_was_written_over_any_sizes(
    content: Content, sizes: list[int], options: Options, ranges: list[tuple[bytes, bytes | None]]
) -> None:
    fs = MemoryFileSystem()
    infos = written(fs, content, sizes, options)
    cache = BlockCache(options.cache_bytes)
    found: Content = {}
    for info in infos:
        table = Table(TableFile(fs, "d", info), cache)
        part = dict(entries(table.chunks(b"", None)))
        check_info(table, part)
        check_reads(table, part, content, ranges)
        check_reads(Table(TableFile(fs, "d", info), None), part, content, ranges)
        assert not found.keys() & part.keys()
        found |= part
    assert found == content
    assert cache.memory <= options.cache_bytes


def check_info(table: Table, part: Content) -> None:
    info, keys = table.info, sorted(part)
    assert (info.entries, info.deletions) == (len(part), list(part.values()).count(None))
    assert (info.smallest, info.largest, info.last_lsn, info.level) == (keys[0], keys[-1], 7, 1)
    assert table.file.properties.entries == info.entries
    assert [key for _, _, key in table.file.read_index().places()][-1] == keys[-1]


def check_reads(
    table: Table, part: Content, others: Content, ranges: list[tuple[bytes, bytes | None]]
) -> None:
    for key in others:
        found = table.get(key, hash_key(key), ABSENT)
        assert found is ABSENT if key not in part else found == part[key]
    # ends that are keys, of which some are the last of a block
    own = sorted(others)[-1:] + sorted(part)[-1:] + sorted(part)[:2]
    for start, end in [*ranges, *product([b"", *own], own)]:
        assert entries(table.chunks(start, end)) == within(part, start, end)
        assert entries(table.chunks(start, end, True), True) == within(part, start, end, True)


@given(FULL_CONTENTS, SIZES, st.integers(1, 5))
def test_there_are_no_more_tables_than_numbers(content: Content, sizes: list[int], most: int) -> None:
    fs = MemoryFileSystem()
    options = Options(table_bytes=1, block_bytes=1)
    infos = write_tables(fs, "d", range(most), chunked(content, sizes), 1, 7, len(content), options)
    assert len(infos) <= most
    assert [info.number for info in infos] == list(range(len(infos)))
    assert all(a.largest < b.smallest for a, b in pairwise(infos))
    found = [e for info in infos for e in entries(Table(TableFile(fs, "d", info), None).chunks(b"", None))]
    assert found == within(content, b"", None)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_decodes_few_entries_at_first(reverse: bool) -> None:
    fs = MemoryFileSystem()
    content: Content = {b"%03d" % i: b"v%d" % i if i % 10 else None for i in range(0, 1000, 2)}
    (info,) = written(fs, content, [100], Options(block_bytes=600))
    table = Table(TableFile(fs, "d", info), BlockCache(1 << 20))
    per_block = len(content) // sum(1 for _ in table.file.read_index().places())
    assert 50 < per_block < 120
    ends = [b"%03d" % i for i in range(0, 1000, 41)]
    for start, end in [(start, end) for start in (b"", *ends) for end in (None, *ends)]:
        found = list(table.chunks(start, end, reverse))
        assert entries(found, reverse) == within(content, start, end, reverse)
        assert not found or len(found[0][0]) <= 16


def test_of_nothing_there_is_no_table() -> None:
    fs = MemoryFileSystem()
    assert write_tables(fs, "d", [1], iter(()), 0, 7, 0, Options()) == ()
    assert fs.list("d") == []


# levels


@given(
    st.lists(FULL_CONTENTS, max_size=4),
    st.lists(FULL_CONTENTS, max_size=3),
    st.sampled_from([1, 200, 1 << 20]),
    st.lists(st.tuples(KEYS, st.none() | KEYS), max_size=5),
)
def test_levels_answer_as_their_tables_put_over_one_another(
    flushed: list[Content], deep: list[Content], table_bytes: int, ranges: list[tuple[bytes, bytes | None]]
) -> None:
    """`flushed` from the oldest, `deep` from level 1 down, each split into tables."""
    levels = Levels(_laid_out(MemoryFileSystem(), flushed, deep, table_bytes))
    newest_first = [*reversed(flushed), *deep]
    expected = united(newest_first)
    for key in [*expected, b"never"]:
        value = levels.get(key, ABSENT)
        assert value is ABSENT if key not in expected else value == expected[key]
    for start, end in [(b"", None), *ranges]:
        for reverse in (False, True):
            runs = levels.runs(start, end, reverse)
            assert len(runs) <= len(newest_first)
            assert entries(merge(runs, reverse), reverse) == within(expected, start, end, reverse)


def _laid_out(
    fs: MemoryFileSystem, flushed: list[Content], deep: list[Content], table_bytes: int
) -> list[Table]:
    options = Options(block_bytes=16, table_bytes=table_bytes, compaction=Compaction.LEVELED)
    layers = [(0, 100 + age, content) for age, content in enumerate(flushed)]
    layers += [(level, 50 - level, content) for level, content in enumerate(deep, 1)]
    tables: list[Table] = []
    for level, lsn, content in layers:
        numbers = range(len(tables), len(tables) + (len(content) if level else 1))
        infos = write_tables(fs, "d", numbers, chunked(content, [3]), level, lsn, len(content), options)
        tables += (Table(TableFile(fs, "d", info), None) for info in infos)
    return tables


@given(FULL_CONTENTS, FULL_CONTENTS, FULL_CONTENTS)
def test_replaced_levels_leave_the_old_ones_as_they_were(old: Content, new: Content, other: Content) -> None:
    fs = MemoryFileSystem()
    first, second, third = _laid_out(fs, [old, new, other], [], 1)
    before = Levels([first, second])
    after = before.replace([second.info.number], [third])
    assert entries(merge(before.runs(b"", None, False))) == within(united([new, old]), b"", None)
    assert entries(merge(after.runs(b"", None, False))) == within(united([other, old]), b"", None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), VALUES), max_size=40), st.integers(0, 900))
def test_a_cache_keeps_within_its_bound(steps: list[tuple[int, int, bytes | None]], bound: int) -> None:
    cache = BlockCache(bound)
    for table, offset, value in steps:
        if value is None:
            cache.forget(table)
            assert cache.get(table, offset, DataBlock) is None
        else:
            block = DataBlock(encode_entries([b"key"], [value]))
            cache.put(table, offset, block)
            kept = cache.get(table, offset, DataBlock)
            assert kept is (block if block.memory <= bound else None)
        assert 0 <= cache.memory <= bound
