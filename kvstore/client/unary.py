"""Calls with one request and one answer to one node, their failures as typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from kvstore.config import MAX_MESSAGE_BYTES
from kvstore.errors import ConfigError, InternalError, InvalidRequest, KVError, NoNodeAvailable
from kvstore.frames import dial
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.errors import error_from_status
from kvstore.wire.ring import state_from_wire

Response = TypeVar("Response")


async def unary(
    address: str,
    method: str,
    request: Message,
    parse: Callable[[bytes], Response],
    timeout: float,
) -> Response:
    """Call `method` (`service/name`); raises the node's own error, else NoNodeAvailable with the reason.

    InternalError when its answer cannot be read.
    """
    with stream_errors(address):
        async with asyncio.timeout(timeout):
            answer = await _exchange(address, method, request.SerializeToString(), timeout)
    if answer is None:
        raise InternalError(f"{address} has not answered")
    try:
        return parse(answer)
    except (DecodeError, ValueError, InvalidRequest) as error:
        raise InternalError(f"{address} sent a reply that cannot be read: {error}") from error


async def _exchange(address: str, method: str, request: bytes, timeout: float) -> bytes | None:
    stream = await dial.open_stream(address, method, MAX_MESSAGE_BYTES, timeout=timeout)
    try:
        await stream.write(request)
        return await stream.read()
    finally:
        await stream.leave()


@contextmanager
def stream_errors(address: str) -> Iterator[None]:
    """How a stream to a node fails, as typed errors: NoNodeAvailable with the reason, or the node's own."""
    try:
        yield
    except TimeoutError:
        raise NoNodeAvailable({address: "no answer in time"}) from None
    except StreamLost as error:
        raise NoNodeAvailable({address: str(error)}) from error
    except StreamEnded as error:
        raise _ended(address, error) from error


def _ended(address: str, error: StreamEnded) -> KVError:
    """The typed error of a stream that a node has ended."""
    if error.status.details:
        return error_from_status(error.status)
    if error.status.code == code_pb2.UNIMPLEMENTED:  # a node of another version
        return NoNodeAvailable({address: error.status.message})
    return InternalError(f"{address}: {error}")


async def fetch_state(address: str, timeout: float) -> ClusterState:
    """The cluster state that a node knows; raises NoNodeAvailable, or the node's own error."""
    response = await unary(
        address, "kvstore.v1.KV/GetRing", pb.GetRingRequest(), pb.GetRingResponse.FromString, timeout
    )
    return read_state(address, response)


def read_state(address: str, response: pb.GetRingResponse) -> ClusterState:
    """The cluster state that a node has sent; raises NoNodeAvailable when it is none."""
    try:
        return state_from_wire(response)
    except (ConfigError, ValueError, IndexError) as error:
        raise NoNodeAvailable({address: f"sent a ring that cannot be read: {error}"}) from error
