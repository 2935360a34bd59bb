"""Frames at a bounded rate: what gathers in between travels together.

A frame costs as much as some ten messages. Replies that trickle in one by one would leave one by one,
make the other side answer one by one, and so keep every frame small: a busy stream never got out of it.
"""

from __future__ import annotations

import asyncio

INTERVAL = 0.0005
"""Seconds between two frames of one stream; less than a lone caller's round trip, who so never waits."""


class Pace:
    """The pace of one stream."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = 0.0

    async def keep(self) -> None:
        """Wait until the next frame may leave: not at all, if the last one left long enough ago."""
        early = self._next - self._loop.time()
        if early > 0:
            await asyncio.sleep(early)
        self._next = self._loop.time() + INTERVAL
