"""When a stream waits a moment for more before it writes a frame.

A frame costs about as much CPU as the work of ten requests, so under load a millisecond of waiting buys
throughput, and latency with it: replies that leave one by one are answered one by one, and so keep every
frame small. A lone caller, whose frames hold one message each, never waits.
"""

from __future__ import annotations

import asyncio

_BUSY = 2
"""A frame of so many messages means that more are on their way."""
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
