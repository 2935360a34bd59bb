"""What nodes ask of each other about keys: frozen records, turned into protobuf by `kvstore.wire`.

A new message is its struct here, declared and in the union, its message in peer.proto, and who handles it.
msgspec's structs, because every request makes a dozen of these: a frozen dataclass takes 1.5 us to make,
a struct 0.15. Those that hold no error cannot be part of a cycle, so the collector need not know them.
"""

from __future__ import annotations

from operator import attrgetter
from typing import NamedTuple, TypeAlias

import msgspec

from kvstore.errors import KVError
from kvstore.protocol.client import ClientRequest, Reply
from kvstore.protocol.fields import (
    BucketField,
    ContextKey,
    DigestField,
    EncodedVersionField,
    EncodedVersionOrNone,
    Epoch,
    HintTarget,
    InternalKeyField,
    ItemCount,
    Items,
    KeyBound,
    Leaves,
    NodeId,
    Number,
    Partition,
    Position,
    PrincipalName,
    TimeLeft,
    TreeHash,
    TreeN,
    TreeNodeNumber,
    UserKeyField,
)
from kvstore.protocol.row import peer_message


@peer_message("writes", columns="plain_writes", question=True, waits=attrgetter("background"))
class ReplicaWrite(msgspec.Struct, frozen=True, gc=False):
    """Reconcile `version` into what is stored, or keep it as a hint for the node `hint_for`."""

    number: Number
    epoch: Epoch
    key: InternalKeyField
    version: EncodedVersionField
    hint_for: HintTarget = ""
    background: bool = False
    """It delivers a hint, or repairs: no client waits for it, so it travels on the bulk stream."""


@peer_message("write_acks", answers=ReplicaWrite)
class WriteAck(msgspec.Struct, frozen=True, gc=False):
    """The versions of the ReplicaWrites `numbers` are durable at the sender."""

    numbers: tuple[Number, ...]


@peer_message("reads", columns="plain_reads", question=True, time_left=lambda m: m.ttl_ms / 1000)
class ReplicaRead(msgspec.Struct, frozen=True, gc=False):
    """What is your version of `key`? `digest` is that of the asker's own version."""

    number: Number
    epoch: Epoch
    key: InternalKeyField
    digest: DigestField
    hint_for: HintTarget = ""
    ttl_ms: TimeLeft = 0


@peer_message("read_sames", answers=ReplicaRead)
class ReadSame(msgspec.Struct, frozen=True, gc=False):
    """The sender's versions have the digests that the ReplicaReads `numbers` asked about."""

    numbers: tuple[Number, ...]


@peer_message("read_replies", answers=ReplicaRead)
class ReadReply(msgspec.Struct, frozen=True, gc=False):
    """The sender's version; empty when it has none."""

    number: Number
    version: EncodedVersionOrNone


@peer_message("refusals")
class Refusal(msgspec.Struct, frozen=True):
    """The sender did not do what the question of this number asked."""

    number: Number
    error: KVError


@peer_message("forwards", question=True, time_left=lambda m: m.request.timeout)
class Forward(msgspec.Struct, frozen=True):
    """A client's request, passed on by a node that is no replica of its key."""

    number: Number
    epoch: Epoch
    request: ClientRequest
    principal: PrincipalName = ""
    """For whom; empty: for anyone, as a node of an earlier version forwards it."""


@peer_message("forward_replies", answers=Forward)
class ForwardReply(msgspec.Struct, frozen=True):
    """The coordinator's reply to a Forward."""

    number: Number
    reply: Reply


class NodeHash(NamedTuple):
    """What a node of a tree stands for: the sum of its items modulo 2^64, and how many there are."""

    sum: TreeHash
    items: ItemCount


class TreeNode(NamedTuple):
    """Names a node: 0 is the root, 1 to 16 are its children, 17 to 272 the leaves."""

    partition: Partition
    n: TreeN
    number: TreeNodeNumber


@peer_message("tree_reads", question=True)
class TreeRead(msgspec.Struct, frozen=True, gc=False):
    """Asks for the hashes of these nodes of Merkle trees."""

    number: Number
    epoch: Epoch
    nodes: tuple[TreeNode, ...]


