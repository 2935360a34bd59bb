"""Driving a cluster by unary calls, as any gRPC client would: one call, one HTTP/2 stream."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import grpc

from kvstore.ring import ClusterState, preference_list
from kvstore.v1 import client_pb2 as pb
from kvstore.v1.client_pb2_grpc import KVStub


class UnaryClient:
    """Sends each call to the first replica of its key, as the Python client does."""

    def __init__(self, state: ClusterState) -> None:
        self._ring = state.ring
        self._channels = {m.node: grpc.aio.insecure_channel(m.address) for m in state.members}
        self._stubs = {node: KVStub(channel) for node, channel in self._channels.items()}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()

    def _stub(self, bucket: str, key: bytes) -> KVStub:
        return self._stubs[preference_list(self._ring, self._ring.partition(bucket, key), 1)[0]]

    async def put(self, bucket: str, key: bytes, value: bytes) -> None:
        """Put without a context; raises AioRpcError."""
        await self._stub(bucket, key).Put(pb.PutRequest(bucket=bucket, key=key, value=value))

    async def get(self, bucket: str, key: bytes) -> None:
        """Get; raises AioRpcError."""
        await self._stub(bucket, key).Get(pb.GetRequest(bucket=bucket, key=key))
