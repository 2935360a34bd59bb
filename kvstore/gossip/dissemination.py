"""What a node sends: its messages, and the updates that ride on them (SWIM section 4.1)."""

from __future__ import annotations

import math
import random

from kvstore.gossip.membership import Membership
from kvstore.gossip.outputs import Output, Send
from kvstore.protocol.gossip import GossipMessage, Ping, PushPull, Status, Update
from kvstore.protocol.sizes import item_size_of

_ROWS = 16
"""Most rows of the table in one PushPull beside the sender's and the receiver's: messages stay bounded."""
_EXCHANGES = 32
"""With how many members rows are exchanged when all of them greet one, or one greets all."""


class Dissemination:
    """A queue with the latest update per node; each is sent a limited number of times."""

    __slots__ = ("_factor", "_max_bytes", "_sent", "_updates")

    def __init__(self, factor: int, max_bytes: int) -> None:
        self._factor = factor
        self._max_bytes = max_bytes
        self._updates: dict[str, Update] = {}
        self._sent: dict[str, int] = {}

    def add(self, update: Update) -> None:
        """Spread this; it replaces what was queued about the same node."""
        self.discard(update.node)
        self._updates[update.node] = update
        self._sent[update.node] = 0

    def discard(self, node: str) -> None:
        """Stop spreading what was queued about `node`."""
        self._updates.pop(node, None)
        self._sent.pop(node, None)

    def take(self, nodes: int) -> list[Update]:
        """Updates for one message in a cluster of `nodes`, those sent least often first.

        After factor * ceil(log10(nodes + 1)) messages everyone has an update with high probability.
        """
        limit = self._factor * math.ceil(math.log10(nodes + 1))
        room = self._max_bytes
        taken = []
        for node in sorted(self._updates, key=self._sent.__getitem__):
            update = self._updates[node]
            room -= item_size_of(update)
            if room < 0:
                break
            taken.append(update)
            self._sent[node] += 1
            if self._sent[node] >= limit:
                self.discard(node)
        return taken


class Outgoing:
    """The outputs of one node, which gather until the end of a turn."""

    __slots__ = ("_gossip", "_me", "_outputs", "_rng", "_sequence", "table")

    def __init__(self, me: str, table: Membership, gossip: Dissemination, rng: random.Random) -> None:
        self._me = me
        self.table = table
        self._gossip = gossip
        self._rng = rng
        # acks to pings from before a restart of this node must not match
        self._sequence = rng.getrandbits(32)
        self._outputs: list[Output] = []

    def add(self, output: Output) -> None:
        """One more output, after those that are there."""
        self._outputs.append(output)

    def take(self) -> list[Output]:
        """What has gathered since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def send(self, to: str, message: GossipMessage) -> None:
        """Send a message as it is."""
        self._outputs.append(Send(to, message))

    def push_pull(self, to: str, reply: bool) -> None:
        """Send rows of the table, and ask for some of the other node's if `reply`."""
        self.send(to, PushPull(self.table.part(to, _ROWS, self._rng), reply))

    def greet(self, to: str) -> None:
        """Tell a member that is new here, or to which this node is new, of this node's incarnation.

        All greet it, or it is one of all who are greeted: in a large cluster few of them exchange rows.
        """
        nodes = len(self.table)
        if nodes <= _EXCHANGES or self._rng.random() * nodes < _EXCHANGES:
            self.push_pull(to, reply=True)
        else:
            self.send(to, PushPull((self.table[self._me].update(), self.table[to].update()), reply=False))

    def ping(self, target: str) -> int:
        """Ask a node to answer; returns the number that its Ack will have."""
        self._sequence += 1
        self.send(target, Ping(self._sequence, target, self.updates(target)))
        return self._sequence

    def updates(self, to: str, *about: str) -> tuple[Update, ...]:
        """What rides on a message: this node's own row, the receiver's, rows it is about, queued gossip.

        Whoever is accused reads so in its own row, and can refute.
        """
        rows = tuple(self.table[node].update() for node in (self._me, to, *about))
        if self.table[to].status is not Status.ALIVE:
            return rows  # gossip is sent a few times only, and not wasted on who may not hear it
        return rows + tuple(self._gossip.take(len(self.table)))
