"""One large value cut out of the bytes of a message, before these are parsed.

Protobuf copies it when the message is parsed and again when the field is asked for, under the interpreter's
lock. Cut out, it stays in the pieces in which it has come, and whoever wants it joins them, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kvstore.config import KIB
from kvstore.errors import InvalidRequest
from kvstore.wire.budget import read_varint
from kvstore.wire.pieces import head

LARGE = 64 * KIB
"""A longer value is cut out."""
_BEGIN = 16 * KIB
"""Where a value begins that is cut out: what is before it in an honest message is shorter."""
_BESIDE = 64 * KIB
"""A message with more beside its value is parsed whole: it may hold another."""
_VARINT, _BYTES = 0, 2


class Cut(NamedTuple):
    """The value in its pieces, and the `rest`: the message, with no bytes in its place."""

    rest: bytes
    value: list[bytes]


class _Found(NamedTuple):
    """A field by number, where its tag is, what it holds, and where that ends."""

    field: int
    tag: int
    begin: int
    end: int


def cut(pieces: Sequence[bytes], places: Mapping[int, int]) -> Cut | None:
    """The large value in one of these places, if there is one: of a field in a field, both by number.

    None as well for a message with much beside it, and for what is none: whoever parses it says so.
    """
    size = sum(map(len, pieces))
    if size <= LARGE:
        return None
    begin = _between(pieces, 0, min(_BEGIN, size))
    try:
        outer = _find(begin, 0, size, places)
        value = _find(begin, outer.begin, outer.end, {places[outer.field]: 0}) if outer else None
    except (IndexError, InvalidRequest):
        return None
    if not outer or not value or size - (value.end - value.begin) > _BESIDE:
        return None
    inner = begin[outer.begin : value.tag] + head(value.field, 0)
    inner += _between(pieces, value.end, outer.end)
    rest = begin[: outer.tag] + head(outer.field, len(inner)) + inner
    return Cut(rest + _between(pieces, outer.end, size), _part(pieces, value.begin, value.end))


def _find(data: bytes, at: int, end: int, fields: Mapping[int, int]) -> _Found | None:
    """The first large one of these fields up to `end`; raises IndexError when the data ends before that."""
    while at < end:
        before = at
        tag, at = read_varint(data, at)
        if tag & 7 not in (_VARINT, _BYTES):  # another message than is sent here
            return None
        number, at = read_varint(data, at)
        if tag & 7 == _BYTES:
            if number > LARGE:
                found = _Found(tag >> 3, before, at, at + number)
                return found if tag >> 3 in fields and found.end <= end else None
            at += number
    return None


def _part(pieces: Sequence[bytes], begin: int, end: int) -> list[bytes]:
    """What is from one place to another."""
    found, at = [], 0
    for piece in pieces:
        if at < end and begin < at + len(piece):
            found.append(piece[max(0, begin - at) : end - at])
        at += len(piece)
    return found


def _between(pieces: Sequence[bytes], begin: int, end: int) -> bytes:
    return b"".join(_part(pieces, begin, end))
