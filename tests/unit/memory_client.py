"""What the tests of clients on a faulty network share: deadlines, and what may have become of a write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from kvstore import aio
from kvstore.client.core.routing import Routing
from kvstore.client.dispatcher import Dispatcher
from kvstore.errors import KVError, Outcome
from kvstore.v1 import client_pb2 as pb
from tests.unit.memory_streams import Network
from tests.unit.stepped_loop import stepped

TIMEOUT = 1.0
MOST = 300
"""Points of one kind in a scenario, at most: a fault that is never missed would go on for ever."""

Play = Callable[[Coroutine[Any, Any, None]], None]


async def ended(what: Awaitable[Any], seconds: float) -> Any:
    """Its result or its KVError; whatever else it ends with, or that it ends late, fails the test."""
    begun = stepped().now
    try:
        return await what
    except KVError as error:
        return error
    finally:
        assert stepped().now <= begun + seconds + 0.05, "it hung past its deadline"


async def settled(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not come to rest")


def routing_of(db: aio.Client) -> Routing:
    dispatcher = db._dispatcher
    assert isinstance(dispatcher, Dispatcher)
    return dispatcher.core.routing


async def ready(db: aio.Client, count: int) -> None:
    routing = routing_of(db)
    await settled(lambda: len(routing.reached) == count)


async def at_last(call: Callable[[], Awaitable[Any]]) -> Any:
    """The result of `call`, made again for a few seconds: until then the client must have reconnected."""
    until = stepped().now + 4.0
    while isinstance(result := await ended(call(), TIMEOUT), KVError):
        assert stepped().now < until, result
    return result


async def values(bucket: aio.Bucket, key: str) -> list[bytes]:
    """What is stored when all is well again."""
    got = await at_last(lambda: bucket.get(key))
    return [sibling.value for sibling in got.siblings]


def left_client(network: Network, key: str) -> bool:
    """Whether the client has begun to write a request that puts `key`."""
    for method, data in network.written:
        if method == "Session":
            request = pb.SessionRequest.FromString(data)
            if key.encode() in [*request.plain_puts.keys, *(call.put.key for call in request.calls)]:
                return True
    return False


def judge_write(outcome: Any, applied: list[bytes], left: bool) -> None:
    """Fail unless what is stored fits the result or error of a put of "v"."""
    assert applied in ([], [b"v"]), "applied twice"
    if not isinstance(outcome, KVError):
        assert applied == [b"v"], "acknowledged and lost"
    elif outcome.outcome is Outcome.NOT_APPLIED:
        assert applied == [], "said to be not applied"
    else:
        assert left, f"no node can have got it, and its outcome is unknown: {outcome!r}"
