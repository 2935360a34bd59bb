"""Unary calls to one node, their failures as typed errors; and channels with the options we need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from kvstore.client.environment import check_process, closed, opened
from kvstore.client.proxy import proxy_for
from kvstore.errors import ConfigError, InternalError, KVError, NoNodeAvailable
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.errors import error_from_status
from kvstore.wire.ring import state_from_wire

Response = TypeVar("Response")

_OPTIONS = (
    # grpc's own backoff grows to two minutes, which makes a healed network look broken
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # a connection that was cut without a word is noticed in seconds, even when nobody calls
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # a reply may carry a hundred siblings of any size, and must arrive for them to be resolved
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

_GRACE = 1.0
"""Seconds more than gRPC has: where it does not keep its own time, nothing of it works."""
_CLOSED = "the connection was closed"
_UNREACHABLE = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNIMPLEMENTED,
}


def open_channel(address: str) -> grpc.aio.Channel:
    """A channel to one node; it connects when it is used. Raises WrongEnvironment."""
    check_process()
    through_proxy = ("grpc.enable_http_proxy", int(proxy_for(address) is not None))
    channel = grpc.aio.insecure_channel(address, options=(*_OPTIONS, through_proxy))
    opened(channel)
    return channel


async def close_channel(channel: grpc.aio.Channel) -> None:
    """Cancel its calls and close it; gRPC's threads end when nobody refers to it any more."""
    await channel.close()
    closed(channel)


async def unary(
    channel: grpc.aio.Channel,
    address: str,
    method: str,
    request: Message,
    parse: Callable[[bytes], Response],
    timeout: float,
) -> Response:
    """Call `method` (`/service/name`); raises the node's own error, else NoNodeAvailable with the reason.

    InternalError when its reply cannot be read.
    """
    task = asyncio.current_task()
    assert task is not None
    call: grpc.aio.UnaryUnaryMultiCallable[Message, Response] = channel.unary_unary(
        method, request_serializer=_serialize, response_deserializer=parse
    )
    try:
        async with asyncio.timeout(timeout + _GRACE):
            response: Response | None = await call(request, timeout=timeout)
    except TimeoutError:
        raise NoNodeAvailable({address: "gRPC is stuck in this process"}) from None
    except asyncio.CancelledError:
        if task.cancelling():
            raise
        raise NoNodeAvailable({address: _CLOSED}) from None  # closing a channel cancels its calls
    except grpc.aio.UsageError as error:
        raise NoNodeAvailable({address: _CLOSED}) from error
    except grpc.aio.AioRpcError as error:
        raise _typed(address, error) from error
    if response is None:  # so gRPC says that it could not parse it
        raise InternalError(f"{address} sent a reply that cannot be read")
    return response


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def _typed(address: str, error: grpc.aio.AioRpcError) -> KVError:
    status = rpc_status.from_call(cast(grpc.Call, error))
    if status is not None:
        return error_from_status(status)
    if error.code() in _UNREACHABLE:
        proxy = proxy_for(address)
        through = f" (through the proxy {proxy} that grpc_proxy names)" if proxy else ""
        return NoNodeAvailable({address: reason(error) + through})
    return InternalError(f"{address}: {reason(error)}")


def reason(error: grpc.aio.AioRpcError) -> str:
    """What went wrong, in a few words."""
    details = (error.details() or "").rpartition("remote host: ")[2]
    return details or error.code().name.lower().replace("_", " ")


async def fetch_state(channel: grpc.aio.Channel, address: str, timeout: float) -> ClusterState:
    """The cluster state that a node knows; raises NoNodeAvailable, or the node's own error."""
    response = await unary(
        channel,
        address,
        "/kvstore.v1.KV/GetRing",
        pb.GetRingRequest(),
        pb.GetRingResponse.FromString,
        timeout,
    )
    try:
        return state_from_wire(response)
    except (ConfigError, ValueError, IndexError) as error:
        raise NoNodeAvailable({address: f"sent a ring that cannot be read: {error}"}) from error
