"""Reads the engine's files by docs/wal.md, docs/sstable.md and docs/manifest.md alone.

Nothing of kvstore is imported: what this program needs and those pages do not say is missing there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import google_crc32c
import lz4.block
import mmh3
import msgpack

WAL_MAGIC, TABLE_MAGIC, MANIFEST_MAGIC = b"kvswal\x00\x02", b"kvsst\x00\x00\x02", b"kvsman\x00\x02"

Entry = tuple[bytes, bytes | None]


def crc(data: bytes) -> int:
    found: int = google_crc32c.value(data)
    return found


# docs/wal.md: records, as in manifests too


def records(data: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(data):
        length, payload_crc, header_crc = struct.unpack_from("<III", data, at)
        assert header_crc == crc(data[at : at + 8])
        payload = data[at + 12 : at + 12 + length]
        assert payload_crc == crc(payload)
        yield payload
        at += 12 + length


def read_wal(data: bytes) -> list[tuple[int, int, list[list[Entry]]]]:
    """First LSN, durable LSN and batches of each record."""
    assert data[:8] == WAL_MAGIC
    found = []
    for payload in records(data):
        first, durable = struct.unpack_from("<QQ", payload)
        batches = msgpack.unpackb(payload[16:])
        found.append((first, durable, [[(key, value) for key, value in batch] for batch in batches]))
    return found


# docs/manifest.md


def read_manifest(data: bytes) -> list[Any]:
    assert data[:8] == MANIFEST_MAGIC
    return [msgpack.unpackb(payload) for payload in records(data)]


# docs/sstable.md


class Table:
    """All of a table, checked and decoded."""

    def __init__(self, data: bytes) -> None:
        assert data[-8:] == TABLE_MAGIC
        footer = data[-48:-12]
        assert crc(footer) == int.from_bytes(data[-12:-8], "little")
        numbers = struct.unpack("<QIQIQI", footer)
        bloom, index, properties = (
            _block(data, *numbers[i : i + 2]) for i in range(0, 6, 2)
        )  # places of filter, index, properties
        self.filter_bits, self.filter_hashes = bloom[8:], int.from_bytes(bloom[:8], "little")
        self.properties = msgpack.unpackb(properties)
        self.index = list(zip(*msgpack.unpackb(index), strict=True))
        self.blocks = [_entries(_block(data, offset, length)) for _, offset, length in self.index]
        self.entries: list[Entry] = [entry for block in self.blocks for entry in block]
        assert all(block[-1][0] == last for block, (last, _, _) in zip(self.blocks, self.index, strict=True))

    def may_hold(self, key: bytes) -> bool:
        state = int.from_bytes(mmh3.hash_bytes(key), "little")
        bits = 8 * len(self.filter_bits)
        for _ in range(self.filter_hashes):
            state = (state * 47026247687942121848144207491837418733 + 1) % 2**128
            bit = (state >> 32) % 2**64 % bits
            if not self.filter_bits[bit // 8] >> bit % 8 & 1:
                return False
        return True


def _block(data: bytes, offset: int, length: int) -> bytes:
    block = data[offset : offset + length]
    body, kind = block[:-5], block[-5]
    assert int.from_bytes(block[-4:], "little") == crc(block[:-4])
    assert kind in (0, 1)
    if kind == 0:
        return body
    size = int.from_bytes(body[:4], "little")
    plain: bytes = lz4.block.decompress(body[4:], uncompressed_size=size)
    assert len(plain) == size
    return plain


def _entries(payload: bytes) -> list[Entry]:
    count, deletions = struct.unpack_from("<II", payload)
    numbers = struct.unpack_from(f"<{2 * count + deletions}I", payload, 8)
    key_ends, value_ends, deleted = numbers[:count], numbers[count : 2 * count], numbers[2 * count :]
    keys_at = 8 + 4 * len(numbers)
    values_at = keys_at + key_ends[-1]
    assert values_at + value_ends[-1] == len(payload)
    keys = _cut(payload[keys_at:values_at], key_ends)
    values: list[bytes | None] = [*_cut(payload[values_at:], value_ends)]
    for i in deleted:
        assert values[i] == b""
        values[i] = None
    return list(zip(keys, values, strict=True))


def _cut(column: bytes, ends: tuple[int, ...]) -> list[bytes]:
    return [column[begin:end] for begin, end in zip((0, *ends), ends, strict=False)]
