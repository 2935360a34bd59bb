"""Pages of scans: each blocks the loop while it is made, so one is made at a time, and few may wait."""

from __future__ import annotations

import asyncio

from kvstore.errors import Overloaded
from kvstore.server.driver import Driver
from kvstore.versions import BucketName, UserKey

_MOST = 64
_PAUSE = 2.0
"""After a page others have at least so many times as long as it took."""
_TOO_MANY = Overloaded(0.1, f"{_MOST} pages of scans are waiting already")


class Scans:
    """The scans of one node. Who holds `turn` may make a page."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._waiting = 0
        self.turn = asyncio.Lock()

    async def page(
        self, bucket: BucketName, partition: int, after: bytes, limit: int, seconds: float
    ) -> tuple[tuple[UserKey, ...], bytes]:
        """A page as kvstore.node.scan makes it, for a caller who has so many `seconds`.

        Raises Overloaded when too many wait or the node takes no more requests, InvalidRequest, Corruption.
        """
        node, now = self._driver.node, self._driver.now
        admission = node.base.admission
        if self._waiting >= _MOST:
            raise _TOO_MANY
        if refused := admission.take(seconds, now().mono):
            raise refused.error
        self._waiting += 1
        try:
            async with self.turn:
                begun = now()
                page = node.scan_keys(bucket, partition, after, limit, begun)
                await asyncio.sleep(_PAUSE * (now().mono - begun.mono))
                return page
        finally:
            self._waiting -= 1
            admission.settled()
