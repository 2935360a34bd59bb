"""Frames of nodes that hold one large version and nothing else: it is copied once when such a frame is read.

Protobuf copies it when the frame is parsed and when the field is asked for, and when a frame is made as often
again. Here it stays outside: what is parsed and made is the frame without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from kvstore.config import KIB, MAX_REQUEST_BYTES
from kvstore.protocol.fields import Kind, fields_of
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.v1 import peer_pb2 as pb
from kvstore.versions import NO_VERSION, EncodedVersion
from kvstore.wire.budget import read_varint
from kvstore.wire.codec import codec_of
from kvstore.wire.pieces import head

_LARGE = 64 * KIB
_BESIDE = 64 * KIB
"""Where the version is looked for: longer than what is before it in any message."""
_FIELD = "version"
_KINDS = (Kind.VERSION, Kind.VERSION_OR_NONE)


class _Place(NamedTuple):
    """The fields in which messages of one type are: of the frame, and of the message the version."""

    message: int
    version: int
    wire: Any
    """The class of the message."""


def _places() -> dict[type, _Place]:
    found = {}
    for struct, row in PEER_TABLE.items():
        if any(field.name == _FIELD and field.kind in _KINDS for field in fields_of(struct)):
            number = pb.Frame.DESCRIPTOR.fields_by_name[row.frame_field].number
            wire = getattr(pb, struct.__name__)
            found[struct] = _Place(number, wire.DESCRIPTOR.fields_by_name[_FIELD].number, wire)
    return found


_PLACES = _places()
_VARINT, _BYTES = 0, 2
_BY_TAG = {place.message << 3 | _BYTES: place for place in _PLACES.values() if place.message < 16}
"""By the first byte of the field; further fields have more of them."""
_SENT = bytes([pb.Frame.SENT_MS_FIELD_NUMBER << 3 & 0x7F | 0x80, pb.Frame.SENT_MS_FIELD_NUMBER >> 4])
"""The tag of the field that comes first."""


def in_pieces(messages: Sequence[PeerMessage], sent_ms: int) -> list[bytes] | None:
    """Joined, these are a frame with the messages.

    None: they are more than one message with a large version, or that would be sent in parts.
    """
    message: Any = messages[0]
    struct: type = type(message)
    place = _PLACES.get(struct)
    if len(messages) > 1 or place is None or len(message.version) <= _LARGE:
        return None
    wire: Any = place.wire
    rest = wire()
    codec_of(struct, wire.DESCRIPTOR).fill(rest, replace(message, version=NO_VERSION))
    body = rest.SerializeToString() + head(place.version, len(message.version))
    if len(body) + len(message.version) + KIB > MAX_REQUEST_BYTES:
        return None
    before = pb.Frame(sent_ms=sent_ms).SerializeToString()
    return [before + head(place.message, len(body) + len(message.version)) + body, message.version]


def apart(data: bytes) -> tuple[bytes, EncodedVersion] | None:
    """A frame as `in_pieces` makes them: without its version, and that; None for all others."""
    if len(data) <= _LARGE:
        return None
    try:
        return _apart(data)
    except IndexError:  # it ends within a field: whoever parses it says so
        return None


def _apart(data: bytes) -> tuple[bytes, EncodedVersion] | None:
    begin = read_varint(data, len(_SENT))[1] if data.startswith(_SENT) else 0
    place = _BY_TAG.get(data[begin])
    length, body = read_varint(data, begin + 1)
    if place is None or body + length != len(data):
        return None
    at = _last(data, body, place.version)
    if not at:
        return None
    _, value = read_varint(data, at + 1)
    small = data[body:at]
    return data[:begin] + head(place.message, len(small)) + small, EncodedVersion(data[value:])


def _last(data: bytes, at: int, field: int) -> int:
    """Where a large field of a message begins that goes to the end of the data; 0: nowhere."""
    most = at + _BESIDE
    while at < most:
        tag, begin = data[at], at
        if tag > 0x7F:  # goes on in the next byte, as that of no field here
            break
        number, at = read_varint(data, at + 1)
        if tag & 7 == _BYTES:
            at += number
            if at == len(data) and number > _LARGE and tag >> 3 == field:
                return begin
        elif tag & 7 != _VARINT:
            break
    return 0
