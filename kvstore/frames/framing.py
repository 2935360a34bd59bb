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


class Kind(IntEnum):
    """What a frame is."""

    OPEN = 1
    """The first one of who has connected: which method, with which metadata."""
    MESSAGE = 2
    END = 3
    """The last one: a google.rpc.Status, empty for OK. Of who has connected: there are no more messages."""


class Frame(NamedTuple):
    """One frame; `kind` is a Kind, left a number since there are very many of them."""

    kind: int
    payload: bytes


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
        self._begun = bytearray()
        self._needed = 0

    @property
    def unfinished(self) -> int:
        """Bytes that wait for the rest of their frame."""
        return len(self._begun)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with this: take all. Raises FramingError after the good ones."""
        if not self._begun:
            return self._split(data)
        self._begun += data
        if len(self._begun) < self._needed:
            return iter(())
        whole, self._begun = self._begun, bytearray()
        return self._split(memoryview(whole))

    def _split(self, data: bytes | memoryview) -> Iterator[Frame]:
        begin, end, needed = 0, len(data), _HEADER.size
        while begin + _HEADER.size <= end:
            kind, length = _HEADER.unpack_from(data, begin)
            self._check(kind, length)
            needed = _HEADER.size + length
            if begin + needed > end:
                break
            yield Frame(kind, bytes(data[begin + _HEADER.size : begin + needed]))
            begin, needed = begin + needed, _HEADER.size
        if begin < end:
            self._begun += data[begin:]
            self._needed = needed

    def _check(self, kind: int, length: int) -> None:
        if kind not in _KINDS:
            raise FramingError(f"frame of unknown kind {kind}")
        most = self._most if kind == Kind.MESSAGE else _MOST_OF_OPEN
        if length > most:
            raise FrameTooLarge(f"frame of {length} bytes, the limit is {most}")


_KINDS = frozenset(Kind)
