"""A connection that is passed on to the gRPC server of this process, as it is.

gRPC takes its connections from a port of its own alone. So that a node has one port for all, what comes to it
and is gRPC's is passed on to another one, on the loopback interface.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from kvstore.config import KIB

_UNWRITTEN = 256 * KIB
"""Bytes that wait for one side, after which no more are taken from the other."""


class Side(asyncio.Protocol):
    """One of the two connections; what comes on it leaves on the other."""

    def __init__(self, other: Side | None = None, when_over: Callable[[], None] | None = None) -> None:
        self._transport: asyncio.Transport | None = None
        self._ended = False
        """Whether the other end has said that it sends no more."""
        self._other = other
        self._when_over = when_over

    def join(self, other: Side) -> None:
        """Say which the other one is."""
        self._other = other

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio
        self._transport.set_write_buffer_limits(_UNWRITTEN)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.write(data)

    def eof_received(self) -> bool:
        """See asyncio.Protocol: the other direction stays open until it has ended as well.

        Then both are closed here: asyncio, which waits for no more bytes, would keep them open for ever.
        """
        self._ended = True
        other = self._other
        if other is None or other._transport is None:
            return False
        other._transport.write_eof()
        if other._ended:
            other.close()
        return not other._ended

    def pause_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._transport = None
        # each knows the other: both, and what they hold, would wait for the collector
        other, self._other = self._other, None
        if other is not None:
            other.close()
        if self._when_over is not None:
            self._when_over()

    def close(self) -> None:
        """End this one, when what was written to it has left."""
        if self._transport is not None:
            self._transport.close()


async def pass_on(
    transport: asyncio.Transport, begin: bytes, to: tuple[str, int], when_over: Callable[[], None]
) -> None:
    """Pass a connection, of which `begin` has been read, on to another address; raises OSError.

    It must not be read meanwhile. `when_over` is called when it has ended.
    """
    _, inner = await asyncio.get_running_loop().create_connection(Side, *to)
    if transport.is_closing():
        inner.close()
        return
    outer = Side(inner, when_over)
    inner.join(outer)
    transport.set_protocol(outer)
    outer.connection_made(transport)
    outer.data_received(begin)
    transport.resume_reading()
