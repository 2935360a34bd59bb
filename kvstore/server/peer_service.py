"""What other nodes call: the receiving ends of their streams."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc

from kvstore.errors import KVError
from kvstore.ring import ClusterState
from kvstore.server.driver import Driver
from kvstore.server.links import CLUSTER_METADATA, NODE_METADATA
from kvstore.v1.peer_pb2 import DESCRIPTOR, Welcome
from kvstore.wire.peer import decode_frame

SERVICE = DESCRIPTOR.services_by_name["Peer"].full_name

_log = logging.getLogger(__name__)


class PeerService:
    """Link and Bulk differ only in what their senders put on them."""

    def __init__(self, driver: Driver, name: str, state: ClusterState) -> None:
        self._driver = driver
        self._welcome = Welcome(node=name, cluster_id=state.cluster_id)
        self._state = state

    def handler(self) -> grpc.GenericRpcHandler:
        """The handlers of both streams; frames stay bytes, the codec reads them."""
        stream: Any = grpc.stream_stream_rpc_method_handler(
            self._receive, response_serializer=Welcome.SerializeToString
        )
        return grpc.method_handlers_generic_handler(SERVICE, {"Link": stream, "Bulk": stream})

    async def _receive(
        self, frames: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, Welcome]
    ) -> None:
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        sender = metadata.get(NODE_METADATA, "")
        cluster = metadata.get(CLUSTER_METADATA, "")
        if cluster != self._state.cluster_id or self._state.member(sender) is None:
            _log.warning("refused a stream from node %r of cluster %r", sender, cluster)
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION, f"this node is of cluster {self._state.cluster_id}"
            )
        await context.write(self._welcome)
        async for frame in frames:
            try:
                messages = decode_frame(frame)
            except KVError as error:
                _log.warning("node %s sent a bad frame: %s", sender, error)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            self._driver.receive(sender, messages)
