"""What nodes ask of each other about keys: frozen records, turned into protobuf by `kvstore.wire`.

msgspec's structs, because every request makes a dozen of these: a frozen dataclass takes 1.5 us to make,
a struct 0.15. Those that hold no error cannot be part of a cycle, so the collector need not know them.

`request` numbers are the asker's, unique over its restarts. `key` is an internal key
(kvstore.ring.token), `version` canonical bytes (kvstore.versions).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from kvstore.config import QuorumMode
from kvstore.errors import KVError


class ReplicaWrite(msgspec.Struct, frozen=True, gc=False):
    """Reconcile `version` into what is stored, or keep it as a hint for the node `hint_for`."""

    request: int
    epoch: int
    key: bytes
    version: bytes
    hint_for: str = ""
    replay: bool = False
    """A replayed hint: it can wait, so it travels on the bulk stream."""


class WriteAck(msgspec.Struct, frozen=True, gc=False):
    """The versions of the ReplicaWrites `requests` are durable at the sender."""

    requests: tuple[int, ...]


class ReplicaRead(msgspec.Struct, frozen=True, gc=False):
    """What is your version of `key`? `digest` is that of the asker's own version."""

    request: int
    epoch: int
    key: bytes
    digest: bytes
    hint_for: str = ""
    ttl_ms: int = 0
    """What was left of the client's time when this was asked; 0: any."""


class ReadSame(msgspec.Struct, frozen=True, gc=False):
    """The sender's version has the digest that was asked about."""

    request: int


class ReadReply(msgspec.Struct, frozen=True, gc=False):
    """The sender's version; empty when it has none."""

    request: int
    version: bytes


class Refusal(msgspec.Struct, frozen=True):
    """The sender did not do what `request` asked."""

    request: int
    error: KVError


class NodeHash(NamedTuple):
    """What a node of a tree stands for: the sum of its items modulo 2^64, and how many there are."""

    sum: int
    items: int


class TreeNode(NamedTuple):
    """Names a node: 0 is the root, 1 to 16 are its children, 17 to 272 the leaves."""

    partition: int
    n: int
    number: int


class TreeRead(msgspec.Struct, frozen=True, gc=False):
    """Asks for the hashes of these nodes of Merkle trees."""

    request: int
    epoch: int
    nodes: tuple[TreeNode, ...]


class TreeHashes(msgspec.Struct, frozen=True, gc=False):
    """The hashes that were asked for, in that order; None: that tree has not been built yet."""

    request: int
    hashes: tuple[NodeHash | None, ...]


class RangeItems(msgspec.Struct, frozen=True, gc=False):
    """Asks how `leaves` of a tree differ, in the keys from `after` up to and without `until`.

    Leaves from 0, a byte each, in order. An empty `until` is no bound. `items` are 8 bytes for each key that
    the asker holds there, in order (kvstore.quorum.background.merkle.item).
    """

    request: int
    epoch: int
    partition: int
    n: int
    leaves: bytes
    after: bytes
    until: bytes
    items: bytes


class RangeDifference(msgspec.Struct, frozen=True, gc=False):
    """Keys and versions that the asker lacks, and positions of its items that the sender lacks.

    When `reached` is not empty, the answer would have been too long: it covers the versions before that
    key, and no `wanted`.
    """

    request: int
    versions: tuple[tuple[bytes, bytes], ...]
    wanted: tuple[int, ...]
    reached: bytes


class RepairWanted(msgspec.Struct, frozen=True, gc=False):
    """A hint for `node` was dropped: this (partition, n) of the receiver should be compared with it next."""

    epoch: int
    partition: int
    n: int
    node: str


class Candidate(NamedTuple):
    """A key whose version, with this digest, nobody can see any more."""

    key: bytes
    digest: bytes


class ReapCheck(msgspec.Struct, frozen=True, gc=False):
    """Asks which candidates may be reaped; with `commit` to reap them (kvstore.quorum.background.reap)."""

    request: int
    epoch: int
    candidates: tuple[Candidate, ...]
    commit: bool


class ReapConfirm(msgspec.Struct, frozen=True, gc=False):
    """Positions of the candidates that nothing at the sender speaks against, or that it has reaped."""

    request: int
    positions: tuple[int, ...]


