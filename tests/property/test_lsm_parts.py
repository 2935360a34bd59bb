"""The memtable and the filter against the libraries they could have been."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hypothesis import given
from hypothesis import strategies as st
from pybloom_live import BloomFilter as Oracle
from sortedcontainers import SortedDict

from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.memtable import Memtable
from kvstore.lsm.merge import Chunk

KEYS = st.binary(min_size=1, max_size=3)
VALUES = st.none() | st.binary(max_size=4)
BATCH = st.lists(st.tuples(KEYS, VALUES), max_size=40)


def entries(chunks: Iterable[Chunk]) -> list[tuple[bytes, bytes | None]]:
    return [entry for keys, values in chunks for entry in zip(keys, values, strict=True)]


def backwards(chunks: Iterable[Chunk]) -> list[tuple[bytes, bytes | None]]:
    return [entry for keys, values in chunks for entry in zip(keys[::-1], values[::-1], strict=True)]


def filled(keys: Collection[bytes]) -> BloomFilter:
    bloom = BloomFilter.empty(len(keys), 0.01)
    bloom.update(keys)
    return bloom


@given(st.lists(st.tuples(KEYS, VALUES) | st.tuples(KEYS, KEYS | st.none(), st.just("scan")), max_size=60))
def test_a_memtable_is_a_sorted_dict(
    steps: list[tuple[bytes, bytes | None] | tuple[bytes, bytes | None, str]],
) -> None:
    memtable, oracle = Memtable(), SortedDict()
    for step in steps:
        if len(step) == 2:
            memtable.apply([step], 0)
            oracle[step[0]] = step[1]
        else:
            start, end, _ = step
            expected = [(key, oracle[key]) for key in oracle.irange(start, end, (True, False))]
            assert entries(memtable.chunks(start, end)) == expected
            assert backwards(memtable.chunks(start, end, reverse=True)) == expected[::-1]
    assert entries(memtable.chunks(b"", None)) == list(oracle.items())
    assert len(memtable) == len(oracle)


@given(BATCH, BATCH, BATCH)
def test_a_view_of_a_memtable_stays_while_it_is_written_to(
    before: list[tuple[bytes, bytes | None]],
    between: list[tuple[bytes, bytes | None]],
    after: list[tuple[bytes, bytes | None]],
) -> None:
    memtable = Memtable()
    memtable.apply(before, 0)
    expected = sorted(dict(before).items())
    undo = memtable.begin_undo()
    memtable.apply(between, 0)
    running = memtable.chunks(b"", None, undo)
    first = [next(running)] if expected else []
    memtable.apply(after, 0)
    assert entries([*first, *running]) == expected
    assert backwards(memtable.chunks(b"", None, undo, reverse=True)) == expected[::-1]
    memtable.end_undo(undo)
    assert entries(memtable.chunks(b"", None)) == sorted(dict([*before, *between, *after]).items())


@given(st.sets(st.binary(max_size=40), min_size=1, max_size=200))
def test_a_filter_never_denies_a_key_of_its_own(keys: set[bytes]) -> None:
    bloom = BloomFilter.decode(filled(keys).encode())
    assert all(key in bloom for key in keys)


def test_a_filter_errs_no_more_than_pybloom() -> None:
    keys = [b"key-%d" % i for i in range(5000)]
    others = [b"other-%d" % i for i in range(20_000)]
    bloom = filled(keys)
    oracle = Oracle(len(keys), 0.01)
    for key in keys:
        oracle.add(key)
    ours = sum(key in bloom for key in others) / len(others)
    theirs = sum(key in oracle for key in others) / len(others)
    assert ours < 0.02
    assert ours < theirs + 0.01
