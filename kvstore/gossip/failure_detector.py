"""The failure detector of one node: SWIM (Das et al., 2002) with Lifeguard (Dadgar et al., 2018).

Sans-I/O: calls in, outputs out; time is monotonic seconds. docs/gossip.md has the rules and why.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from kvstore.gossip.awareness import Awareness
from kvstore.gossip.beliefs import Beliefs
from kvstore.gossip.dissemination import Dissemination, Outgoing
from kvstore.gossip.member import MemberRow
from kvstore.gossip.membership import Membership
from kvstore.gossip.outputs import Output
from kvstore.gossip.probing import Probing
from kvstore.gossip.relays import Relays
from kvstore.gossip.settings import GossipSettings
from kvstore.protocol.gossip import Ack, GossipMessage, Nack, Ping, PingRequest, PushPull, Status


class FailureDetector:
    """Probes the other members, tells them what it sees and believes them when it has looked itself.

    `incarnation` must be higher than any this node has used and persisted before, and at least 1.
    """

    def __init__(
        self,
        me: str,
        peers: Sequence[str],
        incarnation: int,
        settings: GossipSettings,
        rng: random.Random,
    ) -> None:
        self._me = me
        self._settings = settings
        self._rng = rng
        self._peers = tuple(sorted(peers))
        self._table = table = Membership(me, peers, incarnation, 0.0)
        self._awareness = awareness = Awareness(settings.awareness_max)
        gossip = Dissemination(settings.retransmit_factor, settings.update_bytes)
        outgoing = Outgoing(me, table, gossip, rng)
        self._outgoing = outgoing
        self._probing = probing = Probing(me, peers, settings, table, outgoing, awareness, rng)
        self._relays = Relays(settings.probe_timeout, outgoing)
        self._beliefs = Beliefs(me, settings, table, gossip, outgoing, probing, awareness)
        self._next_push_pull = math.inf
        self._deadline = math.inf
        self._last_turn = 0.0

    # what the node asks

    def knows(self, node: str) -> bool:
        """Whether it is a member."""
        return node in self._table

    def status(self, node: str) -> Status:
        """What is believed of a member; raises KeyError for a node that is none."""
        return self._table[node].status

    def members(self) -> tuple[MemberRow, ...]:
        """All members, this node included, in order of node ids."""
        return self._table.members()

    def _is_peer(self, node: str) -> bool:
        return node in self._table and node != self._me

    def next_deadline(self) -> float:
        """When `on_timer` next has work; infinite before `start`."""
        return self._deadline

    # inputs

    def start(self, now: float) -> list[Output]:
        """Tell every peer of this node's incarnation, ask for rows of their tables, and begin to probe."""
        self._table.begin_anew(now)
        for peer in self._peers:
            self._outgoing.greet(peer)
        self._probing.start(now)
        self._next_push_pull = now + self._rng.random() * self._settings.push_pull_interval
        return self._end_turn(now)

    def on_timer(self, now: float) -> list[Output]:
        """Do what is due; harmless at any time."""
        if now < self._deadline:
            return []
        self._notice_stall(now)
        self._relays.nack_due(now)
        for failed in self._probing.advance(now):
            self._beliefs.suspect(failed, now)
            self._probing.probe(failed, now)  # every further probe is a chance to refute
        self._beliefs.declare_dead(now)
        self._beliefs.ping_dead(now)
        self._probing.probe_next(now)
        if now >= self._next_push_pull:
            self._next_push_pull = now + self._settings.push_pull_interval
            if alive := self._table.alive():
                self._outgoing.push_pull(self._rng.choice(alive), reply=True)
        return self._end_turn(now)

    def on_message(self, sender: str, message: GossipMessage, now: float) -> list[Output]:
        """A message from another node; ignored when that is no member."""
        if not self._is_peer(sender):
            return []
        self._notice_stall(now)
        # a whole table repeats hearsay, and a request is sent before its sender has seen anything
        probed = not isinstance(message, PushPull | PingRequest)
        for update in message.updates:
            self._beliefs.hear(sender, update, probed, now)
        match message:
            case Ping(sequence, target) if target == self._me:
                self._outgoing.send(sender, Ack(sequence, self._outgoing.updates(sender)))
            case PingRequest(_, target) if self._is_peer(target):
                self._relays.relay(sender, message, now)
            case Ack(sequence):
                self._relays.on_ack(sender, sequence)
                self._probing.on_ack(sender, sequence, now)
            case Nack(sequence):
                self._probing.on_nack(sender, sequence)
            case PushPull(_, reply) if reply:
                self._outgoing.push_pull(sender, reply=False)
        return self._end_turn(now)

    def on_link_lost(self, peer: str, now: float) -> list[Output]:
        """The connection to `peer` broke, which proves nothing: probe it at once."""
        if not self._is_peer(peer):
            return []
        self._notice_stall(now)
        if self._table[peer].status is not Status.DEAD:
            self._probing.probe(peer, now)
        return self._end_turn(now)

    def on_members(self, peers: Sequence[str], now: float) -> list[Output]:
        """These are the other members now: new ones are told of this node, those that left are forgotten."""
        self._notice_stall(now)
        new, gone = sorted(set(peers) - set(self._peers)), set(self._peers) - set(peers)
        self._peers = tuple(sorted(peers))
        self._probing.on_members(self._peers, new, gone)
        self._relays.forget(gone)
        self._beliefs.forget(gone)
        self._table.on_members(new, gone, now)
        for peer in new:
            self._outgoing.greet(peer)
        return self._end_turn(now)

    # turns

    def _notice_stall(self, now: float) -> None:
        """Blame this node, not the others, for time in which its own loop stood still.

        Answers may sit in its queue, so everyone under judgement gets that time back, and some to
        let the queue drain (consul#5928).
        """
        late = now - self._deadline
        if late <= self._settings.probe_timeout:
            return
        self._awareness.worse(1 + int(late / self._settings.probe_interval))
        lost = now - self._last_turn + self._settings.probe_timeout
        self._probing.delay(lost)
        self._beliefs.delay(lost)
        self._deadline = now

    def _end_turn(self, now: float) -> list[Output]:
        due = min(self._probing.deadline, self._beliefs.deadline, self._relays.deadline, self._next_push_pull)
        self._deadline = max(now, due)  # a deadline moved into the past is no stall
        self._last_turn = now
        return self._outgoing.take()
