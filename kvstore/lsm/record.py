"""Records of log files: length, checksum of the header, checksum of the payload (docs/wal.md).

The header's own checksum tells a torn tail (the file ends within a record) from damage (it does not).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import google_crc32c

_HEADER = struct.Struct("<III")  # payload length, payload CRC, CRC of both
HEADER_BYTES = _HEADER.size
_SUMMED = struct.Struct("<II")


class TornRecord(Exception):
    """The file ends within this record."""


class DamagedRecord(Exception):
    """The bytes do not match their checksums. `end` is where the record ends, if its header is whole."""

    def __init__(self, end: int | None = None) -> None:
        super().__init__(end)
        self.end = end


def encode_record(*pieces: bytes) -> bytes:
    """Header and payload, which is in pieces: it is copied once."""
    crc = 0
    for piece in pieces:
        crc = google_crc32c.extend(crc, piece)
    summed = _SUMMED.pack(sum(map(len, pieces)), crc)
    return b"".join((summed, int(google_crc32c.value(summed)).to_bytes(4, "little"), *pieces))


def decode_record(data: bytes, offset: int) -> tuple[bytes, int]:
    """The payload of the record at `offset` and where the next one begins.

    Raises TornRecord, DamagedRecord.
    """
    if offset + HEADER_BYTES > len(data):
        raise TornRecord
    length, payload_crc, header_crc = _HEADER.unpack_from(data, offset)
    if google_crc32c.value(data[offset : offset + _SUMMED.size]) != header_crc:
        raise DamagedRecord
    start = offset + HEADER_BYTES
    if start + length > len(data):
        raise TornRecord
    payload = data[start : start + length]
    if google_crc32c.value(payload) != payload_crc:
        raise DamagedRecord(start + length)
    return payload, start + length


def readable_records(data: bytes, offset: int) -> Iterator[tuple[range, bytes]]:
    """Place and payload of each record from `offset` on that can be read, whatever is damaged between."""
    while offset < len(data):
        try:
            payload, end = decode_record(data, offset)
        except TornRecord:
            return
        except DamagedRecord as damage:
            # never within a record whose end is known: a value may hold a copy of a log
            offset = damage.end or offset + 1
        else:
            yield range(offset, end), payload
            offset = end
