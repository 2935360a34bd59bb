"""A lean asyncio client of the Redis protocol, which sends all commands of one pass of the loop together.

kvstore's own client gathers calls in frames. With a client that has a connection for each of many callers,
most of what is measured of a fast server would be the client.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

Answer = Callable[[object], None]
"""Takes the answer to one command, or the error that it is."""


def encode(*parts: bytes) -> bytes:
    """One command."""
    return b"*%d\r\n%s" % (len(parts), b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))


class Connection(asyncio.Protocol):
    """One connection to a server. Answers come in the order of commands."""

    def __init__(self) -> None:
        hiredis: Any = import_module("hiredis")
        self._reader: Any = hiredis.Reader()
        self._waiting: deque[Answer] = deque()
        self._commands: list[bytes] = []

    @classmethod
    async def open(cls, host: str, port: int) -> Connection:
        """Connect."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self, command: bytes, answer: Answer) -> None:
        """Send a command at the end of this pass of the loop."""
        if not self._commands:
            asyncio.get_running_loop().call_soon(self._flush)
        self._commands.append(command)
        self._waiting.append(answer)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._commands))
        self._commands.clear()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            self._waiting.popleft()(reply)

    def connection_lost(self, error: Exception | None) -> None:
        while self._waiting:
            self._waiting.popleft()(ConnectionError("the server has closed the connection"))

    def close(self) -> None:
        self._transport.close()

    async def call(self, *parts: bytes) -> Any:
        """Send a command and return its answer; raises it if it is an error."""
        quorum = Quorum(1)
        self.send(encode(*parts), quorum.on_answer)
        return (await quorum.done)[0]


class Quorum:
    """`done` when so many servers have answered; an error of one of them ends it."""

    __slots__ = ("_answers", "_needed", "done")

    def __init__(self, needed: int) -> None:
        self._needed = needed
        self._answers: list[Any] = []
        self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def on_answer(self, answer: object) -> None:
        """One server has answered."""
        if self.done.done():
            return
        if isinstance(answer, Exception):
            self.done.set_exception(answer)
            return
        self._answers.append(answer)
        if len(self._answers) == self._needed:
            self.done.set_result(self._answers)
