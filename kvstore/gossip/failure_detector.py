"""The failure detector of one node: SWIM (Das et al., 2002) with Lifeguard (Dadgar et al., 2018).

Sans-I/O: calls in, outputs out; time is monotonic seconds. docs/gossip.md has the rules and why.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from kvstore.gossip.awareness import Awareness
from kvstore.gossip.dissemination import Dissemination
from kvstore.gossip.member import MAX_INCARNATION, Member, Status, Update
from kvstore.gossip.membership import Membership
from kvstore.gossip.messages import Ack, GossipMessage, Nack, Ping, PingRequest, PushPull
from kvstore.gossip.outputs import Output, PersistIncarnation, Send, StatusChanged
from kvstore.gossip.probe import Probe, Relay, Rotation
from kvstore.gossip.settings import GossipSettings
from kvstore.gossip.suspicion import Suspicion

_NACK_SHARE = 0.8
"""Part of the probe timeout after which a helper sends its Nack, so that it is in time (Lifeguard)."""


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
        self._table = Membership(me, peers, incarnation, 0.0)
        self._awareness = Awareness(settings.awareness_max)
        self._gossip = Dissemination(settings.retransmit_factor, settings.update_bytes)
        self._rotation = Rotation(peers, rng)
        self._sequence = rng.getrandbits(32)  # acks to an earlier life of this node must not fit
        self._probes: dict[str, Probe] = {}
        self._relays: dict[int, Relay] = {}
        self._suspicions: dict[str, Suspicion] = {}
        self._dead: dict[str, float] = {}
        """Dead members, and when to ping each again."""
        self._next_probe = math.inf
        self._next_push_pull = math.inf
        self._deadline = math.inf
        self._last_turn = 0.0
        self._outputs: list[Output] = []

    # what the node asks

    def status(self, node: str) -> Status:
        """What is believed of a member; raises KeyError for a node that is none."""
        return self._table[node].status

    def members(self) -> tuple[Member, ...]:
        """All members, this node included, in order of node ids."""
        return self._table.members()

    def next_deadline(self) -> float:
        """When `on_timer` next has work; infinite before `start`."""
        return self._deadline

    # inputs

    def start(self, now: float) -> list[Output]:
        """Tell every peer of this node's incarnation, ask for their tables, and begin to probe."""
        self._table = Membership(self._me, self._peers, self._table[self._me].incarnation, now)
        for peer in self._peers:
            self._push_pull(peer, reply=True)
        self._next_probe = now + self._rng.random() * self._settings.probe_interval
        self._next_push_pull = now + self._rng.random() * self._settings.push_pull_interval
        return self._end_turn(now)

    def on_timer(self, now: float) -> list[Output]:
        """Do what is due; harmless at any time."""
        if now < self._deadline:
            return []
        self._notice_stall(now)
        self._nack_relays(now)
        self._advance_probes(now)
        self._bury(now)
        self._ping_dead(now)
        if now >= self._next_probe:
            self._next_probe = now + self._settings.probe_interval * self._awareness.multiplier
            if target := self._rotation.next(self._wants_probe):
                self._probe(target, now)
        if now >= self._next_push_pull:
            self._next_push_pull = now + self._settings.push_pull_interval
            if alive := self._table.alive():
                self._push_pull(self._rng.choice(alive), reply=True)
        return self._end_turn(now)

    def on_message(self, sender: str, message: GossipMessage, now: float) -> list[Output]:
        """A message from another node; ignored when that is no member."""
        if sender not in self._peers:
            return []
        self._notice_stall(now)
        # a whole table repeats hearsay, and a request is sent before its sender has seen anything
        witness = not isinstance(message, PushPull | PingRequest)
        for update in message.updates:
            self._hear(sender, update, witness, now)
        match message:
            case Ping(sequence, target) if target == self._me:
                self._send(sender, Ack(sequence, self._updates(sender)))
            case PingRequest():
                self._relay(sender, message, now)
            case Ack(sequence):
                self._on_ack(sender, sequence, now)
            case Nack(sequence):
                for probe in self._probes.values():
                    if probe.answers(sender, sequence):
                        probe.on_nack(sender)
            case PushPull(_, reply) if reply:
                self._push_pull(sender, reply=False)
        return self._end_turn(now)

    def on_link_lost(self, peer: str, now: float) -> list[Output]:
        """The connection to `peer` broke, which proves nothing: probe it at once."""
        if peer not in self._peers:
            return []
        self._notice_stall(now)
        if self._table[peer].status is not Status.DEAD:
            self._probe(peer, now)
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
        for probe in self._probes.values():
            probe.delay(lost)
        for suspicion in self._suspicions.values():
            suspicion.delay(lost)
        self._deadline = now

    def _end_turn(self, now: float) -> list[Output]:
        due = min(self._next_probe, self._next_push_pull)
        for waiting in (self._probes, self._suspicions, self._relays):
            due = min(due, min((each.deadline for each in waiting.values()), default=due))
        due = min(due, min(self._dead.values(), default=due))
        self._deadline = max(now, due)  # a deadline moved into the past is no stall
        self._last_turn = now
        outputs, self._outputs = self._outputs, []
        return outputs

    # sending

    def _send(self, to: str, message: GossipMessage) -> None:
        self._outputs.append(Send(to, message))

    def _updates(self, to: str, *about: str) -> tuple[Update, ...]:
        """What rides on a message: this node's own row, the receiver's, rows it is about, queued gossip.

        Whoever is accused reads so in its own row, and can refute.
        """
        rows = tuple(self._table[node].update() for node in (self._me, to, *about))
        if self._table[to].status is not Status.ALIVE:
            return rows  # gossip is sent a few times only, and not wasted on who may not hear it
        return rows + tuple(self._gossip.take(len(self._table)))

    def _push_pull(self, to: str, reply: bool) -> None:
        self._send(to, PushPull(self._table.updates(), reply))

    def _ping(self, target: str) -> int:
        self._sequence += 1
        self._send(target, Ping(self._sequence, target, self._updates(target)))
        return self._sequence

    # probing

    def _wants_probe(self, node: str) -> bool:
        return self._table[node].status is Status.ALIVE and node not in self._probes

    def _probe(self, target: str, now: float) -> None:
        if target in self._probes:
            return
        factor = self._awareness.multiplier
        direct_until = now + self._settings.probe_timeout * factor
        until = now + self._settings.probe_interval * factor
        self._probes[target] = Probe(target, self._ping(target), direct_until, until)

    def _advance_probes(self, now: float) -> None:
        for probe in [probe for probe in self._probes.values() if probe.deadline <= now]:
            if probe.asked:
                self._fail(probe, now)
            else:
                self._ask_helpers(probe)

    def _ask_helpers(self, probe: Probe) -> None:
        able = [node for node in self._table.alive() if node != probe.target]
        helpers = self._rng.sample(able, min(self._settings.indirect_probes, len(able)))
        probe.ask(helpers)
        about = (self._table[self._me].update(), self._table[probe.target].update())
        for helper in helpers:
            self._send(helper, PingRequest(probe.sequence, probe.target, about))

    def _fail(self, probe: Probe, now: float) -> None:
        del self._probes[probe.target]
        self._awareness.worse(probe.blame())
        self._witness(probe.target, now)
        self._probe(probe.target, now)  # every further probe is a chance to refute

    def _on_ack(self, sender: str, sequence: int, now: float) -> None:
        relay = self._relays.get(sequence)
        if relay and relay.target == sender:
            del self._relays[sequence]
            self._send(relay.requester, Ack(relay.sequence, self._updates(relay.requester, relay.target)))
        for probe in list(self._probes.values()):
            if probe.answers(sender, sequence):
                del self._probes[probe.target]
                self._awareness.better()
                if self._table[probe.target].status is Status.SUSPECT:
                    self._probe(probe.target, now)  # it was pinged before it was accused

    def _ping_dead(self, now: float) -> None:
        for node, due in self._dead.items():
            if due <= now:
                self._dead[node] = now + self._settings.dead_interval
                self._ping(node)

    # probing for others

    def _relay(self, requester: str, request: PingRequest, now: float) -> None:
        if request.target not in self._peers:
            return
        deadline = now + _NACK_SHARE * self._settings.probe_timeout
        sequence = self._ping(request.target)
        self._relays[sequence] = Relay(requester, request.sequence, request.target, deadline)

    def _nack_relays(self, now: float) -> None:
        for sequence, relay in list(self._relays.items()):
            if relay.deadline <= now:
                del self._relays[sequence]
                self._send(relay.requester, Nack(relay.sequence, self._updates(relay.requester)))

    # judging

    def _hear(self, sender: str, update: Update, witness: bool, now: float) -> None:
        """Good news is believed and passed on; bad news only makes this node look for itself."""
        node = update.node
        if node == self._me:
            self._refute(update)
            return
        if node not in self._table:
            return
        hearsay = update.status is Status.DEAD and self._table[node].status is not Status.DEAD
        claim = Update(node, Status.SUSPECT, update.incarnation) if hearsay else update
        self._believe(claim, now, firsthand=node == sender)
        suspicion = self._suspicions.get(node)
        if suspicion and update.incarnation == self._table[node].incarnation:
            if update.status is Status.DEAD:
                suspicion.condemned = True
            elif update.status is Status.SUSPECT and witness:
                suspicion.confirm(sender)

    def _refute(self, update: Update) -> None:
        """Outdo whatever outdoes this node's own claim to be alive (SWIM section 4.2)."""
        mine = self._table[self._me]
        if not update.supersedes(mine.update()):
            return
        if update.status is not Status.ALIVE:
            self._awareness.worse(1)
        incarnation = min(update.incarnation + 1, MAX_INCARNATION)
        if incarnation > mine.incarnation:
            self._outputs.append(PersistIncarnation(incarnation))
            self._table.merge(Update(self._me, Status.ALIVE, incarnation), mine.since)

    def _witness(self, node: str, now: float) -> None:
        """This node's own probe has failed: suspect the member, and say so."""
        incarnation = self._table[node].incarnation
        self._believe(Update(node, Status.SUSPECT, incarnation), now)
        suspicion = self._suspicions[node]
        if not suspicion.witnessed:
            suspicion.witnessed = True
            self._gossip.add(self._table[node].update())

    def _bury(self, now: float) -> None:
        """Declare those dead that did not refute in time."""
        for node in [node for node, suspicion in self._suspicions.items() if suspicion.deadline <= now]:
            self._believe(Update(node, Status.DEAD, self._table[node].incarnation), now)
            self._gossip.add(self._table[node].update())

    def _believe(self, update: Update, now: float, firsthand: bool = False) -> None:
        """Take a claim into the table and do what follows from it."""
        node, old = update.node, self._table[update.node].status
        if not self._table.merge(update, now, firsthand):
            return
        self._gossip.discard(node)
        self._suspicions.pop(node, None)
        self._dead.pop(node, None)
        if old is not update.status:
            self._outputs.append(StatusChanged(node, old, update.status))
        match update.status:
            case Status.ALIVE:
                self._gossip.add(update)
                if old is Status.DEAD:
                    self._push_pull(node, reply=True)
            case Status.SUSPECT:
                self._suspicions[node] = self._suspicion(now)
                self._probe(node, now)
            case Status.DEAD:
                self._probes.pop(node, None)
                self._dead[node] = now + self._settings.dead_interval

    def _suspicion(self, now: float) -> Suspicion:
        """The time to refute grows with the logarithm of the cluster; see memberlist's suspicionTimeout."""
        settings = self._settings
        minimum = settings.suspicion_min * max(1.0, math.log10(len(self._table)))
        others = self._table.not_dead() - 2
        expected = settings.confirmations if others >= settings.confirmations else 0
        return Suspicion(now, expected, minimum, minimum * settings.suspicion_max_factor)
