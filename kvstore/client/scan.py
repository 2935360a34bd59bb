"""Listing the keys of a bucket: asking so many replicas that no acknowledged write can hide."""

from __future__ import annotations

import asyncio

from kvstore.client.connection import Connection
from kvstore.client.router import Router
from kvstore.client.unary import unary
from kvstore.errors import KVError, Unavailable
from kvstore.ring import preference_list
from kvstore.v1 import client_pb2 as pb


async def scan_partition(router: Router, bucket: str, w: int, partition: int, timeout: float) -> list[bytes]:
    """The keys of one partition, in order: the union of what n - w + 1 primaries hold.

    A write that W primaries acknowledged is on one of any n - w + 1. `timeout` is in seconds, for each
    page. Raises Unavailable when too few answer, InvalidRequest.
    """
    n = router.state.bucket(bucket).n
    # the connections of now: the members may change meanwhile
    primaries = list(map(router.connection, preference_list(router.state.ring, partition, n)))
    primaries.sort(key=lambda connection: not connection.ready)
    required = max(1, len(primaries) - w + 1)
    keys: set[bytes] = set()
    answered = 0
    problem: KVError | None = None
    while answered < required and len(primaries) >= required - answered:
        asked, primaries = primaries[: required - answered], primaries[required - answered :]
        tasks = (_keys_at(connection, bucket, partition, timeout) for connection in asked)
        for found in await asyncio.gather(*tasks):
            if isinstance(found, KVError):
                problem = found
            else:
                answered += 1
                keys.update(found)
    if answered < required:
        raise Unavailable(required, answered) from problem
    return sorted(keys)


async def _keys_at(
    connection: Connection, bucket: str, partition: int, timeout: float
) -> list[bytes] | KVError:
    """All pages of one replica, or the error that its listing ended with."""
    keys: list[bytes] = []
    after = b""
    while True:
        request = pb.ScanKeysRequest(bucket=bucket, partition=partition, after=after)
        try:
            page = await unary(
                connection.channel,
                connection.address,
                "/kvstore.v1.KV/ScanKeys",
                request,
                pb.ScanKeysResponse.FromString,
                timeout,
            )
        except KVError as error:
            return error
        keys.extend(page.keys)
        after = page.next
        if not after:
            return keys
