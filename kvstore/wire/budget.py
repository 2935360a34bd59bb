"""How many items one frame may carry, counted before it is parsed into objects.

A frame of few bytes can hold very many messages: an empty one takes two. Parsed, each takes some fifty times
as much memory, and carried out, as much time as a large one. So a long frame is walked first, from tag to
tag, and refused as soon as it has more items than it may; a short one cannot hurt, and is counted when it
has been parsed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, TypeAlias

from kvstore.config import FRAME_BYTES, FRAME_ITEMS, KIB
from kvstore.errors import InvalidRequest

CALLS_OF_A_SESSION = 8192
"""Calls in one frame of a Session: twice as many as the Python client has unanswered at all."""
MESSAGES_OF_A_NODE = 2 * FRAME_ITEMS
"""Messages in one frame of a node: twice as many as nodes send."""
NUMBERS_OF_A_NODE = FRAME_BYTES // 10
"""Acknowledgements in one frame: by `size_of` each is taken for 10 bytes."""
GOSSIP_OF_A_NODE = 1024
"""Messages of the failure detector among them, of each type: a node sends a few in a second."""
ITEMS_OF_A_LIST = FRAME_BYTES // 64
"""Items of a list within a message: siblings, keys, hashes, members."""

_SHORT = 64 * KIB
"""Frames up to here are parsed uncounted."""
_LONG = 2 * FRAME_BYTES
"""Longer ones hold one large item, so that what is in their columns can be counted as well. In others it is
not: an item of a column takes 16 bytes when it is parsed, and counting would cost more than parsing."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf. Groups are not used."""

Lists: TypeAlias = "Mapping[int, Lists]"
"""The fields of a message, by number, in which there may be lists, or messages with lists, and so on."""


def check_items(count: int, most: int, what: str) -> None:
    """Raise InvalidRequest for more than `most` items called `what`."""
    if count > most:
        raise InvalidRequest("frame", f"has {count} {what}, the limit is {most}")


class FrameBudget:
    """Of the frames of one kind: `most` fields, those within messages that have lists included.

    `frame` is the descriptor of their message, `columns` are its fields whose items travel in columns.
    """

    def __init__(self, frame: Any, most: int, columns: Container[int]) -> None:
        self._most = most
        self._all = _lists(frame)
        self._but_columns = {n: lists for n, lists in self._all.items() if n not in columns}

    def check(self, data: bytes) -> None:
        """Raise InvalidRequest when a long frame has too many fields, or what is no field."""
        if len(data) > _SHORT:
            lists = self._all if len(data) > _LONG else self._but_columns
            try:
                left = _walk(data, 0, len(data), self._most, lists)
            except IndexError:
                raise InvalidRequest("frame", "ends within a field") from None
            if left < 0:
                raise InvalidRequest("frame", f"has more than {self._most} fields")


def _lists(message: Any) -> Lists:
    found: dict[int, Lists] = {}
    for field in message.fields:
        if (part := field.message_type) is not None:
            lists = _lists(part)
            if lists or any(each.is_repeated for each in part.fields):
                found[field.number] = lists
    return found


def _walk(data: bytes, at: int, end: int, left: int, lists: Lists) -> int:
    """How many of `left` fields are left after those up to `end`; less than 0: it has more."""
    while at < end and left >= 0:
        left -= 1
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = read_varint(data, at)
            if tag >> 3 in lists:
                left = _walk(data, at, min(at + length, end), left, lists[tag >> 3])
            at += length
        elif kind == _VARINT:
            _, at = read_varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise InvalidRequest("frame", f"has a field of the type {kind}")
    return left


def read_varint(data: bytes, at: int) -> tuple[int, int]:
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
