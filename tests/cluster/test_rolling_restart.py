"""Real nodes are stopped and started one after the other while clients write: these notice nothing of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import kvstore
from kvstore.local.cluster import LocalCluster
from tests.patience import PATIENCE

WRITERS = 2
"""Writers at a time: each waits for the reply to a put, and makes the next."""

MORE = 100
"""Puts that are acknowledged between two stops."""


class Writers:
    """Put new keys without a pause; `errors` are all that reached them."""

    def __init__(self, bucket: kvstore.aio.Bucket) -> None:
        self._bucket = bucket
        self._numbers = count()
        self._wanted = 0, asyncio.Event()
        self.acknowledged: list[str] = []
        self.errors: list[kvstore.KVError] = []

    async def write(self) -> None:
        for number in self._numbers:
            try:
                await self._bucket.put(f"k{number}", b"value", timeout=PATIENCE)
            except kvstore.KVError as error:
                self.errors.append(error)
                await asyncio.sleep(0.01)
            else:
                self.acknowledged.append(f"k{number}")
                wanted, enough = self._wanted
                if len(self.acknowledged) >= wanted:
                    enough.set()

    async def more(self) -> None:
        """Wait until some more puts are acknowledged."""
        enough = asyncio.Event()
        self._wanted = len(self.acknowledged) + MORE, enough
        async with asyncio.timeout(PATIENCE):
            await enough.wait()


@asynccontextmanager
async def writing(bucket: kvstore.aio.Bucket) -> AsyncIterator[Writers]:
    writers = Writers(bucket)
    tasks = [asyncio.create_task(writers.write()) for _ in range(WRITERS)]
    try:
        yield writers
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_no_error_reaches_those_who_write_while_nodes_are_restarted_in_turn(cluster: LocalCluster) -> None:
    async def scenario() -> None:
        async with await kvstore.aio.connect(cluster.endpoints) as client:
            bucket = client.bucket("b")
            async with writing(bucket) as writers:
                for node in cluster.nodes:
                    await writers.more()
                    await asyncio.to_thread(cluster.stop_node, node)
                    await writers.more()
                    await asyncio.to_thread(cluster.start, [node])
                await writers.more()
            found = await bucket.get_many(writers.acknowledged)
        assert writers.errors == []
        assert [key for key, result in found.items() if not result] == []

    asyncio.run(scenario())
