"""kvstore itself, three nodes with N=3 W=2 R=2."""

from __future__ import annotations

from pathlib import Path

import kvstore.aio
from bench.peers.peer import NODES, Peer
from bench.usage import cpu
from kvstore.local.cluster import LocalCluster


class Kvstore(Peer):
    """Through its asyncio client."""

    name = "kvstore"
    guarantee = "a put is synced on two of three, a get asks two"
    client = "kvstore.aio"

    def __init__(self) -> None:
        self._cluster: LocalCluster | None = None
        self._client: kvstore.aio.Client | None = None

    async def start(self, directory: Path) -> None:
        self._cluster = LocalCluster.create(directory, NODES, first_port=None)
        self._cluster.start()
        self._client = await kvstore.aio.connect(self._cluster.endpoints)
        self._bucket = self._client.bucket("bench", timeout=30)

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._cluster is not None:
            self._cluster.stop()

    async def put(self, key: bytes, value: bytes) -> None:
        await self._bucket.put(key, value)

    async def get(self, key: bytes) -> bytes:
        found = await self._bucket.get(key)
        assert found.value is not None, "a key that was put is gone"
        return found.value

    def server_cpu(self) -> float:
        assert self._cluster is not None
        return sum(cpu(pid) for pid in map(self._cluster.pid, self._cluster.nodes) if pid)
