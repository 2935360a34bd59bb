"""Frames between nodes: a batch of messages as bytes and back, derived from the table of messages.

On the hot path: messages are sorted by their type, and for each type a loop written for it fills the list in
which it travels. Acknowledgements, most of all messages, are packed numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any, get_args

from google.protobuf.message import DecodeError
from msgspec.structs import replace

from kvstore.errors import InvalidRequest
from kvstore.protocol.derive import function
from kvstore.protocol.fields import fields_of
from kvstore.protocol.gossip import GossipMessage
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.v1 import peer_pb2 as pb
from kvstore.versions import EncodedVersion
from kvstore.wire.budget import (
    GOSSIP_OF_A_NODE,
    ITEMS_OF_A_LIST,
    MESSAGES_OF_A_NODE,
    NUMBERS_OF_A_NODE,
    FrameBudget,
    check_items,
)
from kvstore.wire.codec import FieldDescriptor, Source
from kvstore.wire.columns import Columns
from kvstore.wire.large_versions import apart

NUMBERS_OF_A_MESSAGE = 512
"""At most, of those that are nothing but numbers: who gets a long frame can hand it in in several turns."""
Fill = Callable[[pb.Frame, Sequence[Any]], None]
"""Puts messages of one type into a new frame."""
Read = Callable[[Any], Iterable[PeerMessage]]
"""The messages of one field of a frame."""


def encode_frame(messages: Sequence[PeerMessage], sent_ms: int = 0) -> bytes:
    """One frame with all `messages`, sent now by the sender's clock; what order they had is not kept."""
    frame = pb.Frame(sent_ms=sent_ms)
    kinds = dict.fromkeys(map(type, messages))
    for kind in kinds:
        alike = messages if len(kinds) == 1 else [message for message in messages if type(message) is kind]
        _FILL[kind](frame, alike)
    return frame.SerializeToString()


def decode_frame(data: bytes) -> list[PeerMessage]:
    """The messages of a frame, whenever it was sent; raises InvalidRequest when the bytes are none."""
    return decode_timed_frame(data)[1]


def decode_timed_frame(data: bytes) -> tuple[int, list[PeerMessage]]:
    """Inverse of `encode_frame`: when it was sent, and the messages; raises InvalidRequest."""
    if large := apart((data,)):
        sent_ms, found = decode_timed_frame(large.rest)
        if len(found) == 1:
            return sent_ms, with_version(found[0], b"".join(large.value))
    _BUDGET.check(data)
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", str(error)) from error
    messages: list[PeerMessage] = []
    fields = []
    for field, items in frame.ListFields():
        if most := _MOST.get(field.number):
            check_items(len(items), most, field.name)
        fields.append((_PLACES[field.number], items))
    fields.sort(key=_place)
    for place, items in fields:
        messages += _READ[place](items)
    return frame.sent_ms, messages


def with_version(message: PeerMessage, version: bytes) -> list[PeerMessage]:
    """The messages of a frame with one, whose version was cut out of it."""
    return [replace(message, version=EncodedVersion(version))]


def _list_codec(struct: type, wire: FieldDescriptor) -> tuple[Fill, Read]:
    """Messages of one type in the list of a frame."""
    if wire.message_type is None:
        return _number_codec(struct, wire)
    source = Source(struct, wire.message_type)
    loop = [f"add = frame.{wire.name}.add", "for s in items:", "    m = add()"]
    return (
        function(f"fill_{wire.name}", "frame, items", loop + [f"    {x}" for x in source.fill], source.names),
        function(f"read_{wire.name}", "items", [f"return [{source.read} for m in items]"], source.names),
    )


def _number_codec(struct: type, wire: FieldDescriptor) -> tuple[Fill, Read]:
    """Messages that are nothing but numbers: one list for those of all of them, and few messages of it.

    The numbers are sliced: to go through them takes four times as long.
    """
    (field,) = fields_of(struct)
    fill = f"for s in items: frame.{wire.name}.extend(s.{field.name})"
    each = f"{struct.__name__}(tuple(items[i : i + {NUMBERS_OF_A_MESSAGE}]))"
    read = f"return [{each} for i in range(0, len(items), {NUMBERS_OF_A_MESSAGE})]"
    return (
        function(f"fill_{wire.name}", "frame, items", [fill], {}),
        function(f"read_{wire.name}", "items", [read], {struct.__name__: struct}),
    )


def _column_codec(struct: type, wire: FieldDescriptor, in_list: Fill) -> tuple[Fill, Read]:
    """Messages of which most travel in columns, and the others in a list."""
    columns = Columns(struct, wire.message_type)

    def fill(frame: pb.Frame, items: Sequence[Any]) -> None:
        plain, others = columns.split(items)
        if plain:
            columns.fill(getattr(frame, wire.name), plain)
        if others:
            in_list(frame, others)

    return fill, columns.read


def _codecs() -> tuple[dict[type, Fill], list[Read], dict[int, int]]:
    """How each type goes into a frame; how each field is read, in this order; where a field stands in it."""
    fills: dict[type, Fill] = {}
    reads: list[Read] = [lambda _sent_ms: ()]
    places = {pb.Frame.SENT_MS_FIELD_NUMBER: 0}
    for struct, row in PEER_TABLE.items():
        wire = pb.Frame.DESCRIPTOR.fields_by_name[row.frame_field]
        fills[struct], read = _list_codec(struct, wire)
        if row.columns:
            columns = pb.Frame.DESCRIPTOR.fields_by_name[row.columns]
            fills[struct], read_columns = _column_codec(struct, columns, fills[struct])
            places[columns.number] = len(reads)
            reads.append(read_columns)
        places[wire.number] = len(reads)
        reads.append(read)
    return fills, reads, places


def _bounds() -> dict[int, int]:
    """How many messages, or numbers, may be in the list of each field."""
    gossip = get_args(GossipMessage)
    lists = {pb.Frame.DESCRIPTOR.fields_by_name[row.frame_field]: s for s, row in PEER_TABLE.items()}
    messages = {
        wire.number: GOSSIP_OF_A_NODE if struct in gossip else MESSAGES_OF_A_NODE
        for wire, struct in lists.items()
        if wire.message_type is not None
    }
    return {wire.number: NUMBERS_OF_A_NODE for wire in lists} | messages


_FILL, _READ, _PLACES = _codecs()
_place = itemgetter(0)
_MOST = _bounds()
_BUDGET = FrameBudget(
    pb.Frame.DESCRIPTOR,
    MESSAGES_OF_A_NODE + ITEMS_OF_A_LIST,
    {pb.Frame.DESCRIPTOR.fields_by_name[row.columns].number for row in PEER_TABLE.values() if row.columns},
)
