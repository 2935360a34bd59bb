"""What clients are told is on as many disks as they are told."""

from __future__ import annotations

from collections import Counter

from kvstore.config import QuorumMode
from kvstore.protocol.client import ClientRequest, Found, Get, Put, Reply, Stored
from kvstore.ring import ClusterState, data_key, token
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.writes import Writes


class Replies:
    """The replies of nodes to clients; raises Violation."""

    def __init__(self, state: ClusterState, writes: Writes, copies: Copies, counts: Counter[str]) -> None:
        self._state = state
        self._writes = writes
        self._copies = copies
        self._counts = counts

    def replied(self, node: str, call: ClientRequest, since: float, reply: Reply) -> None:
        """A client, or the node that has forwarded its request, is answered; asked `since` then."""
        bucket = self._state.bucket(call.bucket)
        sloppy = (call.quorum or bucket.quorum) is QuorumMode.SLOPPY
        key = data_key(token(call.bucket, call.key), call.bucket, call.key)
        if isinstance(reply, Found) and isinstance(call, Get):
            for sibling in reply.siblings:
                self._counts["read is on R disks"] += 1
                minted = [mint for mint in self._writes.mints[key] if mint.value == sibling.value]
                self._copies.must_be_on(node, key, minted, call.r or bucket.r, sloppy, "is read")
        elif isinstance(reply, Stored) and not isinstance(call, Get):
            value = call.value if isinstance(call, Put) else None
            minted = [mint for mint in self._writes.mints[key] if mint.value == value and mint.at >= since]
            if minted or value is not None:  # a delete of nothing writes nothing
                self._counts["acknowledged is on W disks"] += 1
                self._copies.must_be_on(node, key, minted, call.w or bucket.w, sloppy, "is acknowledged")
