"""What a node believes of the members, and what follows: suspicion, refutation, death (SWIM section 4.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable

from kvstore.gossip.awareness import Awareness
from kvstore.gossip.dead_members import DeadMembers
from kvstore.gossip.dissemination import Dissemination, Outgoing
from kvstore.gossip.membership import Membership
from kvstore.gossip.outputs import PersistIncarnation, StatusChanged
from kvstore.gossip.probing import Probing
from kvstore.gossip.settings import GossipSettings
from kvstore.gossip.suspicion import Suspicion
from kvstore.protocol.fields import MAX_INCARNATION
from kvstore.protocol.gossip import Status, Update


class Beliefs:
    """Takes claims into the table. It has a suspicion of each SUSPECT member, and pings the DEAD ones."""

    def __init__(
        self,
        me: str,
        settings: GossipSettings,
        table: Membership,
        gossip: Dissemination,
        outgoing: Outgoing,
        probing: Probing,
        awareness: Awareness,
    ) -> None:
        self._me = me
        self._settings = settings
        self._table = table
        self._gossip = gossip
        self._outgoing = outgoing
        self._probing = probing
        self._awareness = awareness
        self._suspicions: dict[str, Suspicion] = {}
        self._next_verdict: float | None = None
        """When the first suspect's time is over; None after a change, until it is asked for."""
        self._dead = DeadMembers(settings.dead_interval)

    @property
    def deadline(self) -> float:
        """When a suspect's time is over or a dead member is to be pinged; infinite when there is none."""
        if self._next_verdict is None:
            due = (suspicion.deadline for suspicion in self._suspicions.values())
            self._next_verdict = min(due, default=math.inf)
        return min(self._next_verdict, self._dead.deadline)

    def forget(self, gone: Iterable[str]) -> None:
        """These are members no more."""
        for node in gone:
            self._gossip.discard(node)
            self._suspicions.pop(node, None)
            self._dead.discard(node)
        self._next_verdict = None

    def hear(self, sender: str, update: Update, probed: bool, now: float) -> None:
        """Good news is believed and passed on; bad news only makes this node look for itself.

        `probed`: the sender may have probed the member itself.
        """
        node = update.node
        if node == self._me:
            self._refute(update)
            return
        if node not in self._table:
            return
        hearsay = update.status is Status.DEAD and self._table[node].status is not Status.DEAD
        claim = Update(node, Status.SUSPECT, update.incarnation) if hearsay else update
        told = (
            "it says so itself"
            if node == sender
            else f"{sender} says that it is {update.status.name.lower()}"
        )
        self._believe(claim, now, told, firsthand=node == sender)
        suspicion = self._suspicions.get(node)
        if suspicion and update.incarnation == self._table[node].incarnation:
            if update.status is Status.DEAD:
                suspicion.called_dead = True
                self._next_verdict = None
            elif update.status is Status.SUSPECT and probed:
                suspicion.confirm(sender)
                self._next_verdict = None

    def _refute(self, update: Update) -> None:
        """Outdo whatever outdoes this node's own claim to be alive (SWIM section 4.2)."""
        mine = self._table[self._me]
        if not update.supersedes(mine.update()):
            return
        if update.status is not Status.ALIVE:
            self._awareness.worse(1)
        incarnation = min(update.incarnation + 1, MAX_INCARNATION)
        if incarnation > mine.incarnation:
            self._outgoing.add(PersistIncarnation(incarnation))
            self._table.accept(Update(self._me, Status.ALIVE, incarnation), mine.since)

    def suspect(self, node: str, now: float) -> None:
        """This node's own probe has failed: suspect the member, and say so."""
        incarnation = self._table[node].incarnation
        reason = "it answers neither this node's probe nor those of others"
        self._believe(Update(node, Status.SUSPECT, incarnation), now, reason)
        suspicion = self._suspicions[node]
        if not suspicion.probe_failed:
            suspicion.probe_failed = True
            self._next_verdict = None
            self._gossip.add(self._table[node].update())

    def declare_dead(self, now: float) -> None:
        """Declare those dead that did not refute in time."""
        if self.deadline > now:
            return
        for node in [node for node, suspicion in self._suspicions.items() if suspicion.deadline <= now]:
            reason = "it was suspected, and has not said that it is alive"
            self._believe(Update(node, Status.DEAD, self._table[node].incarnation), now, reason)
            self._gossip.add(self._table[node].update())

    def ping_dead(self, now: float) -> None:
        """Ping the dead member whose turn it is: a healed partition always rejoins."""
        if node := self._dead.take_due(now):
            self._outgoing.ping(node)

    def delay(self, seconds: float) -> None:
        """Give every suspect more time."""
        for suspicion in self._suspicions.values():
            suspicion.delay(seconds)
        self._next_verdict = None

    def _believe(self, update: Update, now: float, reason: str, firsthand: bool = False) -> None:
        """Take a claim into the table and do what follows from it."""
        node, old = update.node, self._table[update.node].status
        if not self._table.accept(update, now, firsthand):
            return
        self._gossip.discard(node)
        self._suspicions.pop(node, None)
        self._next_verdict = None
        self._dead.discard(node)
        if old is not update.status:
            self._outgoing.add(StatusChanged(node, old, update.status, reason))
        match update.status:
            case Status.ALIVE:
                self._gossip.add(update)
                if old is Status.DEAD:
                    self._outgoing.greet(node)
            case Status.SUSPECT:
                self._suspicions[node] = self._suspicion(now)
                self._probing.probe(node, now)
            case Status.DEAD:
                self._probing.give_up(node)
                self._dead.add(node, now)

    def _suspicion(self, now: float) -> Suspicion:
        """The time to refute grows with the logarithm of the cluster; see memberlist's suspicionTimeout."""
        settings = self._settings
        minimum = settings.suspicion_min * max(1.0, math.log10(len(self._table)))
        others = self._table.not_dead() - 2
        expected = settings.confirmations if others >= settings.confirmations else 0
        return Suspicion(now, expected, minimum, minimum * settings.suspicion_max_factor)
