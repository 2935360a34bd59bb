"""Asking all members of a cluster, each by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from google.protobuf.message import Message

from kvstore.client.connection import Connection
from kvstore.errors import KVError

Answer = TypeVar("Answer")


async def ask_all(
    connections: Mapping[str, Connection],
    method: str,
    request: Message,
    parse: Callable[[bytes], Answer],
    timeout: float,
) -> dict[str, Answer | KVError]:
    """What each node answers to a method of Admin within `timeout` seconds, or why it does not, by node."""
    answers = await asyncio.gather(
        *(_ask(connection, method, request, parse, timeout) for connection in connections.values())
    )
    return dict(zip(connections, answers, strict=True))


async def _ask(
    connection: Connection, method: str, request: Message, parse: Callable[[bytes], Answer], timeout: float
) -> Answer | KVError:
    try:
        return await connection.ask(f"kvstore.v1.Admin/{method}", request, parse, timeout)
    except KVError as error:
        return error
