"""Pages of scans: what a node reads for one blocks its loop, so one is made at a time, and few may wait."""

from __future__ import annotations

import asyncio
import time

from kvstore.errors import Overloaded
from kvstore.protocol.client import Failed
from kvstore.protocol.scan import Scan, Scanned
from kvstore.server.driver import Driver
from kvstore.server.execution import within
from kvstore.v1 import client_pb2 as pb
from kvstore.wire.scan import scan_from_wire, scanned_to_wire

_MOST = 64
_PAUSE, _PAUSE_OF_MANY = 2.0, 8.0
"""After a page others have at least so many times as long as the loop has worked since it was begun.

The longer one while more pages wait: other nodes make some as well then, and ask this one for each.
"""
_TOO_MANY = Overloaded(0.1, f"{_MOST} pages of scans are waiting already")
_TOO_LATE = Overloaded(0.1, "the time of the scan was over when it had its turn")


class Scans:
    """The scans of one node. Who holds `turn` may have a page made."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._loop = asyncio.get_running_loop()
        self._waiting = 0
        self.turn = asyncio.Lock()

    async def page(self, request: pb.ScanRequest, deadline: float) -> pb.ScanResponse:
        """A page as kvstore.node.scans makes it, by a time of the loop's clock.

        Raises Overloaded when too many wait or the node takes no more requests, and what the node says.
        """
        if self._waiting >= _MOST:
            raise _TOO_MANY
        self._waiting += 1
        try:
            await self.turn.acquire()
        finally:
            self._waiting -= 1
        begun = time.thread_time()
        try:
            left = deadline - self._loop.time()
            return scanned_to_wire(await self._made(scan_from_wire(request), left))
        finally:
            # its work, not its waiting for other nodes; what the loop did for others meanwhile counts as well
            worked = time.thread_time() - begun
            pause = _PAUSE_OF_MANY if self._waiting else _PAUSE
            self._loop.call_later(pause * worked, self.turn.release)

    async def _made(self, scan: Scan, left: float) -> Scanned:
        if left <= 0:
            raise _TOO_LATE
        future: asyncio.Future[Scanned | Failed] = self._loop.create_future()

        def respond(reply: Scanned | Failed) -> None:
            if not future.done():  # cancelled a moment ago
                future.set_result(reply)

        self._driver.node.on_scan(within(scan, left), respond, self._driver.now())
        reply = await future
        if isinstance(reply, Failed):
            raise reply.error
        return reply
