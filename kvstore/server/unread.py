"""Replies that clients have not read: how much of them the node keeps, for each client and for all.

What was given to gRPC it keeps until the client reads it or its connection ends; nothing takes it back. So it
is counted before it is given, and a client that does not read comes to its own bound and not to that of the
others: what all may hold is shared by those who hold something. And it has a time: the connection of a client
that leaves a reply unread for longer is ended, so that nobody takes the room for ever.
"""

from __future__ import annotations

import asyncio

from kvstore.config import KIB, MIB
from kvstore.errors import Overloaded
from kvstore.server.connections import end_connection
from kvstore.server.refusals import Refusals

MOST_OF_A_CLIENT = 8 * MIB
"""Of one Session, and of the unary calls of one connection."""
MOST_OF_ALL = 32 * MIB
"""What clients share. They may hold up to twice as much: how large a reply is shows when it is there."""
SMALL = 4 * KIB
"""A reply that is no larger is always given: clients that do not read must not stop the others."""
_UNKNOWN = 256 * KIB
"""What a client's first replies are taken for."""

_PATIENCE, _SHORT_PATIENCE = 60.0, 5.0
"""Seconds that a reply may wait to be read, and while clients hold more than they share."""
_SLOWEST = 256 * KIB
"""Bytes a second that a client reads at least: for these there is more time."""
_LOOK = 1.0
"""Seconds between two looks at what waits."""
_NOT_READING = 1.0
"""After so many seconds without anything read, more is refused to a client that has used up its share; later
when one reply takes longer to be read by the slowest."""

TOO_MUCH = Overloaded(0.1, "too much of earlier replies was not read yet")


class UnreadReplies:
    """Of one node. `bytes` are those of all clients, `readers` how many hold some of them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.readers = 0
        self.refusals = Refusals()
        self._ended = Refusals()
        self._connections: dict[str, Reader] = {}
        self._loop = asyncio.get_running_loop()
        self._given: dict[int, tuple[str, int, float]] = {}
        """Whom each reply was given to, how large it is, and when that was."""
        self._last = 0
        self._looks = False

    def give(self, peer: str, size: int) -> int:
        """A reply of `size` bytes is given to gRPC for the client at `peer`: a number, for `taken`."""
        self._last = number = self._last + 1
        self._given[number] = peer, size, self._loop.time()
        if not self._looks:
            self._looks = True
            self._loop.call_later(_LOOK, self._look)
        return number

    def taken(self, number: int) -> None:
        """The reply with this number was read, or never will be."""
        self._given.pop(number, None)

    def _look(self) -> None:
        """End the connections on which a reply has waited for too long."""
        patience = _PATIENCE if self.bytes < MOST_OF_ALL else _SHORT_PATIENCE
        now = self._loop.time()
        overdue = {
            peer for peer, size, since in self._given.values() if now - since > patience + size / _SLOWEST
        }
        for peer in overdue:
            self._ended.tell(
                f"the connection from {peer} is ended: it has not read a reply for {patience:g} s"
            )
            end_connection(peer)
        self._looks = bool(self._given)
        if self._looks:
            self._loop.call_later(_LOOK, self._look)

    @property
    def share(self) -> int:
        """What one client may hold now, in bytes."""
        return min(MOST_OF_A_CLIENT, MOST_OF_ALL // max(1, self.readers))

    @property
    def full(self) -> bool:
        """Whether clients hold so much that only small replies are given."""
        return self.bytes >= 2 * MOST_OF_ALL

    def used_up(self, peer: str) -> bool:
        """Whether the connection from this address has left unread as much as it may."""
        reader = self._connections.get(peer)
        return reader is not None and reader.bytes >= self.share

    async def until_room(self, peer: str) -> None:
        """Wait until the connection has not used up its share; raises Overloaded when it reads nothing."""
        while self.used_up(peer):
            reader = self._connections[peer]
            reader.read.clear()
            try:
                async with asyncio.timeout(_NOT_READING + reader.largest / _SLOWEST):
                    await reader.read.wait()
            except TimeoutError:
                self.tell()
                raise TOO_MUCH from None

    def tell(self) -> None:
        """Log that something was refused."""
        self.refusals.tell(f"{self.bytes} bytes of replies wait for clients that do not read them")

    def of_connection(self, peer: str) -> Reader:
        """Who reads the replies to unary calls of the connection from this address."""
        if (reader := self._connections.get(peer)) is None:
            self._connections = {name: each for name, each in self._connections.items() if each.bytes}
            reader = self._connections[peer] = Reader(self)
        return reader


class Reader:
    """One client that replies wait for, and how many `bytes` of them."""

    __slots__ = ("_all", "_expected", "bytes", "largest", "read")

    def __init__(self, of_all: UnreadReplies) -> None:
        self._all = of_all
        self._expected = _UNKNOWN
        self.bytes = 0
        self.largest = 0
        """Of the replies that have waited since there were none."""
        self.read = asyncio.Event()
        """Set when something was read."""

    def hold(self, size: int) -> None:
        """A reply of `size` bytes waits."""
        if not self.bytes:
            self._all.readers += 1
            self.largest = 0
        self.largest = max(self.largest, size)
        self.bytes += size
        self._all.bytes += size

    def release(self, size: int) -> None:
        """Replies of `size` bytes have left, or never will."""
        self.bytes -= size
        self._all.bytes -= size
        self.read.set()
        if size and not self.bytes:
            self._all.readers -= 1

    def learn(self, size: int) -> None:
        """A get was answered with so many bytes: the next ones may be as large."""
        self._expected = max(size, self._expected // 2, 1)

    def room(self, gets: int) -> int:
        """How many more gets may be begun when `gets` of this client's are under way."""
        if self._all.full:
            return 0
        return (self._all.share - self.bytes) // self._expected - gets

    def fits(self, size: int, begun: int) -> bool:
        """Whether a reply of `size` bytes may be begun beside those that wait and `begun` bytes under way."""
        held = self.bytes + begun
        return not held or held + size <= self._all.share

    def refuses(self, size: int, most: int) -> bool:
        """Whether a reply of `size` bytes must not be given: `most` bytes wait for this client already."""
        if size <= SMALL or not (self.bytes >= most or self._all.full):
            return False
        self._all.tell()
        return True
