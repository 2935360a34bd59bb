"""Whether another process serves the node already that is about to start."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from kvstore.config import MAX_REQUEST_BYTES
from kvstore.errors import ConfigError
from kvstore.frames import dial
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.v1 import admin_pb2 as pb

_METHOD = "kvstore.v1.Admin/GetStatus"
_SECONDS = 1.0
"""Who has not answered by then is not there."""


async def check_not_served(node: str, cluster_id: str, address: str) -> None:
    """Raise ConfigError when somebody answers as this node at its `address` in the member list."""

    async def is_it(stream: FrameStream) -> None:
        await stream.write(pb.GetStatusRequest().SerializeToString())
        found = pb.GetStatusResponse.FromString(await stream.read() or b"")
        if (found.node, found.cluster_id) != (node, cluster_id):
            raise StreamLost("is another node")

    try:
        async with asyncio.timeout(_SECONDS):
            stream, _ = await dial.open_answered(address, _METHOD, MAX_REQUEST_BYTES, is_it)
            await stream.leave()
    except (TimeoutError, StreamLost, StreamEnded, DecodeError):
        return
    raise ConfigError(f"node {node} is already served at {address}, its address in the initial cluster")
