"""Replies that clients have not read: how much of them the node keeps, for each client and for all.

What was given to gRPC it keeps until the client reads it or its connection ends; nothing takes it back. So it
is counted before it is given, and a client that does not read comes to its own bound and not to that of the
others: what all may hold is shared by those who hold something.
"""

from __future__ import annotations

from kvstore.config import KIB, MIB
from kvstore.errors import Overloaded
from kvstore.server.refusals import Refusals

MOST_OF_A_CLIENT = 16 * MIB
"""Of one Session, and of the unary calls of one connection."""
MOST_OF_ALL = 64 * MIB
"""What clients share. They may hold up to twice as much: how large a reply is shows when it is there."""
SMALL = 4 * KIB
"""A reply that is no larger is always given: clients that do not read must not stop the others."""
_UNKNOWN = 128 * KIB
"""What a client's first replies are taken for."""

TOO_MUCH = Overloaded(0.1, "too much of earlier replies was not read yet")


class UnreadReplies:
    """Of one node. `bytes` are those of all clients, `readers` how many hold some of them."""

    def __init__(self) -> None:
        self.bytes = 0
        self.readers = 0
        self.refusals = Refusals()
        self._connections: dict[str, Reader] = {}

    @property
    def share(self) -> int:
        """What one client may hold now, in bytes."""
        return min(MOST_OF_A_CLIENT, MOST_OF_ALL // max(1, self.readers))

    @property
    def full(self) -> bool:
        """Whether clients hold so much that only small replies are given."""
        return self.bytes >= 2 * MOST_OF_ALL

    def of_connection(self, peer: str) -> Reader:
        """Who reads the replies to unary calls of the connection from this address."""
        if (reader := self._connections.get(peer)) is None:
            self._connections = {name: each for name, each in self._connections.items() if each.bytes}
            reader = self._connections[peer] = Reader(self)
        return reader


class Reader:
    """One client that replies wait for, and how many `bytes` of them."""

    __slots__ = ("_all", "_expected", "bytes")

    def __init__(self, of_all: UnreadReplies) -> None:
        self._all = of_all
        self._expected = _UNKNOWN
        self.bytes = 0

    def hold(self, size: int) -> None:
        """A reply of `size` bytes waits."""
        if not self.bytes:
            self._all.readers += 1
        self.bytes += size
        self._all.bytes += size

    def release(self, size: int) -> None:
        """Replies of `size` bytes have left, or never will."""
        self.bytes -= size
        self._all.bytes -= size
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

    def refuses(self, size: int, most: int) -> bool:
        """Whether a reply of `size` bytes must not be given: `most` bytes wait for this client already."""
        if size <= SMALL or not (self.bytes >= most or self._all.full):
            return False
        self._all.refusals.tell(f"{self._all.bytes} bytes of replies wait for clients that do not read them")
        return True
