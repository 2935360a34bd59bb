"""Probing the other members, one after another and whoever is in doubt (SWIM section 3.1)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence

from kvstore.gossip.awareness import Awareness
from kvstore.gossip.dissemination import Outgoing
from kvstore.gossip.membership import Membership
from kvstore.gossip.probe import Probe, Rotation
from kvstore.gossip.settings import GossipSettings
from kvstore.protocol.gossip import PingRequest, Status


class Probing:
    """The probes under way, one of a member at most, and when the next member is chosen."""

    def __init__(
        self,
        me: str,
        peers: Iterable[str],
        settings: GossipSettings,
        table: Membership,
        outgoing: Outgoing,
        awareness: Awareness,
        rng: random.Random,
    ) -> None:
        self._me = me
        self._settings = settings
        self._table = table
        self._outgoing = outgoing
        self._awareness = awareness
        self._rng = rng
        self._rotation = Rotation(peers, rng)
        self._probes: dict[str, Probe] = {}
        self._next_step: float | None = None
        """When the first probe needs its next step; None after a change, until it is asked for."""
        self._next = math.inf

    @property
    def deadline(self) -> float:
        """When a probe needs its next step or the next member is to be chosen; infinite before `start`."""
        if self._next_step is None:
            self._next_step = min((probe.deadline for probe in self._probes.values()), default=math.inf)
        return min(self._next, self._next_step)

    def start(self, now: float) -> None:
        """Probe one member after another, from some time within the next interval on."""
        self._next = now + self._rng.random() * self._settings.probe_interval

    def on_members(self, peers: Sequence[str], new: Iterable[str], gone: Iterable[str]) -> None:
        """These are the other members now; those that are gone are not probed any more."""
        self._rotation.on_members(peers, new)
        for node in gone:
            self.give_up(node)

    def probe_next(self, now: float) -> None:
        """Probe the next member in the rotation, if it is time."""
        if now >= self._next:
            self._next = now + self._settings.probe_interval * self._awareness.multiplier
            if target := self._rotation.next(self._wants_probe):
                self.probe(target, now)

    def _wants_probe(self, node: str) -> bool:
        known = node in self._table  # the rotation may still name one that has left
        return known and self._table[node].status is Status.ALIVE and node not in self._probes

    def probe(self, target: str, now: float) -> None:
        """Probe a member, unless a probe of it is under way."""
        if target in self._probes:
            return
        factor = self._awareness.multiplier
        direct_until = now + self._settings.probe_timeout * factor
        until = now + self._settings.probe_interval * factor
        self._probes[target] = Probe(target, self._outgoing.ping(target), direct_until, until)
        self._next_step = None

    def advance(self, now: float) -> Iterator[str]:
        """Do the next step of each probe that is due; those of the members yielded here have failed."""
        if self.deadline > now:
            return
        for probe in [probe for probe in self._probes.values() if probe.deadline <= now]:
            if probe.asked:
                self.give_up(probe.target)
                self._awareness.worse(probe.blame())
                yield probe.target
            else:
                self._ask_helpers(probe)

    def _ask_helpers(self, probe: Probe) -> None:
        able = [node for node in self._table.alive() if node != probe.target]
        helpers = self._rng.sample(able, min(self._settings.indirect_probes, len(able)))
        probe.ask(helpers)
        self._next_step = None
        about = (self._table[self._me].update(), self._table[probe.target].update())
        for helper in helpers:
            self._outgoing.send(helper, PingRequest(probe.sequence, probe.target, about))

    def on_ack(self, sender: str, sequence: int, now: float) -> None:
        """A member has answered, itself or through a helper."""
        for probe in list(self._probes.values()):
            if probe.answers(sender, sequence):
                self.give_up(probe.target)
                self._awareness.better()
                if self._table[probe.target].status is Status.SUSPECT:
                    self.probe(probe.target, now)  # it was pinged before it was accused

    def on_nack(self, sender: str, sequence: int) -> None:
        """A helper got no answer either, but is well."""
        for probe in self._probes.values():
            if probe.answers(sender, sequence):
                probe.on_nack(sender)

    def give_up(self, target: str) -> None:
        """End the probe of a member, if there is one: it would prove nothing more."""
        self._probes.pop(target, None)
        self._next_step = None

    def delay(self, seconds: float) -> None:
        """Give every member that is probed more time."""
        for probe in self._probes.values():
            probe.delay(seconds)
        self._next_step = None
