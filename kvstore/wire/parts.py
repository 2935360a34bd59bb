"""Frames of nodes in parts: one that is larger than a server takes at once.

A version may be far larger than any request of a client: it has all siblings of its key. With parts a server
takes no more from anybody at once than the largest request. kvstore.server.frame_parts puts them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from kvstore.config import FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from kvstore.errors import InvalidRequest
from kvstore.v1.peer_pb2 import FramePart

_TAG = bytes([0xF2, 0x01])
"""With its first field a part begins, and no Frame."""
_MOST_PARTS = MAX_MESSAGE_BYTES // FRAME_BYTES


def parts_of(frame: bytes) -> Iterable[bytes]:
    """What is sent for a frame: itself, or its parts."""
    return (frame,) if len(frame) <= MAX_REQUEST_BYTES else _split(frame)


def _split(frame: bytes) -> Iterator[bytes]:
    for at in range(0, len(frame), FRAME_BYTES):
        left = (len(frame) - at - 1) // FRAME_BYTES
        yield FramePart(part=frame[at : at + FRAME_BYTES], left=left).SerializeToString()


def is_part(data: bytes) -> bool:
    """Whether this is, or should be, a part of a frame."""
    return data.startswith(_TAG)


def part_of(data: bytes) -> FramePart | None:
    """The part that this is, None for a whole frame; raises InvalidRequest for what is neither."""
    if not is_part(data):
        return None
    try:
        part = FramePart.FromString(data)
    except DecodeError as error:
        raise InvalidRequest("frame", f"is no part: {error}") from error
    if not part.part or part.left >= _MOST_PARTS:
        raise InvalidRequest("frame", f"has a part of {len(part.part)} bytes with {part.left} to come")
    return part
