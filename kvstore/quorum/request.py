"""A client's request as the coordinator's operations see it."""

from __future__ import annotations

import msgspec

from kvstore.config import BucketSettings, Limits, QuorumMode, QuorumSettings
from kvstore.errors import InvalidRequest, StaleRing, Unavailable
from kvstore.instant import Instant
from kvstore.principal import Principal
from kvstore.protocol.client import ClientRequest, Get, Put
from kvstore.quorum.placement import Placement, Placements
from kvstore.quorum.votes import NOBODY, Outcome, Quorum, count
from kvstore.ring import data_key, partition_of, token


class Request(msgspec.Struct, frozen=True):
    """A client's request with all that was derived from it once: key, replicas, quorums, deadline."""

    principal: Principal
    call: ClientRequest
    bucket: BucketSettings
    token: int
    key: bytes
    partition: int
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
    def read_quorum(self) -> Quorum:
        """Who must hold what a read shows."""
        return self.placement.quorum(self.r, self.sloppy)

    @property
    def write_quorum(self) -> Quorum:
        """Who must have a write before it is acknowledged."""
        return self.placement.quorum(self.w, self.sloppy)


def check_available(request: Request) -> None:
    """Raise Unavailable if too few replicas are alive for one of the quorums of a request."""
    placement = request.placement
    if not placement.dead and len(placement.targets) >= request.r and len(placement.targets) >= request.w:
        return  # as nearly always
    larger = placement.quorum(max(request.r, request.w), request.sloppy)  # their members are the same
    if count((larger,), NOBODY, placement.dead) is Outcome.LOST:
        raise Unavailable(larger.needed, len(larger.members & placement.sloppy))


def admit(
    principal: Principal,
    call: ClientRequest,
    placements: Placements,
    limits: Limits,
    settings: QuorumSettings,
    now: Instant,
    client: int,
) -> Request:
    """Check a client's request and derive what is needed of it; raises InvalidRequest, StaleRing."""
    state = placements.state
    if not state.knows(call.bucket):
        limits.check_bucket(call.bucket)
    limits.check_key(call.key)
    bucket = state.bucket(call.bucket)
    # checked also where no read or write follows: r of a Delete with a context
    r = 0 if isinstance(call, Put) else _replicas("r", call.r or bucket.r, bucket.n)
    w = 0 if isinstance(call, Get) else _replicas("w", call.w or bucket.w, bucket.n)
    key_token = token(call.bucket, call.key)
    partition = partition_of(key_token, state.ring.partitions)
    if call.epoch and not placements.since.is_current(partition, call.bucket, call.epoch):
        raise StaleRing(state.epoch)
    timeout = min(call.timeout or settings.default_timeout, settings.max_timeout)
    return Request(
        principal,
        call,
        bucket,
        key_token,
        data_key(key_token, call.bucket, call.key),
        partition,
        r if call.reads else 0,
        w,
        (call.quorum or bucket.quorum) is QuorumMode.SLOPPY,
        placements.place(partition, bucket.n),
        now.mono + timeout,
        now,
        client,
    )


def _replicas(field: str, number: int, n: int) -> int:
    """How many replicas to wait for; raises InvalidRequest."""
    if not 1 <= number <= n:
        raise InvalidRequest(field, f"is {number}, must be between 1 and n={n} of the bucket")
    return number
