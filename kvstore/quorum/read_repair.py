"""Read repair: a replica that is stale gets what a read has found, before the read replies (blocking).

So what one read has shown, R replicas hold, and every later read sees it (BUGS 6).
"""

from __future__ import annotations

from typing import Protocol

from kvstore.errors import KVError
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import ReplicaWrite, WriteAck
from kvstore.quorum.request import Request
from kvstore.quorum.rpc import Answer, Rpc, Waiting
from kvstore.versions import EncodedVersion, InternalKey


class Repaired(Protocol):
    """The read that a repair is for."""

    request: Request

    def on_repaired(self, node: str, version: EncodedVersion, was_stale: bool, now: Instant) -> None:
        """`version` is durable at `node`, which lacked it, or (not `was_stale`) had it since its answer."""

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """`node` cannot be repaired."""


class Repair(Waiting):
    """One version on its way to one stale replica; its own number, so that an ack means just this version."""

    __slots__ = ("_read", "_rpc", "node", "version", "was_stale")

    EXPECTS = (WriteAck,)

    def __init__(self, rpc: Rpc, read: Repaired, node: str, version: EncodedVersion) -> None:
        self._rpc = rpc
        self._read = read
        self.node = node
        self.version = version
        self.was_stale = True
        self.size = self.client = 0
        rpc.register(self, read.request.deadline)

    def send(self, epoch: int, hint_for: str) -> None:
        """Ask the replica, or the fallback that stands in for one, to store it."""
        key = self._read.request.key
        self._rpc.send(self.node, ReplicaWrite(self.number, epoch, key, self.version, hint_for))

    def touches(self) -> InternalKey:
        """See Waiting."""
        return self._read.request.key

    def on_answer(self, node: str, answer: Answer, now: Instant) -> None:
        """The replica holds the version durably."""
        if node == self.node:
            self._rpc.forget(self)
            self._read.on_repaired(node, self.version, self.was_stale, now)

    def on_refusal(self, node: str, error: KVError, now: Instant) -> None:
        """The replica cannot be repaired."""
        if node == self.node:
            self._rpc.forget(self)
            self._read.on_refusal(node, error, now)

    def on_gone(self, node: str, now: Instant) -> None:
        """The repair may be lost; the read hears of it by itself."""
        if node == self.node:
            self._rpc.forget(self)

    def on_time(self, now: Instant) -> None:
        """The read has failed by now."""
        self._rpc.forget(self)
