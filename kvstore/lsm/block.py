"""Blocks: what tables are made of. Each is compressed and carries its checksum (docs/sstable.md)."""

from __future__ import annotations

import struct
from bisect import bisect_left

import google_crc32c
import lz4.block

_RAW, _LZ4 = 0, 1
_TRAILER = struct.Struct("<BI")  # compression, CRC of payload and compression byte
ENTRY = struct.Struct("<HI")
"""What precedes an entry in a data block: the lengths of its key and of its value."""

DELETED = 0xFFFFFFFF
"""The length of no value: the mark of a deletion."""

_NEVER_LARGER = 32 * 1024 * 1024


class DamagedBlock(Exception):
    """The block's bytes do not match their checksum or cannot be decoded."""


def seal(payload: bytes) -> bytes:
    """Compress a block if that helps, and append its trailer."""
    compressed = lz4.block.compress(payload)
    kind = _LZ4 if len(compressed) < len(payload) else _RAW
    body = compressed if kind == _LZ4 else payload
    return body + _TRAILER.pack(kind, _checksum(body, kind))


def unseal(data: bytes) -> bytes:
    """Inverse of `seal`; raises DamagedBlock."""
    if len(data) < _TRAILER.size:
        raise DamagedBlock("shorter than a trailer")
    body = data[: -_TRAILER.size]
    kind, checksum = _TRAILER.unpack_from(data, len(body))
    if _checksum(body, kind) != checksum:
        raise DamagedBlock("checksum does not match")
    if kind == _RAW:
        return body
    # the size that lz4 stores in front must not make us allocate more than a block can be
    if kind != _LZ4 or len(body) < 4 or int.from_bytes(body[:4], "little") > _NEVER_LARGER:
        raise DamagedBlock("unknown compression")
    try:
        return bytes(lz4.block.decompress(body))
    except lz4.block.LZ4BlockError as error:
        raise DamagedBlock(str(error)) from error


def _checksum(body: bytes, kind: int) -> int:
    return int(google_crc32c.extend(google_crc32c.value(body), bytes([kind])))


class DataBlock:
    """A decoded block of entries, in order of their keys."""

    __slots__ = ("bytes", "keys", "values")

    def __init__(self, payload: bytes) -> None:
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self.bytes = len(payload)
        offset = 0
        try:
            while offset < len(payload):
                key_length, value_length = ENTRY.unpack_from(payload, offset)
                start = offset + ENTRY.size
                offset = start + key_length
                self.keys.append(payload[start:offset])
                if value_length == DELETED:
                    self.values.append(None)
                else:
                    self.values.append(payload[offset : offset + value_length])
                    offset += value_length
        except struct.error as error:
            raise DamagedBlock(str(error)) from error
        if offset != len(payload):
            raise DamagedBlock("an entry reaches beyond the block")

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here."""
        i = bisect_left(self.keys, key)
        return self.values[i] if i < len(self.keys) and self.keys[i] == key else default
