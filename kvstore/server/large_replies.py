"""Gets with large replies: few at a time, and made in pieces, so that others have the loop in between.

A reply takes milliseconds for every MiB: read, hashed, decoded, encoded, handed to gRPC. How large it will be
is known for the keys that were read before.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from kvstore.config import KIB, MIB
from kvstore.protocol.client import Get

LARGE = 512 * KIB
"""Replies above this count."""
_AT_ONCE = 8 * MIB
"""Bytes of them that are under way at once; a single one may be larger."""
_KEYS = 4096
"""Of the keys with large replies as many are remembered, those read last."""


class LargeReplies:
    """Of one node. `known` has by bucket and key the size of each large reply that was given."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, bytes], int] = {}
        self.bytes = 0
        """Of those under way."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._joining = asyncio.Lock()
        self._loop = asyncio.get_running_loop()

    def expected(self, get: Get) -> int:
        """The size of the reply to this when that is known to be large, else 0."""
        return self.known.get((get.bucket, get.key), 0)

    def learn(self, get: Get, size: int) -> None:
        """The reply to this has so many bytes."""
        if size > LARGE:
            self.known.pop((get.bucket, get.key), None)
            self.known[get.bucket, get.key] = size
            if len(self.known) > _KEYS:
                del self.known[next(iter(self.known))]
        elif self.known:
            self.known.pop((get.bucket, get.key), None)

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Wait until a get whose reply has so many bytes (0: few) may be begun, and count it within this.

        After it others have the loop: for as long as it took when it is one of the largest.
        """
        if size and (self._waiting or not self._fits(size)):
            turn = self._loop.create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._leave(size)
                raise
        else:
            self.bytes += size
        begun = self._loop.time()
        try:
            yield
        finally:
            if size:
                took = self._loop.time() - begun
                self._loop.call_later(took * min(1.0, size / _AT_ONCE), self._leave, size)

    def _fits(self, size: int) -> bool:
        return not self.bytes or self.bytes + size <= _AT_ONCE

    def _leave(self, size: int) -> None:
        self.bytes -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            following, turn = self._waiting.popleft()
            if not turn.done():  # whoever was cancelled has left
                self.bytes += following
                turn.set_result(None)

    async def join(self, pieces: Sequence[bytes]) -> bytes:
        """A reply from its pieces: copied without the interpreter's lock, one at a time."""
        async with self._joining:
            return await asyncio.to_thread(b"".join, pieces)
