"""Asking one node for the keys of a partition."""

from __future__ import annotations

from kvstore.client.connection import Connection
from kvstore.client.unary import unary
from kvstore.errors import KVError
from kvstore.v1 import client_pb2 as pb


async def keys_at(
    connection: Connection, bucket: str, partition: int, timeout: float
) -> list[bytes] | KVError:
    """All keys that it holds, or the error that its listing ended with; `timeout` is for each page."""
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
