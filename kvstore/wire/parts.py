"""Frames of nodes in parts: one that is larger than a server takes at once.

A version may be far larger than any request of a client: it has all siblings of its key. With parts a server
takes no more from anybody at once than the largest request, and counts what it has of unfinished frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import DecodeError

from kvstore.config import FRAME_BYTES, MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.v1.peer_pb2 import FramePart

_TAG = bytes([0xF2, 0x01])
"""With its first field a part begins, and no Frame."""


def parts_of(frame: bytes) -> Iterable[bytes]:
    """What is sent for a frame: itself, or its parts."""
    return (frame,) if len(frame) <= MAX_REQUEST_BYTES else _split(frame)


def _split(frame: bytes) -> Iterator[bytes]:
    for at in range(0, len(frame), FRAME_BYTES):
        left = (len(frame) - at - 1) // FRAME_BYTES
        yield FramePart(part=frame[at : at + FRAME_BYTES], left=left).SerializeToString()


class PartsRoom:
    """What one node holds of unfinished frames of all streams, in bytes: as much as the largest frame."""

    def __init__(self) -> None:
        self.bytes = 0


class FrameParts:
    """The unfinished frame of one stream."""

    def __init__(self, room: PartsRoom) -> None:
        self._room = room
        self._parts: list[bytes] = []
        self._bytes = 0
        self._left = 0

    def add(self, data: bytes) -> bytes:
        """The frame that `data` is, or completes; empty: more is to come.

        Raises InvalidRequest for what is no part, or not the next one, Overloaded when there is no room.
        """
        if not data.startswith(_TAG):
            if self._parts:
                raise InvalidRequest("frame", "comes before another one is complete")
            return data
        try:
            part = FramePart.FromString(data)
        except DecodeError as error:
            raise InvalidRequest("frame", f"is no part: {error}") from error
        if not part.part or (self._parts and part.left != self._left - 1):
            raise InvalidRequest("frame", f"is a part with {part.left} to come, not the next of {self._left}")
        return self._take(part.part, part.left)

    def _take(self, part: bytes, left: int) -> bytes:
        if self._room.bytes + len(part) > MAX_MESSAGE_BYTES:
            raise Overloaded(1.0, f"{self._room.bytes} bytes of frames are unfinished")
        self._parts.append(part)
        self._left = left
        self._bytes += len(part)
        self._room.bytes += len(part)
        if left:
            return b""
        frame = b"".join(self._parts)
        self.drop()
        return frame

    def drop(self) -> None:
        """What has come is not needed any more."""
        self._parts.clear()
        self._room.bytes -= self._bytes
        self._bytes = self._left = 0
