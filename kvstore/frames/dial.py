"""Opening a stream to a node."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from kvstore.frames.framing import PREFACE
from kvstore.frames.in_turn import first_good
from kvstore.frames.incoming import StreamLost
from kvstore.frames.proxy import connect_through, proxy
from kvstore.frames.resolve import resolve
from kvstore.frames.stream import FrameStream, reason
from kvstore.v1.stream_pb2 import Open

T = TypeVar("T")

_LONGEST_MS = 2**32 - 1


async def open_stream(
    address: str,
    method: str,
    most: int,
    *,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    timeout: float = 0.0,
) -> FrameStream:
    """Connect to `host:port` and open a stream of `method`; messages of up to `most` bytes are received.

    A name is resolved now, and its addresses are tried until one takes the connection. The node is told of a
    `timeout` in seconds that is not 0: nobody waits longer for its answer. Whether it has the method shows
    with the first message. Raises StreamLost when nobody is there.
    """
    stream, _ = await open_answered(address, method, most, _nothing, metadata=metadata, timeout=timeout)
    return stream


async def open_answered(
    address: str,
    method: str,
    most: int,
    begin: Callable[[FrameStream], Awaitable[T]],
    *,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    timeout: float = 0.0,
) -> tuple[FrameStream, T]:
    """As `open_stream`, at the first address of a name where `begin` succeeds; with what it returns.

    More than one address may be tried at a time, so `begin` must be of no effect. Raises what it raises too.
    """
    given = {name: value if isinstance(value, bytes) else value.encode() for name, value in metadata}
    told = min(math.ceil(timeout * 1000), _LONGEST_MS)
    opening = Open(method=method, metadata=given, timeout_ms=told).SerializeToString()

    async def attempt(where: str) -> tuple[FrameStream, T]:
        stream = FrameStream(most)
        try:
            await _with_reason(connect(where, stream))
            stream.open(PREFACE, opening)
            return stream, await begin(stream)
        except BaseException:
            stream.break_off()
            raise

    return await first_good(await _addresses_of(address), attempt, lambda opened: opened[0].break_off())


async def _addresses_of(address: str) -> Sequence[str]:
    """Where to connect to, one after the other, for `host:port`. Raises StreamLost with the reason."""
    # what a name means to a proxy, only the proxy knows
    return [address] if proxy() else await _with_reason(resolve(address))


async def _nothing(_stream: FrameStream) -> None:
    """Whoever takes the connection will do."""


async def _with_reason(connecting: Awaitable[T]) -> T:
    try:
        return await connecting
    except OSError as error:
        raise StreamLost(reason(error)) from error
    except ValueError as error:  # of the name: a label that is empty or too long, or no text
        raise StreamLost("is no address that can be looked up") from error


async def connect(address: str, protocol: asyncio.Protocol) -> None:
    """Connect to `host:port`, where an IPv6 address has brackets; raises OSError, ValueError for no name.

    The host is an IP address, or a name that a proxy knows.
    """
    loop = asyncio.get_running_loop()
    if named := proxy():
        await loop.create_connection(lambda: protocol, sock=await connect_through(named, address))
        return
    host, _, port = address.rpartition(":")
    await loop.create_connection(lambda: protocol, host.strip("[]"), int(port))
