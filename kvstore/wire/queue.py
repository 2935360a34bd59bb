"""What waits to be written on a stream: in frames of a bounded size, and no more than there is room for.

The streams to other nodes and those of sessions use it, in real nodes and in the simulator.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from kvstore.config import FRAME_BYTES, FRAME_ITEMS, MIB
from kvstore.protocol.gossip import GossipMessage
from kvstore.protocol.table import PeerMessage, awaited

QUEUE_BYTES = 64 * MIB
"""What waits for a peer that is slow to read, on one stream, and leaves no room for more."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of what waits on one stream to a peer, in bytes; `gossip` in messages."""

    frame: int = FRAME_BYTES
    """Of one frame, unless a single message is larger."""
    queue: int = QUEUE_BYTES
    """Of all that waits; a single message may be larger."""
    short: int = MIB
    """In a longer queue the failure detector's messages go first: a slow peer is not a dead one."""
    gossip: int = 256
    """How many of these go first: in one frame a receiver takes 1,024 of each type."""


LIMITS = QueueLimits()


class Batches(Generic[T]):
    """Items in batches of at most `frame` bytes by their estimated sizes, a larger item alone.

    Nor has a batch more than FRAME_ITEMS items. `bytes` are those of all that waits.
    """

    __slots__ = ("_batches", "_frame", "_room", "_sizes", "bytes")

    def __init__(self, frame: int = FRAME_BYTES) -> None:
        self.bytes = 0
        self._frame = frame
        self._batches: deque[list[T]] = deque()
        self._sizes: deque[int] = deque()
        self._room = 0

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._batches)

    def add(self, item: T, size: int) -> None:
        """Put in an item of `size` bytes."""
        if self._room < size or not self._batches or len(self._batches[-1]) >= FRAME_ITEMS:
            self._batches.append([])
            self._sizes.append(0)
            self._room = self._frame
        self._batches[-1].append(item)
        self._sizes[-1] += size
        self._room -= size
        self.bytes += size

    def add_first(self, item: T, size: int) -> None:
        """Put a small item into the batch that is taken next, full or not."""
        if not self._batches:
            self.add(item, size)
            return
        self._batches[0].append(item)
        self._sizes[0] += size
        self.bytes += size

    def take(self) -> list[T]:
        """The next batch, never empty; raises IndexError when none waits."""
        self.bytes -= self._sizes.popleft()
        return self._batches.popleft()

    def clear(self) -> None:
        """Nothing waits any more."""
        self._batches.clear()
        self._sizes.clear()
        self.bytes = 0


class PeerQueue(Batches[PeerMessage]):
    """Messages to one peer. Best effort: nothing is kept while it is not `open`, nor beyond the limits.

    `unsent` has the numbers of the questions that were dropped, until somebody takes them.
    """

    __slots__ = ("_first", "_limits", "dropped", "most_bytes", "open", "unsent")

    def __init__(self, limits: QueueLimits) -> None:
        super().__init__(limits.frame)
        self._limits = limits
        self._first = 0
        self.open = False
        """Whether the stream is connected."""
        self.dropped = 0
        """How many messages."""
        self.most_bytes = 0
        """The most that has waited."""
        self.unsent: list[int] = []

    def put(self, message: PeerMessage, size: int) -> bool:
        """Queue a message for the next frame; False when it was dropped."""
        if not self.open:
            return self._drop(message)
        waiting, limits = self.bytes, self._limits
        if waiting > limits.short and isinstance(message, GossipMessage):
            if self._first >= limits.gossip:
                return self._drop(message)
            self._first += 1
            self.add_first(message, size)
        elif waiting + size > limits.queue and waiting:
            return self._drop(message)
        else:
            self.add(message, size)
            if self.bytes > self.most_bytes:
                self.most_bytes = self.bytes
        return True

    def _drop(self, message: PeerMessage) -> bool:
        """Whoever waits for an answer need not wait for its patience; probes find out by themselves."""
        self.dropped += 1
        if (number := awaited(message)) is not None:
            self.unsent.append(number)
        return False

    def take(self) -> list[PeerMessage]:
        """See Batches."""
        self._first = 0  # what went first is in the batch that is taken
        return super().take()

    def take_unsent(self) -> list[int]:
        """The numbers of the questions that were dropped since the last time."""
        unsent, self.unsent = self.unsent, []
        return unsent

    def close(self) -> None:
        """The stream is broken: what waits is lost with what is under way."""
        self.open = False
        self._first = 0
        self.clear()
