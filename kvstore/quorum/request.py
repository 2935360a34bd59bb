"""A client's request as the coordinator's operations see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any, TypeAlias

import msgspec

from kvstore.config import BucketSettings, Limits, QuorumMode, QuorumSettings
from kvstore.errors import InvalidRequest, Unavailable
from kvstore.principal import Principal
from kvstore.protocol.client import ClientRequest
from kvstore.protocol.instant import Instant
from kvstore.quorum.operation import Respond
from kvstore.quorum.placement import Placement, Placements
from kvstore.quorum.votes import NOBODY, Outcome, count, won
from kvstore.ring import internal_key, partition_of, token_of
from kvstore.versions import EncodedVersion, InternalKey

ReadHere = Callable[[Placement, InternalKey], EncodedVersion]
"""What a coordinator holds of a key itself, empty: nothing; raises Corruption. See `LocalCopy.read`."""


Operations: TypeAlias = Mapping[type[ClientRequest], Callable[["Request", Any, Respond], None]]
"""What begins each kind of request; it raises KVError when nothing was done."""


class Request(msgspec.Struct, frozen=True, gc=False):
    """A client's request with all that was derived from it once: key, replicas, quorums, deadline."""

    principal: Principal
    call: ClientRequest
    bucket: BucketSettings
    token: int
    key: InternalKey
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
    forwarded: bool
    """Whether another node has passed it on."""

    def is_read_by(self, nodes: AbstractSet[str]) -> bool:
        """Whether these are enough of its replicas for what it reads."""
        return len(nodes) >= self.r and won((self.placement.read_quorum(self.r, self.sloppy),), nodes)


def check_available(request: Request) -> None:
    """Raise Unavailable if too few replicas are alive for one of the quorums of a request."""
    placement, sloppy = request.placement, request.sloppy
    if not placement.dead and len(placement.read_strict) >= request.r:
        return  # as nearly always
    quorums = (placement.read_quorum(request.r, sloppy), *placement.write_quorums(request.w, sloppy))
    for quorum in sorted(quorums, key=lambda quorum: quorum.needed, reverse=True):
        if count((quorum,), NOBODY, placement.dead) is Outcome.LOST:
            raise Unavailable(quorum.needed, len(quorum.members - placement.dead))


def admit(
    principal: Principal,
    call: ClientRequest,
    placements: Placements,
    limits: Limits,
    settings: QuorumSettings,
    now: Instant,
    client: int,
    forwarded: bool,
) -> Request:
    """Check a client's request and derive what is needed of it; raises InvalidRequest, StaleRing."""
    state = placements.state
    if not state.knows(call.bucket):
        limits.check_bucket(call.bucket)
    limits.check_key(call.key)
    bucket = state.bucket(call.bucket)
    n = bucket.n
    r, w = call.waits_for(bucket)  # r also of a Delete with a context, whose read is left out
    if not (0 <= r <= n and 0 <= w <= n):
        raise _not_between(n, r=r, w=w)
    key = internal_key(call.bucket, call.key)
    key_token = token_of(key)
    partition = partition_of(key_token, state.ring.partitions)
    if call.epoch and call.epoch != state.epoch:
        placements.check_client(partition, call.bucket, call.epoch)
    timeout = min(call.timeout or settings.default_timeout, settings.max_timeout)
    return Request(
        principal,
        call,
        bucket,
        key_token,
        key,
        partition,
        r if call.reads else 0,
        w,
        (call.quorum or bucket.quorum) is QuorumMode.SLOPPY,
        placements.place(partition, n),
        now.mono + timeout,
        now,
        client,
        forwarded,
    )


def _not_between(n: int, **numbers: int) -> InvalidRequest:
    """For the first number of replicas to wait for that is none."""
    field, number = next((field, number) for field, number in numbers.items() if not 0 <= number <= n)
    return InvalidRequest(field, f"is {number}, must be between 1 and n={n} of the bucket")
