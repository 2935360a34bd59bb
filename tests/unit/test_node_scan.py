"""Reading what a node holds of a bucket: steps, where each ends, what is read, and which cursors are some."""

from __future__ import annotations

import pytest

from kvstore.config import Limits
from kvstore.errors import InvalidRequest
from kvstore.lsm import Engine, Options
from kvstore.lsm.memory_filesystem import MemoryFileSystem
from kvstore.node.scan import Step, Wanted, partition_at
from kvstore.ring import partition_bounds
from kvstore.versions import BucketName, Dot, Sibling, UserKey, Version, encode_version
from tests.plain import data_key, token

NOW = 1_700_000_000_000
PARTITIONS = 4
START, END = partition_bounds(0, 1)
MOST = Limits.scan_keys


def version(value: bytes | None = b"v", expiry: int = 0) -> bytes:
    dot = Dot("n1.0.a", 1)
    return encode_version(Version((dot,), (Sibling(dot, value, NOW << 16, expiry),)))


def internal(key: bytes, bucket: str = "carts") -> bytes:
    return data_key(token(bucket, key), bucket, key)


@pytest.fixture
def engine() -> Engine:
    return Engine.open(MemoryFileSystem(), "engine", Options())


def fill(engine: Engine, keys: list[bytes], bucket: str = "carts", stored: bytes | None = None) -> None:
    engine.write([(internal(key, bucket), stored or version()) for key in keys])


def steps(engine: Engine, most_keys: int, bucket: str = "carts", prefix: bytes = b"") -> list[list[bytes]]:
    """What all steps have read; each next one begins where the last has ended."""
    found, start = [], START
    wanted = Wanted(BucketName(bucket), UserKey(prefix))
    while start < END:
        versions, reached = Step(engine.scan, most_keys).read(wanted, start, END)
        assert reached > start, "it does not end"
        found.append([bytes(key) for key in versions])
        start = reached
    return found


@pytest.mark.parametrize("most_keys", [1, 7, 99, 100, MOST])
def test_every_key_is_read_once_in_order(engine: Engine, most_keys: int) -> None:
    keys = [b"user:%d" % i for i in range(100)]
    fill(engine, keys)
    found = steps(engine, most_keys)
    assert [key for step in found for key in step] == sorted(map(internal, keys))
    assert all(len(step) == most_keys for step in found[:-1])


def test_a_range_ends_before_its_end(engine: Engine) -> None:
    keys = sorted(internal(b"user:%d" % i) for i in range(100))
    engine.write([(key, version()) for key in keys])
    versions, reached = Step(engine.scan, MOST).read(
        Wanted(BucketName("carts"), UserKey(b"")), keys[10], keys[20]
    )
    assert ([*versions], reached) == (keys[10:20], keys[20])


@pytest.mark.parametrize(("length", "in_a_step"), [(250, 4), (251, 4), (333, 4), (334, 3), (1000, 1)])
def test_a_step_ends_at_the_bytes_of_its_keys(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, length: int, in_a_step: int
) -> None:
    """With the key that passes them."""
    monkeypatch.setattr(Limits, "scan_page", 1000)
    keys = [b"%0*d" % (length, i) for i in range(60)]
    fill(engine, keys)
    found = steps(engine, MOST)
    assert {len(step) for step in found[:-1]} == {in_a_step}
    assert sum(map(len, found)) == 60


def test_no_step_has_more_than_its_mebibyte_of_the_longest_keys(engine: Engine) -> None:
    fill(engine, [b"%04096d" % i for i in range(600)])
    assert [len(step) for step in steps(engine, MOST)] == [256, 256, 88]


def test_entries_of_other_buckets_count(engine: Engine) -> None:
    fill(engine, [b"%d" % i for i in range(4500)], bucket="other")
    assert steps(engine, MOST) == [[], [], []]
    engine = Engine.open(MemoryFileSystem(), "large", Options())
    fill(engine, [b"%d" % i for i in range(9)], bucket="other", stored=version(bytes(2**20)))
    assert steps(engine, MOST) == [[], [], []], "four mebibytes each"


def test_several_ranges_share_one_step(engine: Engine) -> None:
    fill(engine, [b"user:%d" % i for i in range(100)])
    step, found = Step(engine.scan, 30), 0
    for partition in range(PARTITIONS):
        if not step.is_over():
            bounds = partition_bounds(partition, PARTITIONS)
            found += len(step.read(Wanted(BucketName("carts"), UserKey(b"")), *bounds).versions)
    assert found == 30


def test_only_keys_of_the_bucket_with_the_prefix_are_read_whether_they_can_be_seen_or_not(
    engine: Engine,
) -> None:
    """A deletion must be told to who would else show the value that another replica still has."""
    fill(engine, [b"a:1", b"b:1"])
    fill(engine, [b"a:deleted"], stored=version(None))
    fill(engine, [b"a:expired"], stored=version(expiry=NOW))
    fill(engine, [b"a:2"], bucket="other")
    fill(engine, [b"a:2"], bucket="cart")
    # A key that is longer than a key may be, and one whose token is that of another key
    engine.write([(data_key(token("carts", b"a:1"), "carts", b"a" * 5000), version())])
    engine.write([(data_key(token("carts", b"a:1"), "carts", b"a:not mine"), version())])
    (found,) = steps(engine, MOST, prefix=b"a:")
    assert found == sorted(map(internal, (b"a:1", b"a:deleted", b"a:expired")))


def test_a_cursor_tells_its_partition() -> None:
    assert partition_at(b"", PARTITIONS) == 0
    for partition in range(PARTITIONS):
        start, _ = partition_bounds(partition, PARTITIONS)
        assert partition_at(start, PARTITIONS) == partition
    longest = data_key(2**63, "b" * 64, b"k" * Limits.key) + b"\0"
    assert partition_at(longest, PARTITIONS) == 2


@pytest.mark.parametrize(
    "cursor",
    [
        START[:-1],
        END,
        b"\xff" * 20,
        b"h" + bytes(20),
        bytes(30),
        data_key(2**63, "b" * 64, b"k" * Limits.key) + b"\0\0",
        START + bytes(10_000),
    ],
)
def test_a_cursor_that_no_page_can_have_had_is_refused(cursor: bytes) -> None:
    """Above all one in the keyspace of something else than data."""
    with pytest.raises(InvalidRequest, match="cursor: is not one of a page of a scan"):
        partition_at(cursor, PARTITIONS)