class KeyOffer(msgspec.Struct, frozen=True, gc=False):
    """All keys that the sender has of those that contexts are signed with (kvstore.contexts)."""

    keys: tuple[bytes, ...]


AntiEntropyMessage = TreeRead | TreeHashes | RangeItems | RangeDifference
QuorumMessage = (
    ReplicaWrite
    | WriteAck
    | ReplicaRead
    | ReadSame
    | ReadReply
    | Refusal
    | AntiEntropyMessage
    | RepairWanted
    | ReapCheck
    | ReapConfirm
    | KeyOffer
)


class Get(msgspec.Struct, frozen=True, gc=False):
    """A client's read. `r` 0 and `quorum` None: as the bucket says; `timeout` in seconds, 0: default.

    `seen` is a session's token that the answer must cover, or, when `seen_empty`, be nothing at all.
    """

    bucket: str
    key: bytes
    r: int = 0
    quorum: QuorumMode | None = None
    timeout: float = 0.0
    explain: bool = False
    epoch: int = 0
    seen: bytes = b""
    seen_empty: bool = False


class Put(msgspec.Struct, frozen=True, gc=False):
    """A client's write of `value` over what `context` (opaque bytes) saw. `ttl` in seconds."""

    bucket: str
    key: bytes
    value: bytes
    context: bytes = b""
    content_type: str = ""
    ttl: int = 0
    w: int = 0
    quorum: QuorumMode | None = None
    timeout: float = 0.0
    explain: bool = False
    epoch: int = 0


class Delete(msgspec.Struct, frozen=True, gc=False):
    """A client's tombstone over what `context` saw; without a context, over what a read of `r` sees."""

    bucket: str
    key: bytes
    context: bytes = b""
    r: int = 0
    w: int = 0
    quorum: QuorumMode | None = None
    timeout: float = 0.0
    explain: bool = False
    epoch: int = 0


ClientRequest = Get | Put | Delete

_LITTLE = 0.05


def aged(call: ClientRequest, seconds: float) -> ClientRequest:
    """A request that has waited somewhere: so much of its time is gone. It must have more than that.

    The same when it is too little to matter.
    """
    if seconds <= _LITTLE * call.timeout or not call.timeout:
        return call
    return msgspec.structs.replace(call, timeout=call.timeout - seconds)


class Explain(msgspec.Struct, frozen=True, gc=False):
    """How a reply came about: see client.proto."""

    coordinator: str
    epoch: int
    partition: int
    asked: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    hinted: tuple[str, ...] = ()
    hedged: tuple[str, ...] = ()


class Value(msgspec.Struct, frozen=True, gc=False):
    """One visible sibling as a client gets it; times in milliseconds since 1970, expiry 0: never."""

    value: bytes
    content_type: str = ""
    time: int = 0
    expiry: int = 0


class Found(msgspec.Struct, frozen=True, gc=False):
    """Reply to Get: visible siblings (none: no value) and the context (opaque bytes)."""

    siblings: tuple[Value, ...]
    context: bytes
    explain: Explain | None = None


class Stored(msgspec.Struct, frozen=True, gc=False):
    """Reply to Put and Delete.

    `context` allows overwriting what was just written; it is empty when siblings remain that the
    client did not see; `written` is for a session then, in its place. `siblings` counts them all.
    `overwritten`: in an lww bucket, how many values were replaced that the client's context had not seen.
    """

    context: bytes
    siblings: int
    explain: Explain | None = None
    overwritten: int = 0
    written: bytes = b""


class Failed(msgspec.Struct, frozen=True):
    """The request ended with a typed error."""

    error: KVError


Reply = Found | Stored | Failed


class Forward(msgspec.Struct, frozen=True):
    """A client's request, passed on by a node that is no replica of its key."""

    request: int
    epoch: int
    call: ClientRequest


class ForwardReply(msgspec.Struct, frozen=True):
    """The coordinator's reply to a Forward."""

    request: int
    reply: Reply


class Transport(Protocol):
    """Where messages to other nodes go."""

    def send(self, to: str, message: QuorumMessage | Forward | ForwardReply) -> None:
        """Send, best effort."""
