"""What MessagePack writes before the items of an array, and before the bytes of a string of bytes.

With these, bytes that hold a large value are put together from pieces, the value copied once. An encoder
that is given the whole copies it several times, each a MiB in 0.1 ms and in more where memory is fresh.
"""

from __future__ import annotations


def array_head(count: int) -> bytes:
    """Before `count` items."""
    if count < 16:
        return bytes([0x90 | count])
    return _head(0xDC, 2, count) if count < 1 << 16 else _head(0xDD, 4, count)


def bytes_head(length: int) -> bytes:
    """Before so many bytes."""
    if length < 1 << 8:
        return _head(0xC4, 1, length)
    return _head(0xC5, 2, length) if length < 1 << 16 else _head(0xC6, 4, length)


def _head(kind: int, width: int, number: int) -> bytes:
    return bytes([kind]) + number.to_bytes(width, "big")
