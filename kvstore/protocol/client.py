"""What clients ask, and what they get: frozen records, turned into protobuf by `kvstore.wire`.

An operation says itself what it is: whether it reads and writes, how many replicas it waits for, what reply
it gets, where it is counted; a reply says what it shows. The message of an operation in client.proto has its
name, and `Request` behind it.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias, TypeVar, get_args

import msgspec

from kvstore.config import BucketSettings, QuorumMode
from kvstore.errors import KVError, ReadTimeout, WriteTimeout
from kvstore.protocol.fields import (
    BucketField,
    Content,
    ContentType,
    ContextField,
    Count,
    Epoch,
    NodeId,
    Partition,
    Replicas,
    Seconds,
    SessionTokenField,
    Time,
    Ttl,
    UserKeyField,
)
from kvstore.versions import NO_CONTEXT, NO_TOKEN


class Explain(msgspec.Struct, frozen=True, gc=False):
    """How a reply came about: see client.proto."""

    coordinator: NodeId
    epoch: Epoch
    partition: Partition
    asked: tuple[NodeId, ...] = ()
    answered: tuple[NodeId, ...] = ()
    repaired: tuple[NodeId, ...] = ()
    hinted: tuple[NodeId, ...] = ()
    hedged: tuple[NodeId, ...] = ()


class Value(msgspec.Struct, frozen=True, gc=False):
    """One visible sibling as a client gets it; times in milliseconds since 1970, expiry 0: never."""

    value: Content
    content_type: ContentType = ""
    time: Time = 0
    expiry: Time = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """Reply to Get: visible siblings (none: no value) and the context (opaque bytes)."""

    siblings: tuple[Value, ...]
    context: ContextField
    explain: Explain | None = None

    @property
    def shows(self) -> tuple[bytes, ...]:
        """Values that its client is told of: R replicas hold them."""
        return tuple([sibling.value for sibling in self.siblings])


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Reply to a write.

    `context` allows overwriting what was just written, and nothing that the client did not see. When such
    siblings remain, `written` is for a session, in its place. `siblings` counts them all.
    `overwritten`: in an lww bucket, how many values were replaced that the client's context had not seen.
    """

    context: ContextField
    siblings: Count
    explain: Explain | None = None
    overwritten: Count = 0
    written: SessionTokenField = NO_TOKEN

    @property
    def shows(self) -> tuple[bytes, ...]:
        """Values that its client is told of: none."""
        return ()


class Failed(msgspec.Struct, frozen=True):
    """The request ended with a typed error."""

    error: KVError

    def __post_init__(self) -> None:
        # a value from now on: the frames of where it was raised hold the request, and mostly this reply, so
        # that both would stay until the next pass of the garbage collector
        self.error.__traceback__ = None


Success: TypeAlias = Found | Stored
"""What a request ends with that was carried out."""
Reply: TypeAlias = Success | Failed


class Get(msgspec.Struct, frozen=True, gc=False):
    """A client's read. `r` 0 and `quorum` None: as the bucket says; `timeout` in seconds, 0: default.

    `seen` is a session's token that the answer must cover, or, when `seen_empty`, be nothing at all.
    """

    reply: ClassVar[type[Found]] = Found
    writes: ClassVar[bool] = False
    counter: ClassVar[str] = "gets"

    bucket: BucketField
    key: UserKeyField
    r: Replicas = 0
    quorum: QuorumMode | None = None
    timeout: Seconds = 0.0
    explain: bool = False
    epoch: Epoch = 0
    seen: SessionTokenField = NO_TOKEN
    seen_empty: bool = False

    @property
    def reads(self) -> bool:
        """Whether it waits for what R replicas hold."""
        return True

    @property
    def stores(self) -> bytes | None:
        """The value that it puts in place of others: none."""
        return None

    def waits_for(self, bucket: BucketSettings) -> tuple[int, int]:
        """Replicas that its read and its write wait for, 0: it has none; in a bucket with these settings."""
        return self.r or bucket.r, 0


class Put(msgspec.Struct, frozen=True, gc=False):
    """A client's write of `value` over what `context` (opaque bytes) saw. `ttl` in seconds."""

    reply: ClassVar[type[Stored]] = Stored
    writes: ClassVar[bool] = True
    counter: ClassVar[str] = "puts"

    bucket: BucketField
    key: UserKeyField
    value: Content
    context: ContextField = NO_CONTEXT
    content_type: ContentType = ""
    ttl: Ttl = 0
    w: Replicas = 0
    quorum: QuorumMode | None = None
    timeout: Seconds = 0.0
    explain: bool = False
    epoch: Epoch = 0

    @property
    def reads(self) -> bool:
        """Whether it waits for what R replicas hold."""
        return False

    @property
    def stores(self) -> bytes | None:
        """The value that it puts in place of others."""
        return self.value

    def waits_for(self, bucket: BucketSettings) -> tuple[int, int]:
        """Replicas that its read and its write wait for, 0: it has none; in a bucket with these settings."""
        return 0, self.w or bucket.w


class Delete(msgspec.Struct, frozen=True, gc=False):
    """A client's tombstone over what `context` saw; without a context, over what a read of `r` sees."""

    reply: ClassVar[type[Stored]] = Stored
    writes: ClassVar[bool] = True
    counter: ClassVar[str] = "deletes"

    bucket: BucketField
    key: UserKeyField
    context: ContextField = NO_CONTEXT
    r: Replicas = 0
    w: Replicas = 0
    quorum: QuorumMode | None = None
    timeout: Seconds = 0.0
    explain: bool = False
    epoch: Epoch = 0

    @property
    def reads(self) -> bool:
        """Whether it waits for what R replicas hold."""
        return not self.context

    @property
    def stores(self) -> bytes | None:
        """The value that it puts in place of others: none, but a tombstone."""
        return None

    def waits_for(self, bucket: BucketSettings) -> tuple[int, int]:
        """Replicas that its read and its write wait for, 0: it has none; in a bucket with these settings."""
        return self.r or bucket.r, self.w or bucket.w


WriteRequest: TypeAlias = Put | Delete
ClientRequest: TypeAlias = Get | WriteRequest
CLIENT_REQUESTS: tuple[type[ClientRequest], ...] = get_args(ClientRequest)

_LITTLE = 0.05

R = TypeVar("R", bound=ClientRequest)


def timed_out(call: ClientRequest, bucket: BucketSettings) -> ReadTimeout | WriteTimeout:
    """The error of a request whose time is over without an answer of any replica."""
    r, w = call.waits_for(bucket)
    return WriteTimeout(0, w) if call.writes else ReadTimeout(0, r)


def aged(call: R, seconds: float) -> R:
    """A request that has waited somewhere: so much of its time is gone. It must have more than that.

    When less than a twentieth of its time is gone, the request itself: no copy is made for that.
    """
    if seconds <= _LITTLE * call.timeout or not call.timeout:
        return call
    return msgspec.structs.replace(call, timeout=call.timeout - seconds)
