"""Asking one node for the keys of a partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from kvstore.client.connection import Connection
from kvstore.client.unary import unary
from kvstore.errors import KVError
from kvstore.v1 import client_pb2 as pb
from kvstore.versions import BucketName, UserKey


async def keys_at(
    connection: Connection, bucket: BucketName, partition: int, timeout: float
) -> list[UserKey] | KVError:
    """All keys that it holds, or the error that its listing ended with; `timeout` is for each page."""
    keys: list[UserKey] = []
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
        keys.extend(cast("Sequence[UserKey]", page.keys))
        after = page.next
        if not after:
            return keys
