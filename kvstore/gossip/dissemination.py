"""Gossip: updates that wait to ride on other messages (SWIM section 4.1)."""

from __future__ import annotations

import math

from kvstore.gossip.member import Update

_ENCODED_OVERHEAD = 16
"""Bytes of an encoded update besides the node id, at most: tags, lengths, status, incarnation."""


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
            room -= len(node.encode()) + _ENCODED_OVERHEAD
            if room < 0:
                break
            taken.append(self._updates[node])
            self._sent[node] += 1
            if self._sent[node] >= limit:
                self.discard(node)
        return taken
