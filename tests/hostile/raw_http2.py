"""A client of HTTP/2 that reads when it wants to: gRPC's own client takes a reply before anybody asks."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from contextlib import suppress

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_INITIAL_WINDOW_SIZE = 4
_LARGEST_WINDOW = 2**31 - 1


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _setting(window: int) -> bytes:
    return _frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, window))


def _headers(path: str) -> bytes:
    """HPACK: literals without an index and without Huffman's code."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


class RawConnection:
    """One connection on which no byte of a reply may be sent before `read_all`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._stream = -1
        self.ended: set[int] = set()
        """Streams that the server has ended."""
        self.bytes: Counter[int] = Counter()
        """What has come of each reply, by stream."""
        self.over = asyncio.Event()
        """Set when the server has ended the connection."""
        writer.write(_PREFACE + _setting(0))
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def open(cls, port: int) -> RawConnection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def call(self, path: str, message: bytes) -> int:
        """Begin a unary call, of a message of at most 16 KiB; its stream."""
        self._stream += 2
        data = b"\0" + struct.pack(">I", len(message)) + message
        self._writer.write(
            _frame(_HEADERS, _END_HEADERS, self._stream, _headers(path))
            + _frame(_DATA, _END_STREAM, self._stream, data)
        )
        await self._writer.drain()
        return self._stream

    def read_all(self) -> None:
        """From now on everything may be sent."""
        update = _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _LARGEST_WINDOW - 65_535))
        self._writer.write(_setting(_LARGEST_WINDOW) + update)

    async def close(self) -> None:
        self._task.cancel()
        self._writer.close()
        await asyncio.wait([self._task])

    async def _receive(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await self._receive_frames()
        self.over.set()

    async def _receive_frames(self) -> None:
        while True:
            head = await self._reader.readexactly(9)
            size = int.from_bytes(head[:3])
            kind, flags, stream = struct.unpack(">BBI", head[3:])
            payload = await self._reader.readexactly(size)
            if kind in (_SETTINGS, _PING) and not flags & _ACK:
                self._writer.write(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
            elif kind == _DATA:
                self.bytes[stream] += size
            if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
                self.ended.add(stream)
