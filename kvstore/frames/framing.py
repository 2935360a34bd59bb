"""How frames follow each other in the bytes of a connection: docs/streams.md."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

PREFACE = b"kvstore\x01"
"""What a connection begins with, its last byte the version. HTTP/2 begins with "PRI * HTTP/2.0"."""

_HEADER = struct.Struct(">BI")
"""The kind of a frame, and its length without these five bytes."""
_MOST_OF_OPEN = 64 * 1024
_LARGE = 64 * 1024
"""What comes of a longer payload is kept as it comes: a buffer that grows copies it."""
_SMALL_PIECE = 16 * 1024
"""Pieces of it that are shorter are added to each other: each takes some bytes beside its own."""


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    """The first one of who has connected: which method, with which metadata."""
    MESSAGE = 2
    END = 3
    """The last one: a google.rpc.Status, empty for OK. Of who has connected: there are no more messages."""


class Frame(NamedTuple):
    """One frame; `kind` is a Kind, left a number since there are very many of them.

    A large one is left in `pieces`, and its `payload` empty: to join them takes a millisecond a MiB, which
    need not be the loop's.
    """

    kind: int
    payload: bytes
    pieces: tuple[bytes, ...] = ()


class FramingError(Exception):
    """What comes is no sequence of frames; the text says why."""


class FrameTooLarge(FramingError):
    """A frame is larger than may be."""


def header(kind: Kind, length: int) -> bytes:
    """What stands before a payload of `length` bytes."""
    return _HEADER.pack(kind, length)


class Framing:
    """Finds the frames in what arrives, in whatever pieces; none is larger than `most` bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._data: bytes | bytearray = b""
        self._at = 0
        """Where in it the next frame begins."""
        self._pieces: list[bytes | bytearray] = []
        self._gathered = self._left = 0
        """Of the large message whose pieces are kept: how many bytes are here, and are to come."""

    @property
    def unfinished(self) -> int:
        """Bytes that are here and of which no frame was made yet."""
        return len(self._data) - self._at + self._gathered

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with this. What nobody takes from it, `next` gives later."""
        if self._left:
            data = self._gather(data)
        if self._at == len(self._data):
            self._data, self._at = data, 0
        else:
            self._drop_taken()
            self._data += data
        return iter(self.next, None)

    def _gather(self, data: bytes) -> bytes:
        """Add to the pieces of a large message; what is left of the data belongs to other frames."""
        piece = data[: self._left]
        self._left -= len(piece)
        self._gathered += len(piece)
        if len(piece) >= _SMALL_PIECE:
            self._pieces.append(piece)
        elif isinstance(last := self._pieces[-1], bytearray):
            last += piece
        else:
            self._pieces.append(bytearray(piece))
        return data[len(piece) :]

    def next(self) -> Frame | None:
        """The next frame, None while the rest of it has to come. Raises FramingError after the good ones."""
        if self._gathered:
            return None if self._left else self._complete()
        data, begin = self._data, self._at + _HEADER.size
        if begin <= len(data):
            kind, length = _HEADER.unpack_from(data, self._at)
            self._check(kind, length)
            end = begin + length
            if end <= len(data):
                payload = data[begin:end] if isinstance(data, bytes) else bytes(memoryview(data)[begin:end])
                self._data, self._at = (data, end) if end < len(data) else (b"", 0)
                return Frame(kind, payload)
            if length > _LARGE and kind == Kind.MESSAGE:
                self._pieces = [bytes(memoryview(data)[begin:])]
                self._gathered, self._left = len(data) - self._at, end - len(data)
                self._data, self._at = b"", 0
        if self._at:
            self._drop_taken()
        return None

    def _complete(self) -> Frame:
        pieces = tuple(map(bytes, self._pieces))
        self._pieces, self._gathered = [], 0
        return Frame(Kind.MESSAGE, b"", pieces)

    def clear(self) -> None:
        """Nobody wants what has come."""
        self._data, self._at = b"", 0
        self._pieces, self._gathered, self._left = [], 0, 0

    def _drop_taken(self) -> None:
        """Keep only what is not taken: a few bytes must not hold all that came with them."""
        if isinstance(self._data, bytearray):
            del self._data[: self._at]
        else:
            self._data = bytearray(memoryview(self._data)[self._at :])
        self._at = 0

    def _check(self, kind: int, length: int) -> None:
        if kind not in _KINDS:
            raise FramingError(f"frame of unknown kind {kind}")
        most = self._most if kind == Kind.MESSAGE else _MOST_OF_OPEN
        if length > most:
            raise FrameTooLarge(f"frame of {length} bytes, the limit is {most}")


_KINDS = frozenset(Kind)
