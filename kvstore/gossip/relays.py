"""Pings for others: the helper's side of an indirect probe (SWIM section 3.1, Lifeguard section IV-A)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from kvstore.gossip.dissemination import Outgoing
from kvstore.protocol.gossip import Ack, Nack, PingRequest

_NACK_SHARE = 0.8
"""Part of the probe timeout after which a helper sends its Nack, so that it is in time (Lifeguard)."""


@dataclass(slots=True)
class Relay:
    """A ping sent for another node, which gets a Nack if it is not answered until `deadline`."""

    requester: str
    sequence: int
    target: str
    deadline: float


class Relays:
    """The pings for others that are under way, by their own sequence numbers."""

    def __init__(self, probe_timeout: float, outgoing: Outgoing) -> None:
        self._patience = _NACK_SHARE * probe_timeout
        self._outgoing = outgoing
        self._relays: dict[int, Relay] = {}

    @property
    def deadline(self) -> float:
        """When the first Nack is due; infinite when there is none."""
        return min((relay.deadline for relay in self._relays.values()), default=math.inf)

    def relay(self, requester: str, request: PingRequest, now: float) -> None:
        """Ping the target for another node."""
        sequence = self._outgoing.ping(request.target)
        deadline = now + self._patience
        self._relays[sequence] = Relay(requester, request.sequence, request.target, deadline)

    def forget(self, gone: Collection[str]) -> None:
        """These are members no more."""
        self._relays = {
            sequence: relay
            for sequence, relay in self._relays.items()
            if relay.target not in gone and relay.requester not in gone
        }

    def on_ack(self, sender: str, sequence: int) -> None:
        """If this is what another node waits for, tell it."""
        relay = self._relays.get(sequence)
        if relay and relay.target == sender:
            del self._relays[sequence]
            updates = self._outgoing.updates(relay.requester, relay.target)
            self._outgoing.send(relay.requester, Ack(relay.sequence, updates))

    def nack_due(self, now: float) -> None:
        """Tell those who wait for an answer that does not come that this node is well, at least."""
        for sequence, relay in list(self._relays.items()):
            if relay.deadline <= now:
                del self._relays[sequence]
                updates = self._outgoing.updates(relay.requester)
                self._outgoing.send(relay.requester, Nack(relay.sequence, updates))
