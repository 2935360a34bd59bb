"""How many items one frame may carry, counted before it is parsed into objects.

A frame of few bytes can hold very many messages: an empty one takes two. Parsed, each takes some fifty times
as much memory, and carried out, as much time as a large one. So a long frame is walked first, from tag to
tag, and refused as soon as it has more items than it may; a short one cannot hurt, and is counted when it
has been parsed.
"""

from __future__ import annotations

from collections.abc import Container

from kvstore.config import FRAME_BYTES, MIB
from kvstore.errors import InvalidRequest

CALLS_OF_A_SESSION = 8192
"""Calls in one frame of a Session: twice as many as the Python client has unanswered at all."""
MESSAGES_OF_A_NODE = FRAME_BYTES // 64
"""Messages in one frame of a node: by `size_of` none is taken for less than 64 bytes."""
GOSSIP_OF_A_NODE = 1024
"""Messages of the failure detector among them, of each type: a node sends a few in a second."""

_SHORT = MIB
"""Frames up to here are parsed uncounted."""
_FIELDS_OF_A_CALL = 8
"""The most fields that a call takes when it travels in columns."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf. Groups are not used."""


def check_items(count: int, most: int, what: str) -> None:
    """Raise InvalidRequest for more than `most` items called `what`."""
    if count > most:
        raise InvalidRequest("frame", f"has {count} {what}, the limit is {most}")


def check_length(data: bytes, most: int, columns: Container[int]) -> None:
    """Raise InvalidRequest when a long frame has more than `most` fields, or what is no field.

    The fields of a message in the fields numbered `columns`, whose items travel in several lists, may be
    several times as many. The number of a frame's items is told by its parsed form: see `check_items`.
    """
    if len(data) > _SHORT:
        try:
            _walk(data, 0, len(data), most, columns)
        except IndexError:
            raise InvalidRequest("frame", "ends within a field") from None


def _walk(data: bytes, at: int, end: int, most: int, columns: Container[int]) -> None:
    for _ in range(most + 1):
        if at >= end:
            return
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if tag >> 3 in columns:
                _walk(data, at, min(at + length, end), _FIELDS_OF_A_CALL * most, ())
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise InvalidRequest("frame", f"has a field of the type {kind}")
    raise InvalidRequest("frame", f"has more than {most} fields")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; raises IndexError at the end of the data."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while shift < 70:
        at += 1
        byte = data[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at + 1
        shift += 7
    raise InvalidRequest("frame", "has a number of more than 64 bits")
