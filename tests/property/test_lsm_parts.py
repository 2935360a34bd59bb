"""The memtable and the filter against the libraries they could have been."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pybloom_live import BloomFilter as Oracle
from sortedcontainers import SortedDict

from kvstore.lsm.bloom import BloomFilter
from kvstore.lsm.memtable import Memtable

KEYS = st.binary(min_size=1, max_size=3)
VALUES = st.none() | st.binary(max_size=4)


@given(st.lists(st.tuples(KEYS, VALUES) | st.tuples(KEYS, KEYS | st.none(), st.just("scan")), max_size=60))
def test_a_memtable_is_a_sorted_dict(
    steps: list[tuple[bytes, bytes | None] | tuple[bytes, bytes | None, str]],
) -> None:
    memtable, oracle = Memtable(), SortedDict()
    for step in steps:
        if len(step) == 2:
            memtable.apply([step])
            oracle[step[0]] = step[1]
        else:
            start, end, _ = step
            expected = [(key, oracle[key]) for key in oracle.irange(start, end, (True, False))]
            assert list(memtable.scan(start, end)) == expected
    assert list(memtable.items()) == list(oracle.items())
    assert len(memtable) == len(oracle)


def test_a_scan_goes_on_while_keys_are_added() -> None:
    memtable = Memtable()
    memtable.apply([(b"%04d" % i, b"v") for i in range(0, 2000, 2)])
    seen = []
    for i, (key, _) in enumerate(memtable.scan(b"", None)):
        seen.append(key)
        memtable.apply([(b"%04d" % (2 * i + 1), b"new")])
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)
    assert {b"%04d" % i for i in range(0, 2000, 2)} <= set(seen)


@given(st.sets(st.binary(max_size=40), min_size=1, max_size=200))
def test_a_filter_never_denies_a_key_of_its_own(keys: set[bytes]) -> None:
    bloom = BloomFilter.decode(BloomFilter.build(keys, len(keys), 0.01).encode())
    assert all(key in bloom for key in keys)


def test_a_filter_errs_no_more_than_pybloom() -> None:
    keys = [b"key-%d" % i for i in range(5000)]
    others = [b"other-%d" % i for i in range(20_000)]
    bloom = BloomFilter.build(keys, len(keys), 0.01)
    oracle = Oracle(len(keys), 0.01)
    for key in keys:
        oracle.add(key)
    ours = sum(key in bloom for key in others) / len(others)
    theirs = sum(key in oracle for key in others) / len(others)
    assert ours < 0.02
    assert ours < theirs + 0.01
