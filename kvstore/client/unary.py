"""Calls with one request and one answer to one node, their failures as typed errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2

from kvstore.config import MAX_MESSAGE_BYTES
from kvstore.errors import ConfigError, InternalError, InvalidRequest, KVError, NoNodeAvailable
from kvstore.frames import dial
from kvstore.frames.incoming import StreamEnded, StreamLost
from kvstore.frames.stream import FrameStream
from kvstore.ring import ClusterState
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.errors import error_from_status
from kvstore.wire.ring import state_from_wire

Response = TypeVar("Response")

_GET_RING = "kvstore.v1.KV/GetRing"


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
            stream = await dial.open_stream(address, method, MAX_MESSAGE_BYTES, timeout=timeout)
            try:
                answer = await _ask(request, stream)
            finally:
                await stream.leave()
    return _parsed(address, answer, parse)


def _parsed(address: str, answer: bytes | None, parse: Callable[[bytes], Response]) -> Response:
    if answer is None:
        raise InternalError(f"{address} has not answered")
    try:
        return parse(answer)
    except (DecodeError, ValueError, InvalidRequest) as error:
        raise InternalError(f"{address} sent a reply that cannot be read: {error}") from error


async def _ask(request: Message, stream: FrameStream) -> bytes | None:
    await stream.write(request.SerializeToString())
    return await stream.read()


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
    """The cluster state that a node knows; raises NoNodeAvailable, or the node's own error.

    Of a name with several addresses it is that of the first that answers, whichever node it is.
    """
    ask = partial(_ask, pb.GetRingRequest())
    with stream_errors(address):
        async with asyncio.timeout(timeout):
            stream, answer = await dial.open_answered(
                address, _GET_RING, MAX_MESSAGE_BYTES, ask, timeout=timeout
            )
            await stream.leave()
    return read_state(address, _parsed(address, answer, pb.GetRingResponse.FromString))


def read_state(address: str, response: pb.GetRingResponse) -> ClusterState:
    """The cluster state that a node has sent; raises NoNodeAvailable when it is none."""
    try:
        return state_from_wire(response)
    except (ConfigError, ValueError, IndexError) as error:
        raise NoNodeAvailable({address: f"sent a ring that cannot be read: {error}"}) from error
