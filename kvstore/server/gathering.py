"""When a stream waits a moment for more before it writes a frame.

A frame costs about as much CPU as the work of ten requests, so under load a millisecond of waiting buys
throughput, and latency with it. A lone caller never waits.
"""

from __future__ import annotations

import asyncio

_BUSY = 8
"""A frame of this many messages means that more are on their way."""
_SECONDS = 0.0015


class Gathering:
    """Decides by the size of the last frame."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    async def pause(self) -> None:
        """Let more messages come, if there is load."""
        if self._last >= _BUSY:
            await asyncio.sleep(_SECONDS)

    def sent(self, messages: int) -> None:
        """A frame with so many messages is being written."""
        self._last = messages