@peer_message("tree_hashes", answers=TreeRead)
class TreeHashes(msgspec.Struct, frozen=True, gc=False):
    """The hashes that were asked for, in that order; None: that tree has not been built yet."""

    number: Number
    hashes: tuple[NodeHash | None, ...]


@peer_message("range_items", question=True)
class RangeItems(msgspec.Struct, frozen=True, gc=False):
    """Asks how `leaves` of a tree differ, in the keys from `after` up to and without `until`.

    `items` are those of the keys that the asker holds there, in order of the keys.
    """

    number: Number
    epoch: Epoch
    partition: Partition
    n: TreeN
    leaves: Leaves
    after: KeyBound
    until: KeyBound
    items: Items


class KeyVersion(NamedTuple):
    """What is stored under a key."""

    key: InternalKeyField
    version: EncodedVersionField


@peer_message("range_differences", answers=RangeItems)
class RangeDifference(msgspec.Struct, frozen=True, gc=False):
    """Keys and versions that the asker lacks, and positions of its items that the sender lacks.

    When `reached` is not empty, the answer would have been too long: it covers the versions before that
    key, and no `wanted`.
    """

    number: Number
    versions: tuple[KeyVersion, ...]
    wanted: tuple[Position, ...]
    reached: KeyBound


@peer_message("scan_items", question=True, time_left=lambda m: m.ttl_ms / 1000)
class ScanItems(msgspec.Struct, frozen=True, gc=False):
    """Asks what of a bucket differs, in the keys from `after` up to and without `until`.

    `items` are those of the keys that the asker holds there, in order of the keys. Only of keys that begin
    with `prefix`.
    """

    number: Number
    epoch: Epoch
    partition: Partition
    bucket: BucketField
    prefix: UserKeyField
    after: KeyBound
    until: KeyBound
    items: Items
    ttl_ms: TimeLeft


@peer_message("scan_differences", answers=ScanItems)
class ScanDifference(msgspec.Struct, frozen=True, gc=False):
    """Keys and versions that the asker has not, or other ones. `reached`: as that of a RangeDifference."""

    number: Number
    versions: tuple[KeyVersion, ...]
    reached: KeyBound


@peer_message("repairs_wanted")
class RepairWanted(msgspec.Struct, frozen=True, gc=False):
    """A hint for `node` was dropped: this (partition, n) of the receiver should be compared with it next."""

    epoch: Epoch
    partition: Partition
    n: TreeN
    node: NodeId


class Candidate(NamedTuple):
    """A key whose version, with this digest, nobody can see any more."""

    key: InternalKeyField
    digest: DigestField


@peer_message("reap_checks", question=True)
class ReapCheck(msgspec.Struct, frozen=True, gc=False):
    """Asks which candidates may be reaped; with `commit` to reap them (kvstore.quorum.background.reap)."""

    number: Number
    epoch: Epoch
    candidates: tuple[Candidate, ...]
    commit: bool


@peer_message("reap_confirms", answers=ReapCheck)
class ReapConfirm(msgspec.Struct, frozen=True, gc=False):
    """Positions of the candidates that nothing at the sender speaks against, or that it has reaped.

    `ripe` are those of them that it would delete if it were told to: it has confirmed them long enough ago.
    """

    number: Number
    positions: tuple[Position, ...]
    ripe: tuple[Position, ...] = ()


@peer_message("moves_progress")
class MoveProgress(msgspec.Struct, frozen=True, gc=False):
    """The sender has taken up the state of `epoch`, durably, and is proven by it for these partitions.

    They are coming to it, and it holds all that a read quorum of their old replicas holds
    (docs/membership.md).
    """

    epoch: Epoch
    proven: tuple[Partition, ...]


@peer_message("key_offers")
class KeyOffer(msgspec.Struct, frozen=True, gc=False):
    """All keys that the sender has of those that contexts are signed with (kvstore.contexts)."""

    keys: tuple[ContextKey, ...]


AntiEntropyMessage: TypeAlias = TreeRead | TreeHashes | RangeItems | RangeDifference
QuorumMessage: TypeAlias = (
    ReplicaWrite
    | WriteAck
    | ReplicaRead
    | ReadSame
    | ReadReply
    | Refusal
    | Forward
    | ForwardReply
    | AntiEntropyMessage
    | ScanItems
    | ScanDifference
    | RepairWanted
    | ReapCheck
    | ReapConfirm
    | KeyOffer
    | MoveProgress
)
