"""Listing the keys of a partition: pages, cursors, and what is not listed."""

from __future__ import annotations

import pytest

from kvstore.config import Limits
from kvstore.errors import InvalidRequest
from kvstore.lsm import Engine, Options
from kvstore.lsm.memory_filesystem import MemoryFileSystem
from kvstore.node.scan import scan_keys
from kvstore.ring import Ring, partition_bounds, partition_of
from kvstore.versions import BucketName, Dot, Sibling, UserKey, Version, encode_version
from tests.plain import data_key, token

NOW = 1_700_000_000_000
RING = Ring((("n1", "n2", "n3"),) * 4)
CARTS = BucketName("carts")


def version(value: bytes | None = b"v", expiry: int = 0) -> bytes:
    dot = Dot("n1.0.a", 1)
    return encode_version(Version((dot,), (Sibling(dot, value, NOW << 16, expiry),)))


def internal(key: bytes, bucket: str = "carts") -> bytes:
    return data_key(token(bucket, key), bucket, key)


def partition(key: bytes, bucket: str = "carts") -> int:
    return partition_of(token(bucket, key), RING.partitions)


@pytest.fixture
def engine() -> Engine:
    return Engine.open(MemoryFileSystem(), "engine", Options())


def fill(engine: Engine, keys: list[bytes], bucket: str = "carts", stored: bytes | None = None) -> None:
    engine.write([(internal(key, bucket), stored or version()) for key in keys])


def pages(engine: Engine, number: int, limit: int, bucket: str = "carts") -> list[tuple[UserKey, ...]]:
    """All pages of a partition; each next one begins at the cursor of the last."""
    found, after = [], b""
    while True:
        keys, after = scan_keys(engine.scan, RING, BucketName(bucket), number, after, limit, NOW)
        found.append(keys)
        if not after:
            return found
        assert len(found) < 500, "it does not end"


@pytest.mark.parametrize("limit", [1, 7, 99, 100, 0])
def test_every_key_of_a_partition_is_on_one_page(engine: Engine, limit: int) -> None:
    keys = [b"user:%d" % i for i in range(100)]
    fill(engine, keys)
    listed = []
    for number in range(RING.partitions):
        expected = sorted((key for key in keys if partition(key) == number), key=internal)
        found = pages(engine, number, limit)
        assert [key for page in found for key in page] == expected
        assert all(len(page) <= (limit or 1000) for page in found)
        assert all(len(page) == limit for page in found[:-1] if limit)
        listed += expected
    assert sorted(listed) == sorted(keys)


def test_a_page_has_at_most_a_thousand_keys_however_many_are_asked_for(engine: Engine) -> None:
    fill(engine, [b"%d" % i for i in range(4500)])
    for limit in (0, 1_000_000):
        keys, after = scan_keys(engine.scan, RING, CARTS, 0, b"", limit, NOW)
        assert len(keys) == 1000
        assert after == internal(keys[-1])


@pytest.mark.parametrize(("length", "on_a_page"), [(250, 4), (251, 3), (333, 3), (334, 2), (1000, 1)])
def test_a_page_of_long_keys_ends_at_its_bytes(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, length: int, on_a_page: int
) -> None:
    monkeypatch.setattr(Limits, "scan_page", 1000)
    keys = [b"%0*d" % (length, i) for i in range(60)]
    fill(engine, keys)
    found = pages(engine, 0, 0)
    assert len(found) > 2
    assert {len(page) for page in found[:-1]} == {on_a_page}
    assert sum(map(len, found)) == sum(partition(key) == 0 for key in keys) > 8


def test_no_page_has_more_than_its_mebibyte_of_the_longest_keys(engine: Engine) -> None:
    keys = [b"%04096d" % i for i in range(1200)]
    fill(engine, keys)
    first, *_ = found = pages(engine, 0, 0)
    assert (len(first), sum(map(len, first))) == (256, 1024 * 1024)
    assert [key for page in found for key in page] == sorted(
        (key for key in keys if partition(key) == 0), key=internal
    )


def test_the_last_page_has_no_cursor_even_when_it_is_full(engine: Engine) -> None:
    keys = [key for i in range(1000) if partition(key := b"%d" % i) == 1][:14]
    fill(engine, keys)
    assert [len(page) for page in pages(engine, 1, 7)] == [7, 7]


def test_only_visible_values_of_the_bucket_are_listed(engine: Engine) -> None:
    keys = [key for i in range(100) if partition(key := b"%d" % i) == 2]
    there, deleted, expired, lasting, *_ = keys
    elsewhere = next(key for i in range(100) if partition(key := b"%d" % i, "other") == 2)
    fill(engine, [there])
    fill(engine, [deleted], stored=version(None))
    fill(engine, [expired], stored=version(expiry=NOW))
    fill(engine, [lasting], stored=version(expiry=NOW + 1))
    fill(engine, [elsewhere], bucket="other")
    # A key that is longer than a key may be, and one whose token is that of another key
    engine.write([(data_key(token("carts", there), "carts", b"k" * 5000), version())])
    engine.write([(data_key(token("carts", there), "carts", b"not mine"), version())])
    assert scan_keys(engine.scan, RING, CARTS, 2, b"", 0, NOW) == (
        tuple(sorted((there, lasting), key=internal)),
        b"",
    )


@pytest.mark.parametrize("number", [-1, 4, 1 << 40])
def test_a_partition_that_is_none_is_refused(engine: Engine, number: int) -> None:
    with pytest.raises(InvalidRequest, match=f"partition: is {number}, must be between 0 and 3"):
        scan_keys(engine.scan, RING, CARTS, number, b"", 0, NOW)


def test_a_cursor_of_another_partition_is_refused(engine: Engine) -> None:
    start, end = partition_bounds(1, RING.partitions)
    for after in (start[:-1], end, b"\xff"):
        with pytest.raises(InvalidRequest, match="after: is not a cursor of this partition"):
            scan_keys(engine.scan, RING, CARTS, 1, after, 0, NOW)
    assert scan_keys(engine.scan, RING, CARTS, 1, start, 0, NOW) == ((), b"")
