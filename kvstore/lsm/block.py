"""Blocks: what tables are made of. Each is compressed and carries its checksum (docs/sstable.md).

A data block keeps its entries in columns: where keys end, where values end, all keys, all values. So it is
made and read by a few calls for all its entries together, and a lookup touches six keys instead of all.
"""

from __future__ import annotations

import struct
import sys
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import google_crc32c
import lz4.block

_RAW, _LZ4 = 0, 1
_TRAILER = struct.Struct("<BI")  # compression, CRC of payload and compression byte
_CHECKSUM_BYTES = 4
_COUNTS = struct.Struct("<II")  # entries, deletions

MOST_COMPRESSED = 0x7E000000
"""The largest payload that lz4 takes; a larger one is stored as it is."""

_ENTRY_MEMORY = 48
"""About what a decoded key takes beside its bytes: an object, and its place in a list."""

_FEW_SEARCHES = 16
"""Decoding all keys of a block costs as much as so many searches save by it."""


class DamagedBlock(Exception):
    """The block's bytes do not match their checksum or cannot be decoded."""


def seal(payload: bytes) -> bytes:
    """Compress a block if that helps, and append its trailer."""
    kind, body = _RAW, payload
    if len(payload) <= MOST_COMPRESSED and len(compressed := lz4.block.compress(payload)) < len(payload):
        kind, body = _LZ4, compressed
    summed = body + bytes((kind,))
    return summed + int(google_crc32c.value(summed)).to_bytes(_CHECKSUM_BYTES, "little")


def unseal(data: bytes) -> bytes:
    """Inverse of `seal`; raises DamagedBlock."""
    if len(data) < _TRAILER.size:
        raise DamagedBlock("shorter than a trailer")
    body = data[: -_TRAILER.size]
    kind, checksum = _TRAILER.unpack_from(data, len(body))
    # of the body, and then of its kind: a block of a large value is copied once here
    if google_crc32c.extend(google_crc32c.value(body), data[len(body) : -_CHECKSUM_BYTES]) != checksum:
        raise DamagedBlock("checksum does not match")
    if kind == _RAW:
        return body
    if kind != _LZ4 or len(body) < 4 or int.from_bytes(body[:4], "little") > _most_from(len(body)):
        raise DamagedBlock("unknown compression")
    try:
        return bytes(lz4.block.decompress(body))
    except lz4.block.LZ4BlockError as error:
        raise DamagedBlock(str(error)) from error


def _most_from(compressed: int) -> int:
    """What lz4 can make of so many bytes at most: one byte stands for no more than 255.

    A damaged size must not make a reader allocate more.
    """
    return min(MOST_COMPRESSED, 255 * compressed)


def _numbers(payload: bytes, count: int) -> Sequence[int]:
    """The numbers behind the counts, where they lie: a lookup needs a few of them, and the cache no more."""
    if sys.byteorder == "big":
        return struct.unpack_from(f"<{count}I", payload, _COUNTS.size)
    return memoryview(payload)[_COUNTS.size : _COUNTS.size + 4 * count].cast("I")


def present(values: Sequence[bytes | None]) -> Sequence[bytes]:
    """The values, with nothing in the place of deletions."""
    if None in values:
        return [value or b"" for value in values]
    return cast("Sequence[bytes]", values)


def encode_entries(keys: Sequence[bytes], values: Sequence[bytes | None]) -> bytes:
    """The payload of a data block: entries in order of their keys, a value of None for a deletion."""
    deleted = [i for i, value in enumerate(values) if value is None] if None in values else []
    contents = present(values)
    count = len(keys)
    numbers = struct.pack(
        f"<{2 * count + len(deleted)}I",
        *accumulate(map(len, keys)),
        *accumulate(map(len, contents)),
        *deleted,
    )
    return b"".join((_COUNTS.pack(count, len(deleted)), numbers, *keys, *contents))


def _ascending(numbers: Sequence[int]) -> bool:
    listed = list(numbers)
    return sorted(listed) == listed


def _cut(payload: bytes, at: int, ends: Sequence[int], first: int, last: int) -> list[bytes]:
    """The parts [first, last) of what begins at `at`, each ending where `ends` says."""
    if first == last:
        return []
    begin = ends[first - 1] if first else 0
    whole = payload[at : at + ends[last - 1]]
    return [whole[begin : (begin := end)] for end in list(ends[first:last])]


