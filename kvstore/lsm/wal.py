"""The write-ahead log: segments of records, each with the batches of one group commit (docs/wal.md).

A record carries the LSN that was durable when it was written. So a damaged record can be judged: if a
later one proves it was durable, that is corruption; if none does, it is the torn tail of a crash.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from kvstore.errors import Corruption
from kvstore.lsm.magic import check_magic
from kvstore.lsm.readable_files import ReadableFiles
from kvstore.lsm.record import encode_record, readable_records
from kvstore.lsm.whole_files import read_file
from kvstore.msgpack_heads import array_head, bytes_head

Batch = Sequence[tuple[bytes, bytes | None]]

MAGIC = b"kvswal\x00\x02"
_PREFIX = struct.Struct("<QQ")  # LSN of the first batch, durable LSN

_LARGE = 64 * 1024
"""A larger value is not encoded, which copies it several times."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[list[tuple[bytes, bytes | None]]])


@dataclass(frozen=True, slots=True)
class WalRecord:
    """Batches that were written together; the first has the LSN `first_lsn`, each its own."""

    first_lsn: int
    durable_lsn: int
    batches: list[list[tuple[bytes, bytes | None]]]

    @property
    def last_lsn(self) -> int:
        """The LSN of the last batch."""
        return self.first_lsn + len(self.batches) - 1


def encode_wal_record(first_lsn: int, durable_lsn: int, batches: Sequence[Batch]) -> bytes:
    """The bytes of one record."""
    prefix = _PREFIX.pack(first_lsn, durable_lsn)
    if any(len(value or b"") > _LARGE for batch in batches for _, value in batch):
        return encode_record(prefix, *_pieces(batches))
    return encode_record(prefix + _encoder.encode(batches))


def _pieces(batches: Sequence[Batch]) -> Iterator[bytes]:
    """Joined, these are the encoded batches; large values are as they are."""
    yield array_head(len(batches))
    for batch in batches:
        yield array_head(len(batch))
        for key, value in batch:
            if value is None or len(value) <= _LARGE:
                yield _encoder.encode((key, value))
            else:
                yield array_head(2) + _encoder.encode(key) + bytes_head(len(value))
                yield value


def segment_name(number: int) -> str:
    """File name of a segment."""
    return f"{number:08d}.wal"


def log_paths(fs: ReadableFiles, directory: str) -> list[str]:
    """The segments of the log, in order."""
    names = (name for name in fs.list(directory) if name.endswith(".wal"))
    return [f"{directory}/{name}" for name in sorted(names, key=lambda name: (len(name), name))]


def read_segments(fs: ReadableFiles, paths: Sequence[str], floor: int) -> Iterator[WalRecord]:
    """The records of segments in order, up to the first gap that a crash has torn.

    `floor` is the LSN up to which everything is in tables already. Raises Corruption when a record is
    damaged or missing that was durable once, UnsupportedFormat for a file that is no segment.
    """
    return (record for _, _, record in locate_records(fs, paths, floor))


def locate_records(
    fs: ReadableFiles, paths: Sequence[str], floor: int
) -> Iterator[tuple[str, int, WalRecord]]:
    """As `read_segments`, each record with the path of its segment and where in that it ends."""
    expected = floor + 1
    records = _records(fs, paths)
    for path, end, record in records:
        if record.last_lsn < expected:
            continue
        if record.first_lsn < expected:
            raise Corruption(path, f"batches {record.first_lsn} to {expected - 1} are there twice")
        if record.first_lsn > expected:
            if record.durable_lsn >= expected or any(r.durable_lsn >= expected for _, _, r in records):
                lost = f"batches {expected} to {record.first_lsn - 1} are damaged or missing"
                raise Corruption(path, f"{lost}, and a later one proves that they were durable")
            return
        yield path, end, record
        expected = record.last_lsn + 1


def _records(fs: ReadableFiles, paths: Sequence[str]) -> Iterator[tuple[str, int, WalRecord]]:
    """Every record that can be read, whatever is damaged between them, with its segment and its end."""
    for path in paths:
        for place, record in records_in(read_file(fs, path), path):
            yield path, place.stop, record


def records_in(data: bytes, path: str) -> Iterator[tuple[range, WalRecord]]:
    """Every record of a segment that can be read, and where in it; raises Corruption, UnsupportedFormat."""
    _check_header(data, path)
    for place, payload in readable_records(data, len(MAGIC)):
        yield place, _decode(payload, path)


def _check_header(data: bytes, path: str) -> None:
    beginning = data[: len(MAGIC)]
    if not beginning.strip(b"\0") or MAGIC.startswith(data):
        return  # torn when the segment was made; what is behind its first page may be there
    check_magic(path, beginning, MAGIC, "write-ahead log")


def _decode(payload: bytes, path: str) -> WalRecord:
    try:
        first_lsn, durable_lsn = _PREFIX.unpack_from(payload)
        return WalRecord(first_lsn, durable_lsn, _decoder.decode(memoryview(payload)[_PREFIX.size :]))
    except (struct.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption(path, f"a record cannot be read: {error}") from error
