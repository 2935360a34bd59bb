"""When what is queued for a stream is written: at the end of the turn that queued it, or in the next pass.

A frame costs about as much CPU as the work of ten requests. Under load it waits for the next pass of the
loop, so that it leaves with all that is queued by what has arrived meanwhile. The busier the node, the longer
a pass takes and the more there is in a frame, and there is no time to choose. A lone caller, whose frames
hold one message each, never waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from kvstore.config import KIB
from kvstore.frames.turn_ends import TurnEnds

_BUSY = 2
"""A frame of so many messages means that more are on their way."""
AT_ONCE = 64 * KIB
"""More bytes than these are left to the writer, which waits until those before them have left."""


class Gathering:
    """Belongs to one writer, which waits with `until_due`.

    `delay` gives the seconds to wait for more; without it, that is decided by the size of the last frame.
    """

    __slots__ = ("_delay", "_due", "_error", "_last", "_loop", "_turn_ends", "_wake", "_write_now")

    def __init__(self, turn_ends: TurnEnds, delay: Callable[[], float] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._turn_ends = turn_ends
        self._delay = delay
        self._write_now: Callable[[], bool] | None = None
        """Of the writer, while it waits."""
        self._wake = asyncio.Event()
        self._due = False
        self._last = 0
        self._error: Exception | None = None

    def add(self) -> None:
        """Something has been queued."""
        if not self._due:
            self._due = True
            self._turn_ends.add(self._turn_over)

    def _turn_over(self) -> None:
        if self._delay is not None:
            self._write_in(self._delay())
        elif self._last < _BUSY:
            self._write()
        else:
            self._loop.call_soon(self._write)

    def _write_in(self, seconds: float) -> None:
        if seconds:
            self._loop.call_later(seconds, self._write)
        else:
            self._write()

    def _write(self) -> None:
        try:
            written = self._write_now is not None and self._write_now()
        except Exception as error:  # noqa: BLE001  (it is the writer's, and not that of this turn)
            self._error, written = error, False
        if written:
            self._due = False
        else:
            self._wake.set()

    async def until_due(self, write_now: Callable[[], bool]) -> None:
        """Return when what is queued is to be written by the writer.

        Meanwhile `write_now` is called to write what is queued: if nothing has to be waited for it does, and
        says whether it did. That spares the writer its turns of the loop. Raises what it has raised.
        """
        self._write_now = write_now
        try:
            await self._wake.wait()
        finally:
            self._write_now = None
        self._wake.clear()
        self._due = False
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def sent(self, messages: int) -> None:
        """A frame with so many messages is being written."""
        self._last = messages
