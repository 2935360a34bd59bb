"""This node among the others: its failure detector, and what follows when somebody is dead or alive again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from kvstore.errors import Corruption, Overloaded, StorageFull
from kvstore.gossip import FailureDetector, Output, PersistIncarnation, Send, StatusChanged
from kvstore.lsm.reading import Get
from kvstore.node.outbox import Outbox
from kvstore.node.parts import Background, Foundation
from kvstore.protocol.fields import MAX_INCARNATION
from kvstore.protocol.gossip import Ack, GossipMessage, Ping, PushPull, Status
from kvstore.protocol.instant import Instant
from kvstore.protocol.peer import KeyOffer
from kvstore.protocol.since import FIRST_EPOCH
from kvstore.protocol.spread import AtEpoch

_INCARNATION = b"n/incarnation"
"""Where the engine keeps this node's SWIM incarnation; `n` is the keyspace of node-local records."""


def next_incarnation(get: Get) -> int:
    """The incarnation of a node that starts: after all that it has used."""
    try:
        stored = get(_INCARNATION)
    except Corruption:
        stored = None  # the others remember a later one, and this node then takes one after that
    return min(int.from_bytes(stored, "big") + 1, MAX_INCARNATION) if stored else 1


class Liveness:
    """Wakes the failure detector of one node, hands it what it is told, and carries out what it wants."""

    def __init__(
        self,
        detector: FailureDetector,
        get: Get,
        outbox: Outbox,
        base: Foundation,
        background: Background,
    ) -> None:
        self._detector = detector
        self._get = get
        self._outbox = outbox
        self._base = base
        self._background = background
        self._timer = base.deadlines.timer(self._on_time)

    def start(self, now: Instant) -> None:
        """Begin to probe the other members."""
        self._persist(next_incarnation(self._get))
        self._carry_out(self._detector.start(now.mono), now)

    def on_message(self, sender: str, message: GossipMessage, now: Instant) -> None:
        """A message of another failure detector."""
        self._carry_out(self._detector.on_message(sender, message, now.mono), now)

    def on_link_lost(self, peer: str, now: Instant) -> None:
        """The connection to `peer` broke: it may be dead."""
        self._carry_out(self._detector.on_link_lost(peer, now.mono), now)

    def on_members(self, others: Sequence[str], now: Instant) -> None:
        """These are the other members now."""
        self._carry_out(self._detector.on_members(others, now.mono), now)

    def _on_time(self, now: Instant) -> None:
        self._carry_out(self._detector.on_timer(now.mono), now)

    def _carry_out(self, outputs: Iterable[Output], now: Instant) -> None:
        for output in outputs:
            match output:
                case Send(to, message):
                    if isinstance(message, PushPull):
                        self.hand_out_keys([to])
                    elif isinstance(message, Ping | Ack):
                        self.tell_epoch(to)
                    self._outbox.send(to, message)
                case StatusChanged(node, old, new, reason):
                    self._outbox.member_changed(node, new, reason)
                    self._status_changed(node, old, new, now)
                case PersistIncarnation(incarnation):
                    reason = f"others suspected it, which it has refuted (incarnation {incarnation})"
                    self._outbox.member_changed(self._base.placements.name, Status.ALIVE, reason)
                    self._persist(incarnation)
        self._timer.set(self._detector.next_deadline())

    def tell_epoch(self, node: str) -> None:
        """Probes reach every member in time: so who has missed a state hears that there is one."""
        if (epoch := self._base.placements.state.epoch) > FIRST_EPOCH:
            self._outbox.send(node, AtEpoch(epoch))

    def _persist(self, incarnation: int) -> None:
        # one that a full disk does not take may be used again after a restart: then it is refuted once more
        with suppress(StorageFull, Overloaded):
            replica = self._base.local.replica
            self._base.durability.soon(replica.write([(_INCARNATION, incarnation.to_bytes(8, "big"))]))

    def _status_changed(self, node: str, old: Status, new: Status, now: Instant) -> None:
        self._base.placements.on_status_changed()
        if new is Status.DEAD:
            self._base.rpc.on_gone(node, now)
        elif old is Status.DEAD:
            self._background.replay.on_alive(node)

    def on_key_offer(self, sender: str, message: KeyOffer, now: Instant) -> None:
        """Another node tells the keys that it signs contexts with."""
        if self._base.context_keys.offered(sender, message.keys):
            self.hand_out_keys(self._base.placements.others)

    def hand_out_keys(self, nodes: Iterable[str]) -> None:
        """Tell nodes the keys that this one signs contexts with."""
        for node in nodes:
            self._outbox.send(node, KeyOffer(self._base.context_keys.keys))
