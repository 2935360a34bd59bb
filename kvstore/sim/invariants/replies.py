"""What clients are told is on as many disks as they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from kvstore.config import BucketSettings, QuorumMode
from kvstore.protocol.client import ClientRequest, Failed, Reply
from kvstore.ring import ClusterState, internal_key
from kvstore.sim.invariants.copies import Copies
from kvstore.sim.invariants.writes import Writes
from kvstore.versions import InternalKey


class Replies:
    """The replies of nodes to clients; raises Violation."""

    def __init__(self, state: ClusterState, writes: Writes, copies: Copies, counts: Counter[str]) -> None:
        self._state = state
        self._writes = writes
        self._copies = copies
        self._counts = counts

    def replied(self, node: str, call: ClientRequest, since: float, reply: Reply) -> None:
        """A client, or the node that has forwarded its request, is answered; asked `since` then."""
        if isinstance(reply, Failed):
            return
        self._shown(node, call, reply.shows)
        if call.writes:
            self._written(node, call, call.stores, since)

    def _shown(self, node: str, call: ClientRequest, values: Sequence[bytes]) -> None:
        key, bucket = self._place(call)
        for value in values:
            self._counts["read is on R disks"] += 1
            minted = [mint for mint in self._writes.mints[key] if mint.value == value]
            (r, _), sloppy = call.waits_for(bucket), _sloppy(call, bucket)
            self._copies.must_be_on(node, key, minted, r, sloppy, "is read")

    def _written(self, node: str, call: ClientRequest, value: bytes | None, since: float) -> None:
        key, bucket = self._place(call)
        minted = [mint for mint in self._writes.mints[key] if mint.value == value and mint.at >= since]
        if minted or value is not None:  # a delete of nothing writes nothing
            self._counts["acknowledged is on W disks"] += 1
            (_, w), sloppy = call.waits_for(bucket), _sloppy(call, bucket)
            self._copies.must_be_on(node, key, minted, w, sloppy, "is acknowledged")
            if not sloppy:
                self._copies.must_be_on_each_list(node, key, minted, w)

    def _place(self, call: ClientRequest) -> tuple[InternalKey, BucketSettings]:
        key = internal_key(call.bucket, call.key)
        return key, self._state.bucket(call.bucket)


def _sloppy(call: ClientRequest, bucket: BucketSettings) -> bool:
    return (call.quorum or bucket.quorum) is QuorumMode.SLOPPY
