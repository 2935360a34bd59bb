"""Large replies as pieces of protobuf: values are taken as they are, and copied once, by whoever joins them.

To fill a message with a value and to serialize it takes several copies, under the interpreter's lock.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kvstore.protocol.client import Found
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.client import reply_to_wire

_HAS_LENGTH = 2
"""The wire type of byte strings and messages."""


def found_in_pieces(found: Found) -> list[bytes]:
    """Joined, these are the GetResponse that `reply_to_wire` makes."""
    small: Any = reply_to_wire(
        replace(found, siblings=tuple([replace(each, value=b"") for each in found.siblings]))
    )
    rests = [sibling.SerializeToString() for sibling in small.siblings]
    del small.siblings[:]
    pieces = [small.SerializeToString()]
    for sibling, rest in zip(found.siblings, rests, strict=True):
        before = rest + head(pb.Sibling.VALUE_FIELD_NUMBER, len(sibling.value))
        size = len(before) + len(sibling.value)
        pieces += [head(pb.GetResponse.SIBLINGS_FIELD_NUMBER, size) + before, sibling.value]
    return pieces


def answer_in_pieces(number: int, found: Found) -> list[bytes]:
    """Joined, these are a SessionResponse with the answer to the call of this number."""
    pieces = found_in_pieces(found)
    begin = pb.Result(id=number).SerializeToString()
    begin += head(pb.Result.FOUND_FIELD_NUMBER, sum(map(len, pieces)))
    size = len(begin) + sum(map(len, pieces))
    return [head(pb.SessionResponse.RESULTS_FIELD_NUMBER, size) + begin, *pieces]


def head(field: int, length: int) -> bytes:
    """What is before a field of so many bytes."""
    found = bytearray([field << 3 | _HAS_LENGTH])
    while length > 0x7F:
        found.append(length & 0x7F | 0x80)
        length >>= 7
    found.append(length)
    return bytes(found)
