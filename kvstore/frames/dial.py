"""Opening a stream to a node."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from kvstore.frames.framing import PREFACE
from kvstore.frames.incoming import StreamLost
from kvstore.frames.proxy import connect_through, proxy
from kvstore.frames.stream import FrameStream, reason
from kvstore.v1.stream_pb2 import Open

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

    The node is told of a `timeout` in seconds that is not 0: nobody waits longer for its answer. Whether it
    has the method shows with the first message. Raises StreamLost when nobody is there.
    """
    stream = FrameStream(most)
    try:
        await connect(address, stream)
    except OSError as error:
        raise StreamLost(reason(error)) from error
    except ValueError as error:  # of the name: a label that is empty or too long, or no text
        raise StreamLost("is no address that can be looked up") from error
    given = {name: value if isinstance(value, bytes) else value.encode() for name, value in metadata}
    told = min(math.ceil(timeout * 1000), _LONGEST_MS)
    stream.open(PREFACE, Open(method=method, metadata=given, timeout_ms=told).SerializeToString())
    return stream


async def connect(address: str, protocol: asyncio.Protocol) -> None:
    """Connect to `host:port`, where an IPv6 address has brackets; raises OSError, ValueError for no name."""
    loop = asyncio.get_running_loop()
    if named := proxy():
        await loop.create_connection(lambda: protocol, sock=await connect_through(named, address))
        return
    host, _, port = address.rpartition(":")
    try:
        await loop.create_connection(lambda: protocol, host.strip("[]"), int(port))
    except OSError as error:
        if error.errno is None:  # a list of what became of each address of a name
            raise ConnectionError("none of its addresses can be reached") from error
        raise
