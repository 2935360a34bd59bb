"""A client's request as the coordinator's operations see it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvstore.config import BucketSettings, Limits, QuorumMode, QuorumSettings
from kvstore.errors import InvalidRequest, StaleRing
from kvstore.instant import Instant
from kvstore.protocol.messages import ClientRequest, Delete, Get, Put
from kvstore.quorum.placement import Placement
from kvstore.ring import ClusterState, data_key, partition_of, token


class Request(msgspec.Struct, frozen=True):
    """A client's request with all that was derived from it once: key, replicas, quorum, deadline."""

    call: ClientRequest
    bucket: BucketSettings
    token: int
    key: bytes
    partition: int
    n: int
    r: int
    """Replicas that a read waits for; of a Delete, the read before it (0: its context tells)."""
    w: int
    """Replicas that a write waits for; 0: this only reads."""
    sloppy: bool
    placement: Placement
    deadline: float
    now: Instant
    client: int

    @property
    def required(self) -> int:
        """Replicas without which it cannot be carried out."""
        return max(self.r, self.w)


def admit(
    call: ClientRequest,
    state: ClusterState,
    limits: Limits,
    settings: QuorumSettings,
    place: Callable[[int, int], Placement],
    now: Instant,
    client: int,
) -> Request:
    """Check a client's request and derive what is needed of it; raises InvalidRequest, StaleRing.

    `place` chooses the nodes to ask for a partition and n.
    """
    if not state.knows(call.bucket):
        limits.check_bucket(call.bucket)
    limits.check_key(call.key)
    if call.epoch and call.epoch != state.epoch:
        raise StaleRing(state.epoch)
    bucket = state.bucket(call.bucket)
    reads = isinstance(call, Get) or (isinstance(call, Delete) and not call.context)
    r = 0 if isinstance(call, Put) else _quorum("r", call.r or bucket.r, bucket.n)
    w = 0 if isinstance(call, Get) else _quorum("w", call.w or bucket.w, bucket.n)
    key_token = token(call.bucket, call.key)
    partition = partition_of(key_token, state.ring.partitions)
    timeout = min(call.timeout or settings.default_timeout, settings.max_timeout)
    return Request(
        call,
        bucket,
        key_token,
        data_key(key_token, call.bucket, call.key),
        partition,
        bucket.n,
        r if reads else 0,
        w,
        (call.quorum or bucket.quorum) is QuorumMode.SLOPPY,
        place(partition, bucket.n),
        now.mono + timeout,
        now,
        client,
    )


def _quorum(field: str, replicas: int, n: int) -> int:
    """How many replicas to wait for; raises InvalidRequest."""
    if not 1 <= replicas <= n:
        raise InvalidRequest(field, f"is {replicas}, must be between 1 and n={n} of the bucket")
    return replicas
