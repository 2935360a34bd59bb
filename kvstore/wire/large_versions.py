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
from kvstore.versions import NO_VERSION
from kvstore.wire.codec import codec_of
from kvstore.wire.large_fields import LARGE, Cut, cut
from kvstore.wire.pieces import head

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
_VERSIONS = {place.message: place.version for place in _PLACES.values()}


def in_pieces(messages: Sequence[PeerMessage], sent_ms: int) -> list[bytes] | None:
    """Joined, these are a frame with the messages.

    None: they are more than one message with a large version, or that would be sent in parts.
    """
    message: Any = messages[0]
    struct: type = type(message)
    place = _PLACES.get(struct)
    if len(messages) > 1 or place is None or len(message.version) <= LARGE:
        return None
    wire: Any = place.wire
    rest = wire()
    codec_of(struct, wire.DESCRIPTOR).fill(rest, replace(message, version=NO_VERSION))
    body = rest.SerializeToString() + head(place.version, len(message.version))
    if len(body) + len(message.version) + KIB > MAX_REQUEST_BYTES:
        return None
    before = pb.Frame(sent_ms=sent_ms).SerializeToString()
    return [before + head(place.message, len(body) + len(message.version)) + body, message.version]


def apart(pieces: Sequence[bytes]) -> Cut | None:
    """Of a frame as `in_pieces` makes them, its version and what is left; None for all others."""
    return cut(pieces, _VERSIONS)
