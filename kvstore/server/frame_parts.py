"""Unfinished frames of nodes: their parts are kept in files without a name, and for a limited time.

In memory a few peers that never complete a frame would take more than all clients together may. Frames that
come in parts are rare, only versions with very large siblings are so long, and mostly their files never leave
the page cache.
"""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from io import FileIO
from pathlib import Path

from kvstore.config import MAX_MESSAGE_BYTES
from kvstore.errors import InvalidRequest, Overloaded
from kvstore.wire.parts import is_part, part_of

_MOST_BYTES = 2 * MAX_MESSAGE_BYTES
"""Of all unfinished frames of one node, on its disk."""
_STALE = 1.0
"""A frame without a new part for so many seconds makes room for others when they need it."""
_LONGEST = 10.0
"""After so many it is given up in any case."""
_LONGEST_PAUSE = 0.05
"""After a part others have the loop for as long as it took, but no longer than this: its asker waits."""


class PartsRoom:
    """What one node has of unfinished frames of all streams: `bytes` in files in `directory`."""

    def __init__(self, directory: Path | None = None) -> None:
        """Without a directory they are where the system has its temporary files."""
        self.directory = directory
        self.bytes = 0
        self.unfinished: dict[FrameParts, float] = {}
        """When the last part came, by frame; the one that waits longest is first."""

    def make(self, size: int, now: float) -> None:
        """Make room for so many bytes; raises Overloaded when there is none."""
        while self.bytes + size > _MOST_BYTES:
            stalest = next(iter(self.unfinished), None)
            if stalest is None or now - self.unfinished[stalest] < _STALE:
                raise Overloaded(1.0, f"{self.bytes} bytes of frames are unfinished")
            stalest.give_up()


class FrameParts:
    """The unfinished frame of one stream."""

    def __init__(self, room: PartsRoom) -> None:
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._file: FileIO | None = None
        self._writing: asyncio.Future[bytes] | None = None
        self._bytes = 0
        self._left = 0
        self._given_up = False
        self._timer: asyncio.TimerHandle | None = None

    def concern(self, data: bytes) -> bool:
        """Whether this is to be added: a part of a frame, or what comes where one should."""
        return self._file is not None or self._given_up or is_part(data)

    async def add(self, data: bytes) -> bytes:
        """The frame that `data` completes; empty: more is to come.

        Raises InvalidRequest for what is no part, or not the next one; Overloaded when there is no room for
        it, or was none for those before.
        """
        part = part_of(data)
        if self._given_up:
            raise Overloaded(1.0, "the parts before this one were given up: the rest did not come in time")
        begun = self._file is not None
        if part is None:
            raise InvalidRequest("frame", "comes before another one is complete")
        if begun and part.left != self._left - 1:
            raise InvalidRequest("frame", f"is a part with {part.left} to come, not the next of {self._left}")
        self._left = part.left
        try:
            frame = await self._keep(part.part)
        except OSError as error:
            raise Overloaded(1.0, f"the parts of a frame cannot be kept: {error}") from error
        if frame:
            self.drop()
        return frame

    async def _keep(self, part: bytes) -> bytes:
        """Keep a part; with the last one, the whole frame."""
        room, now, loop = self._room, self._loop.time(), self._loop
        self._wait_no_more()
        room.make(len(part), now)
        room.bytes += len(part)
        self._bytes += len(part)
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, dir=room.directory)  # noqa: SIM115  (see `drop`)
        self._writing = loop.run_in_executor(None, _write, self._file, part, not self._left)
        frame = await asyncio.shield(self._writing)
        room.unfinished[self] = now
        self._timer = loop.call_later(_LONGEST, self.give_up)
        await asyncio.sleep(min(loop.time() - now, _LONGEST_PAUSE))
        return frame

    def _wait_no_more(self) -> None:
        """The next part has come, or nobody wants it."""
        self._room.unfinished.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def give_up(self) -> None:
        """The rest has not come in time; what still comes is refused."""
        self._given_up = True
        self.drop()

    def drop(self) -> None:
        """What has come is not needed any more."""
        self._wait_no_more()
        file, self._file = self._file, None
        if file is not None and self._writing is not None:
            # not while a thread writes to it
            self._writing.add_done_callback(lambda _written: file.close())
        self._room.bytes -= self._bytes
        self._bytes = self._left = 0


def _write(file: FileIO, part: bytes, last: bool) -> bytes:
    """In a thread."""
    if file.write(part) < len(part):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not last:
        return b""
    file.seek(0)
    return file.readall()
