"""Which records of a log count: by their LSNs, and by what they say was durable (docs/wal.md, Recovery)."""

from __future__ import annotations

import msgspec
import pytest

from kvstore.errors import Corruption, UnsupportedFormat
from kvstore.lsm import MemoryFileSystem
from kvstore.lsm.record import encode_record
from kvstore.lsm.wal import (
    MAGIC,
    Batch,
    WalRecord,
    encode_wal_record,
    locate_records,
    log_paths,
    read_segments,
    records_in,
    segment_name,
)


def record(first: int, durable: int, batches: int = 1) -> bytes:
    return encode_wal_record(first, durable, [[(b"k", b"v")]] * batches)


def found(floor: int, *segments: list[bytes]) -> list[tuple[int, int]]:
    """First and last LSN of each record that counts."""
    fs = MemoryFileSystem()
    for number, records in enumerate(segments, 1):
        fs.create(f"d/{segment_name(number)}").append(MAGIC + b"".join(records))
    return [(r.first_lsn, r.last_lsn) for r in read_segments(fs, log_paths(fs, "d"), floor)]


def test_a_record_with_large_values_has_the_same_bytes_as_any_other() -> None:
    large = bytes(range(256)) * 1024
    batches: list[Batch] = [
        *[[(b"small", b"v"), (b"gone", None)]] * 20,
        [(b"k" * 300, large), (b"key", large[:-1]), *[(b"s%d" % i, b"v" * i) for i in range(20)]],
        [],
    ]
    encoded = encode_wal_record(7, 3, batches)
    payload = (7).to_bytes(8, "little") + (3).to_bytes(8, "little") + msgspec.msgpack.encode(batches)
    assert encoded == encode_record(payload)
    ((place, found),) = records_in(MAGIC + encoded, "log")
    assert found == WalRecord(7, 3, [list(batch) for batch in batches])
    assert place.stop == len(MAGIC) + len(encoded)


def test_records_that_follow_each_other_count_from_the_floor_on() -> None:
    log = [record(1, 0, 2), record(3, 2)], [record(4, 3, 3)]
    assert found(0, *log) == [(1, 2), (3, 3), (4, 6)]
    assert found(2, *log) == [(3, 3), (4, 6)]
    assert found(3, *log) == [(4, 6)]
    assert found(6, *log) == found(9, *log) == []


@pytest.mark.parametrize(("floor", "twice"), [(1, "1 to 1"), (4, "4 to 4"), (5, "4 to 5")])
def test_a_record_that_is_partly_in_tables_is_corruption(floor: int, twice: str) -> None:
    with pytest.raises(Corruption, match=f"batches {twice} are there twice"):
        found(floor, [record(1, 0, 2), record(3, 2)], [record(4, 3, 3)])


@pytest.mark.parametrize(
    "behind",
    [
        [[record(3, 1)]],
        [[record(3, 0), record(4, 1)]],
        [[record(3, 1)], [record(4, 1)]],
        [[record(9, 1), record(3, 0)], [record(2, 1)]],
    ],
)
def test_what_lies_behind_a_gap_and_was_not_durable_is_dropped(behind: list[list[bytes]]) -> None:
    assert found(0, [record(1, 0), *behind[0]], *behind[1:]) == [(1, 1)]


@pytest.mark.parametrize(
    "behind",
    [
        [[record(4, 2)]],
        [[record(4, 3)]],
        [[record(4, 1), record(5, 2)]],
        [[record(4, 1)], [record(5, 2)]],
        [[record(4, 1)], [], [record(5, 1)], [record(6, 4)]],
    ],
)
def test_a_gap_that_was_durable_is_corruption(behind: list[list[bytes]]) -> None:
    with pytest.raises(Corruption, match="batches 2 to 3 are damaged or missing, and a later one") as raised:
        found(0, [record(1, 0), *behind[0]], *behind[1:])
    assert raised.value.path == "d/00000001.wal"


def test_where_each_record_ends() -> None:
    fs = MemoryFileSystem()
    one, two = record(1, 0), record(2, 0, 5)
    fs.create("d/00000007.wal").append(MAGIC + one + two + b"tail")
    places = [(path, end, r.last_lsn) for path, end, r in locate_records(fs, ["d/00000007.wal"], 0)]
    begin = len(MAGIC)
    assert places == [
        ("d/00000007.wal", begin + len(one), 1),
        ("d/00000007.wal", begin + len(one + two), 6),
    ]


def test_segments_are_in_the_order_of_their_numbers() -> None:
    fs = MemoryFileSystem()
    for number in (100_000_000, 2, 99_999_999):
        fs.create(f"d/{segment_name(number)}")
    fs.create("d/00000003.sst")
    names = ["00000002.wal", "99999999.wal", "100000000.wal"]
    assert log_paths(fs, "d") == [f"d/{name}" for name in names]


def test_what_lies_between_readable_records_is_passed_over() -> None:
    one, two, three = record(1, 0), record(2, 0), record(3, 0)
    broken = bytearray(two)
    broken[-1] ^= 1  # its header is whole: what it holds is not looked into
    for junk in (bytes(broken), b"\1", bytes(30), two[:-1] + b"\0\0", three[:11]):
        data = MAGIC + one + junk + three
        places = [(place, r.first_lsn) for place, r in records_in(data, "p")]
        begin = len(MAGIC)
        end = begin + len(one)
        assert places == [(range(begin, end), 1), (range(end + len(junk), len(data)), 3)]


@pytest.mark.parametrize("kept", range(len(MAGIC)))
def test_a_segment_that_was_torn_when_it_was_made_holds_nothing(kept: int) -> None:
    assert list(records_in(MAGIC[:kept], "p")) == list(records_in(bytes(kept), "p")) == []


@pytest.mark.parametrize(
    "data", [b"x", b"kvswaL", b"\0\0\1", MAGIC[:-1] + b"\1", MAGIC[:-1] + b"\3", b"kvsst\0\0\2"]
)
def test_what_is_no_segment_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        list(records_in(data, "p"))


@pytest.mark.parametrize(
    "payload", [b"", bytes(15), bytes(16), bytes(16) + b"\x91\x91\x01", bytes(16) + b"\xc1"]
)
def test_a_record_of_another_shape_is_corruption(payload: bytes) -> None:
    with pytest.raises(Corruption, match="a record cannot be read"):
        list(records_in(MAGIC + encode_record(payload), "p"))


def test_a_record_is_what_was_written() -> None:
    batches: list[list[tuple[bytes, bytes | None]]] = [[(b"a", b"1"), (b"b", None)], []]
    ((_, read),) = records_in(MAGIC + encode_wal_record(5, 3, batches), "p")
    assert read == WalRecord(5, 3, batches)
    assert read.last_lsn == 6
