"""Messages of streams that are not complete yet: how much of them a node takes at once.

Many connections that each begin a large message, and do not go on, would otherwise take more memory than all
requests together may. Beyond the bound only the message that was begun first goes on; the others wait in the
network. One that does not go on, and others wait for it, loses its connection.
"""

from __future__ import annotations

import asyncio

from kvstore.config import KIB, MIB
from kvstore.frames.stream import FrameStream
from kvstore.server.refusals import Refusals

_MOST = 64 * MIB
_SMALL = 64 * KIB
"""A message of which no more is there does not count."""
_STALE = 5.0
"""Seconds without more of it, after which the message that others wait for is given up."""


class UnfinishedMessages:
    """Of one node; `bytes` are those that are there."""

    def __init__(self) -> None:
        self.bytes = 0
        self._sizes: dict[FrameStream, int] = {}
        """In the order in which they were begun."""
        self._held: set[FrameStream] = set()
        self._loop = asyncio.get_running_loop()
        self._patience: asyncio.TimerHandle | None = None
        self._given_up = Refusals()

    def progress(self, stream: FrameStream, size: int) -> None:
        """So many bytes of the next message of a stream are there; 0: it is complete, or never will be."""
        if size <= _SMALL and stream not in self._sizes:
            return
        first = next(iter(self._sizes), stream)
        if size <= _SMALL:
            self.bytes -= self._sizes.pop(stream)
        else:
            self.bytes += size - self._sizes.get(stream, 0)
            self._sizes[stream] = size
        self._held.discard(stream)
        if self.bytes > _MOST and stream in self._sizes and stream is not first:
            self._held.add(stream)
            stream.hold(True)
        elif self._held and stream not in self._sizes:
            self._release()
        if stream is first:
            self._wait_for_it()

    def _release(self) -> None:
        """Somebody has what it needs: the others go on, as far as there is room."""
        held, self._held = self._held, set()
        for stream in held:
            stream.hold(False)

    def _wait_for_it(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._sizes:
            self._patience = self._loop.call_later(_STALE, self._give_up)

    def _give_up(self) -> None:
        self._patience = None
        if self._held:
            first = next(iter(self._sizes))
            self._given_up.tell(f"the connection from {first.peer}: the rest of a message does not come")
            first.break_off()
        else:
            self._wait_for_it()
