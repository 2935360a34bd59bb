"""What has come on a stream: cut into messages as they are read, and given to who reads them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from kvstore.frames.framing import Frame, FrameTooLarge, Framing, FramingError, Kind

_IN_A_TURN = 4
"""Messages that a reader gets before others have the loop; further ones are not even looked for."""

Rest: TypeAlias = Callable[[], Awaitable[None]] | None
"""What is left to do with a message that was taken, before the next may be; None: nothing."""
Pieces: TypeAlias = tuple[bytes, ...]
"""A message: in one piece, or a large one in the pieces that have come."""
Take: TypeAlias = Callable[[Pieces], Rest]


class StreamLost(Exception):
    """The connection is over, and nobody has ended the stream; the text says why."""


class StreamEnded(Exception):
    """The other side has ended the stream with a status that is not OK, or (raised by a handler) shall."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.message or code_pb2.Code.Name(status.code))
        self.status = status


class Incoming:
    """Of one stream; each message has at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self._framing = Framing(most)
        self._messages: deque[Pieces] = deque()
        self._message_bytes = 0
        self._end: Status | None = None
        """How reading ends when all is read."""
        self._broken = ""
        """Why the connection is over."""
        self._reader: asyncio.Future[Rest] | None = None
        """Who waits for a message, if somebody does."""
        self._in_turn = 0
        self.on_open: Callable[[bytes], None] | None = None
        """Takes the frame that opens the stream."""
        self.taker: Take | None = None
        """Takes a message for who waits, in the turn in which it arrives."""

    @property
    def over(self) -> bool:
        """Whether the stream was ended, so that nothing of what comes counts any more."""
        return self._end is not None

    @property
    def unread(self) -> int:
        """Bytes that wait for their reader."""
        return self._message_bytes + (0 if self._looking else self._framing.unfinished)

    @property
    def unfinished(self) -> int:
        """Bytes of a message whose rest has to come."""
        return self._framing.unfinished if self._looking else 0

    @property
    def _looking(self) -> bool:
        """Whether a reader has use for more messages."""
        return len(self._messages) < _IN_A_TURN and self._end is None

    def feed(self, data: bytes) -> None:
        """More has come."""
        if self._reader is not None:
            self._in_turn = 0
        self._framing.feed(data)
        self._find()

    def lose(self, why: str) -> None:
        """The connection is over."""
        self._broken = why
        self._wake()

    def end(self, status: Status) -> None:
        """This side ends the stream: what waits is forgotten."""
        self._over(status)
        self._messages.clear()
        self._message_bytes = 0

    async def read(self) -> Pieces | None:
        """See FrameStream.read_pieces."""
        self._in_turn += 1
        if self._in_turn > _IN_A_TURN:
            self._in_turn = 0
            await asyncio.sleep(0)
        while not self._messages:
            if self._end is not None:
                if self._end.code == code_pb2.OK:
                    return None
                raise StreamEnded(self._end)
            if self._broken:
                raise StreamLost(self._broken)
            await self._more()
        message = self._messages.popleft()
        self._message_bytes -= sum(map(len, message))
        self._find()
        return message

    async def _more(self) -> None:
        """Wait until there is something to read, or the taker has something left to do, and do that."""
        self._in_turn = 0
        self._reader = asyncio.get_running_loop().create_future()
        try:
            if (rest := await self._reader) is not None:
                await rest()
        finally:
            self._reader = None

    def _find(self) -> None:
        """Take the next messages of what has come, a few: many, even empty ones, would take the loop long."""
        try:
            while self._looking and (frame := self._framing.next()) is not None:
                self._take(frame)
        except FramingError as error:
            large = isinstance(error, FrameTooLarge)
            code = code_pb2.RESOURCE_EXHAUSTED if large else code_pb2.INVALID_ARGUMENT
            self._over(Status(code=code, message=str(error)))

    def _take(self, frame: Frame) -> None:
        if self.on_open is not None:
            if frame.kind != Kind.OPEN:
                raise FramingError("frame before the one that opens the stream")
            begin, self.on_open = self.on_open, None
            begin(frame.payload)
        elif frame.kind == Kind.MESSAGE:
            pieces = frame.pieces or (frame.payload,)
            if not self._give(pieces):
                self._messages.append(pieces)
                self._message_bytes += sum(map(len, pieces))
                self._wake()
        elif frame.kind == Kind.END:
            self._over(_status(frame.payload))
        else:
            raise FramingError("frame that opens a stream which is open")

    def _give(self, message: Pieces) -> bool:
        """Give a message to who waits for one; whether somebody does."""
        reader, take = self._reader, self.taker
        if take is None or reader is None or reader.done() or self._in_turn >= _IN_A_TURN:
            return False
        self._in_turn += 1
        try:
            rest = take(message)
        except Exception as error:  # noqa: BLE001  (whoever waits gets it, whatever it is)
            reader.set_exception(error)
        else:
            if rest is not None:
                reader.set_result(rest)
        return True

    def _over(self, end: Status) -> None:
        if self._end is None:
            self._end = end
            self._framing.clear()
            self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


def _status(payload: bytes) -> Status:
    try:
        return Status.FromString(payload)
    except DecodeError as error:
        raise FramingError("the end of a stream cannot be read") from error