class DataBlock:
    """A block of entries, in order of their keys."""

    __slots__ = (
        "_deleted",
        "_key_ends",
        "_keys",
        "_keys_at",
        "_payload",
        "_searches",
        "_value_ends",
        "_values_at",
    )

    def __init__(self, payload: bytes) -> None:
        """Raises DamagedBlock."""
        try:
            count, deletions = _COUNTS.unpack_from(payload)
            if not count:
                raise DamagedBlock("no entries")
            if _COUNTS.size + (2 * count + deletions) * 4 > len(payload):
                raise DamagedBlock("more entries than the block has room for")
            numbers = _numbers(payload, 2 * count + deletions)
        except struct.error as error:
            raise DamagedBlock(str(error)) from error
        self._payload = payload
        self._key_ends = numbers[:count]
        self._value_ends = numbers[count : 2 * count]
        self._deleted = numbers[2 * count :]
        self._keys_at = _COUNTS.size + 4 * len(numbers)
        self._values_at = self._keys_at + self._key_ends[-1]
        self._keys: list[bytes] | None = None
        self._searches = 0
        if self._values_at + self._value_ends[-1] != len(payload):
            raise DamagedBlock("its entries do not fill the block")
        # else each entry could be as long as the block, and decoding it take the square of its size
        if not (_ascending(self._key_ends) and _ascending(self._value_ends)):
            raise DamagedBlock("its entries overlap")

    def __len__(self) -> int:
        return len(self._key_ends)

    @property
    def memory(self) -> int:
        """About how many bytes it takes when its keys have been decoded."""
        return len(self._payload) + self._values_at - self._keys_at + _ENTRY_MEMORY * len(self._key_ends)

    def keys(self) -> list[bytes]:
        """All keys, in order."""
        if self._keys is None:
            self._keys = _cut(self._payload, self._keys_at, self._key_ends, 0, len(self))
        return self._keys

    def position(self, key: bytes) -> int:
        """How many keys are less than this one."""
        if self._keys is None and self._searches < _FEW_SEARCHES:
            self._searches += 1
            return bisect_left(range(len(self)), key, key=self._key)
        return bisect_left(self.keys(), key)

    def _key(self, i: int) -> bytes:
        at, ends = self._keys_at, self._key_ends
        return self._payload[at + (ends[i - 1] if i else 0) : at + ends[i]]

    def entries(self, first: int, last: int) -> tuple[list[bytes], list[bytes | None]]:
        """The keys and values of the entries [first, last), without a look at the others."""
        if self._keys is not None:
            keys = self._keys[first:last]
        else:
            keys = _cut(self._payload, self._keys_at, self._key_ends, first, last)
        return keys, self.values(first, last)

    def values(self, first: int, last: int) -> list[bytes | None]:
        """The values of the entries [first, last), None for deletions."""
        found: list[bytes | None] = [*_cut(self._payload, self._values_at, self._value_ends, first, last)]
        for i in self._deleted:
            if first <= i < last:
                found[i - first] = None
        return found

    def get(self, key: bytes, default: bytes | None) -> bytes | None:
        """The value, None for a deletion, `default` when the key is not here."""
        i = self._find(key)
        if i < 0:
            return default
        if i in self._deleted:
            return None
        at, ends = self._values_at, self._value_ends
        return self._payload[at + (ends[i - 1] if i else 0) : at + ends[i]]

    def _find(self, key: bytes) -> int:
        """The position of a key, -1 when it is not here."""
        if self._keys is None and self._searches < _FEW_SEARCHES:
            self._searches += 1
            return self._search(key)
        keys = self.keys()
        i = bisect_left(keys, key)
        return i if i < len(keys) and keys[i] == key else -1

    def _search(self, key: bytes) -> int:
        payload, at, ends = self._payload, self._keys_at, self._key_ends
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            found = payload[at + (ends[middle - 1] if middle else 0) : at + ends[middle]]
            if found == key:
                return middle
            if found < key:
                low = middle + 1
            else:
                high = middle
        return -1
