"""Nothing is shown that is not durable.

A message *shows* a version if its receiver may conclude that the sender holds it. A ReplicaWrite does not,
whoever sends it: it asks to store, and its receiver believes nothing of it before its own sync. A coordinator
sends one while its own copy is being synced, a repair has what R others hold, and a hint that is given away
before it is durable is on its target's disk when that says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping

from kvstore.protocol.client import ClientRequest
from kvstore.protocol.peer import (
    Forward,
    ForwardReply,
    RangeDifference,
    ReadReply,
    ReadSame,
    ReapCheck,
    ReapConfirm,
    ReplicaRead,
    ReplicaWrite,
    TreeHashes,
    TreeRead,
    WriteAck,
)
from kvstore.protocol.table import PeerMessage
from kvstore.sim.checker import Violation
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.keyspace import Keyspace, shown
from kvstore.sim.invariants.replies import Replies
from kvstore.sim.invariants.watched import Watched
from kvstore.sim.invariants.writes import Writes
from kvstore.sim.scheduler import Scheduler
from kvstore.versions import EncodedVersion, InternalKey, digest


class Messages:
    """What nodes have asked each other, and what their answers show; raises Violation."""

    def __init__(
        self,
        hosts: Mapping[str, Watched],
        keyspace: Keyspace,
        scheduler: Scheduler,
        writes: Writes,
        copies: Copies,
        replies: Replies,
        counts: Counter[str],
    ) -> None:
        self._hosts = hosts
        self._keyspace = keyspace
        self._scheduler = scheduler
        self._written = writes
        self._copies = copies
        self._replies = replies
        self._counts = counts
        self._asked_to_write: defaultdict[tuple[str, int], dict[str, ReplicaWrite]] = defaultdict(dict)
        """By who asks and the number: what each node was asked to store."""
        self._reads: dict[tuple[str, int, str], ReplicaRead] = {}
        self._checks: dict[tuple[str, int], ReapCheck] = {}
        self._forwards: dict[tuple[str, int], tuple[ClientRequest, float]] = {}
        self._tree_reads: dict[tuple[str, int, str], int] = {}
        self._differences: dict[tuple[str, int], tuple[tuple[InternalKey, EncodedVersion], ...]] = {}
        self._sent: dict[type, Callable[..., None]] = {
            ReplicaWrite: self._asks_to_write,
            ReplicaRead: self._asks_to_read,
            ReapCheck: self._asks_to_reap,
            Forward: self._forwarded,
            WriteAck: self._acknowledges,
            ReadSame: self._holds_the_same,
            ReadReply: self._answers_read,
            RangeDifference: self._answers_range,
            TreeHashes: self._answers_tree,
            ReapConfirm: self._confirms,
            ForwardReply: self._answers_forward,
        }

    def sent(self, sender: str, to: str, message: PeerMessage) -> None:
        """A node sends a message."""
        if handle := self._sent.get(type(message)):
            handle(sender, to, message)

    def received(self, node: str, sender: str, messages: Iterable[PeerMessage]) -> None:
        """A frame is about to be handed to a node."""
        for message in messages:
            if type(message) is TreeRead:
                self._tree_reads[sender, message.number, node] = self._hosts[node].engine.last_lsn

    # questions

    def asked_to_write(self, node: str, number: int) -> Collection[ReplicaWrite]:
        """What an operation of a node has asked others to store."""
        return self._asked_to_write.get((node, number), {}).values()

    def told_to(self, node: str, number: int) -> tuple[tuple[InternalKey, EncodedVersion], ...]:
        """The keys and versions that a node was told of in an exchange."""
        return self._differences.get((node, number), ())

    def _asks_to_write(self, sender: str, to: str, message: ReplicaWrite) -> None:
        self._asked_to_write[sender, message.number][to] = message

    def _asks_to_read(self, sender: str, to: str, message: ReplicaRead) -> None:
        self._reads[sender, message.number, to] = message

    def _asks_to_reap(self, sender: str, _: str, message: ReapCheck) -> None:
        self._checks[sender, message.number] = message

    def _forwarded(self, sender: str, _: str, message: Forward) -> None:
        self._forwards.setdefault((sender, message.number), (message.request, self._scheduler.now))

    # answers

    def _acknowledges(self, sender: str, to: str, message: WriteAck) -> None:
        for number in message.numbers:
            if asked := self._asked_to_write.get((to, number), {}).get(sender):
                self._copies.must_be_durable(sender, asked.key, asked.version, asked.hint_for, "acknowledges")

    def _holds_the_same(self, sender: str, to: str, message: ReadSame) -> None:
        for number in message.numbers:
            asked = self._reads.get((to, number, sender))
            if asked and (version := self._written.versions.get(asked.digest)):
                self._copies.must_be_durable(sender, asked.key, version, asked.hint_for, "says that it holds")

    def _answers_read(self, sender: str, to: str, message: ReadReply) -> None:
        asked = self._reads.get((to, message.number, sender))
        if asked and message.version:
            self._copies.must_be_durable(sender, asked.key, message.version, asked.hint_for, "answers with")

    def _answers_range(self, sender: str, to: str, message: RangeDifference) -> None:
        self._differences[to, message.number] = message.versions
        for key, version in message.versions:
            self._copies.must_be_durable(sender, key, version, "", "tells in an exchange of")

    def _answers_tree(self, sender: str, to: str, message: TreeHashes) -> None:
        self._counts["shown is durable"] += 1
        engine = self._hosts[sender].engine
        if self._tree_reads.get((to, message.number, sender), 0) > engine.durable_lsn:
            raise Violation(f"{sender} tells {to} hashes of what is not on its disk")

    def _confirms(self, sender: str, to: str, message: ReapConfirm) -> None:
        asked = self._checks.get((to, message.number))
        if asked is None or asked.commit:
            return
        for position in message.positions:
            key, wanted = asked.candidates[position]
            node = self._hosts[sender].node
            if node is not None and sender in self._keyspace.homes(key, node.state):
                self._counts["shown is durable"] += 1
                held = self._hosts[sender].engine.durable(key)
                if held is not None and digest(held) != wanted:
                    raise Violation(
                        f"{sender} confirms a tombstone of {self._keyspace.name(key)}, and has {shown(held)}"
                    )

    def _answers_forward(self, sender: str, to: str, message: ForwardReply) -> None:
        if forwarded := self._forwards.get((to, message.number)):
            self._replies.replied(sender, *forwarded, message.reply)
