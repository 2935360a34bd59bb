"""What the fields of messages hold: each has a kind, by which it is checked, bounded and encoded."""

from __future__ import annotations

from enum import Enum, auto
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, NamedTuple, TypeAlias, Union, get_args, get_origin, get_type_hints

import msgspec

from kvstore.protocol.cluster_state import ClusterState
from kvstore.versions import (
    BucketName,
    Digest,
    EncodedVersion,
    InternalKey,
    SessionToken,
    SignedContext,
    UserKey,
)

MAX_INCARNATION = 2**48 - 1
"""A claim about a higher incarnation counts as one about this: far below the type's end, and beyond what
restarts and refutations come to in the life of a cluster. A member that was pushed so far stays there, and is
believed when it says itself that it is alive (docs/gossip.md)."""


class Kind(Enum):
    """What a field holds."""

    NUMBER = auto()
    """Of a question or a probe: its asker's, unique over its restarts. Compared, never used in arithmetic."""
    EPOCH = auto()
    """Of the cluster state that the sender knows. Compared, never used in arithmetic."""
    INTERNAL_KEY = auto()
    """A key as the engine has it (kvstore.protocol.internal_key)."""
    KEY_BOUND = auto()
    """Where a range of internal keys begins or ends; empty: no bound."""
    VERSION = auto()
    """The canonical bytes of a version (kvstore.versions)."""
    VERSION_OR_NONE = auto()
    """Likewise; empty when there is none."""
    DIGEST = auto()
    """Of a version (kvstore.versions)."""
    HINT_TARGET = auto()
    """The member for which a version is kept as a hint; empty: it is the receiver's own."""
    NODE = auto()
    """The id of a node. Who is asked about a node that it does not know ignores that."""
    PARTITION = auto()
    TREE_N = auto()
    """The number of replicas of the keys in a Merkle tree."""
    TREE_NODE = auto()
    """The number of a node of a Merkle tree."""
    TREE_HASH = auto()
    ITEM_COUNT = auto()
    LEAVES = auto()
    """Leaves of a Merkle tree, a byte each, in order."""
    ITEMS = auto()
    """8 bytes for each key that the asker holds, in order (kvstore.quorum.background.merkle.item)."""
    POSITION = auto()
    """In the list of a question. The asker compares it with what it has asked."""
    CONTEXT_KEY = auto()
    """A key that contexts are signed with (kvstore.contexts)."""
    PRINCIPAL = auto()
    """The name of whoever a request is carried out for (kvstore.principal)."""
    TIME_LEFT = auto()
    """Milliseconds that were left to the asker when it asked; 0: any time."""
    CLUSTER_STATE = auto()
    """A document that can be a cluster state (kvstore.ring.check)."""
    BALLOT_ROUND = auto()
    INCARNATION = auto()
    """Of a member. Gossip passes on what others say, so one that is too high counts as MAX_INCARNATION: to
    refuse it would cost its bearer the connection."""

    # what clients send, and get: checked where a request is admitted, so that its client learns what is wrong
    BUCKET = auto()
    KEY = auto()
    """As the client calls it."""
    VALUE = auto()
    CONTENT_TYPE = auto()
    CONTEXT = auto()
    """Opaque, signed: what a client has seen (kvstore.contexts)."""
    SEEN = auto()
    """The token of a session (kvstore.contexts)."""
    REPLICAS = auto()
    """How many to wait for; 0: as the bucket says."""
    TTL = auto()
    """Seconds; 0: as the bucket says."""
    SECONDS = auto()
    """Of time left; 0: the default."""
    TIME = auto()
    """Milliseconds since 1970."""
    COUNT = auto()


Number: TypeAlias = Annotated[int, Kind.NUMBER]
Epoch: TypeAlias = Annotated[int, Kind.EPOCH]
InternalKeyField: TypeAlias = Annotated[InternalKey, Kind.INTERNAL_KEY]
KeyBound: TypeAlias = Annotated[bytes, Kind.KEY_BOUND]
EncodedVersionField: TypeAlias = Annotated[EncodedVersion, Kind.VERSION]
EncodedVersionOrNone: TypeAlias = Annotated[EncodedVersion, Kind.VERSION_OR_NONE]
DigestField: TypeAlias = Annotated[Digest, Kind.DIGEST]
HintTarget: TypeAlias = Annotated[str, Kind.HINT_TARGET]
NodeId: TypeAlias = Annotated[str, Kind.NODE]
Partition: TypeAlias = Annotated[int, Kind.PARTITION]
TreeN: TypeAlias = Annotated[int, Kind.TREE_N]
TreeNodeNumber: TypeAlias = Annotated[int, Kind.TREE_NODE]
TreeHash: TypeAlias = Annotated[int, Kind.TREE_HASH]
ItemCount: TypeAlias = Annotated[int, Kind.ITEM_COUNT]
Leaves: TypeAlias = Annotated[bytes, Kind.LEAVES]
Items: TypeAlias = Annotated[bytes, Kind.ITEMS]
Position: TypeAlias = Annotated[int, Kind.POSITION]
ContextKey: TypeAlias = Annotated[bytes, Kind.CONTEXT_KEY]
PrincipalName: TypeAlias = Annotated[str, Kind.PRINCIPAL]
TimeLeft: TypeAlias = Annotated[int, Kind.TIME_LEFT]
StateField: TypeAlias = Annotated[ClusterState, Kind.CLUSTER_STATE]
BallotRound: TypeAlias = Annotated[int, Kind.BALLOT_ROUND]
Incarnation: TypeAlias = Annotated[int, Kind.INCARNATION]
BucketField: TypeAlias = Annotated[BucketName, Kind.BUCKET]
UserKeyField: TypeAlias = Annotated[UserKey, Kind.KEY]
Content: TypeAlias = Annotated[bytes, Kind.VALUE]
ContentType: TypeAlias = Annotated[str, Kind.CONTENT_TYPE]
ContextField: TypeAlias = Annotated[SignedContext, Kind.CONTEXT]
SessionTokenField: TypeAlias = Annotated[SessionToken, Kind.SEEN]
Replicas: TypeAlias = Annotated[int, Kind.REPLICAS]
Ttl: TypeAlias = Annotated[int, Kind.TTL]
Seconds: TypeAlias = Annotated[float, Kind.SECONDS]
Time: TypeAlias = Annotated[int, Kind.TIME]
Count: TypeAlias = Annotated[int, Kind.COUNT]

REQUIRED = msgspec.NODEFAULT
"""The default of a field that has none."""


class Field(NamedTuple):
    """One field of a message, or of a record within one."""

    name: str
    types: tuple[Any, ...]
    """What it holds, or what each of its items is: one type, or the members of a union."""
    kind: Kind | None
    """None for what tells by its type what it is: flags, enumerations, errors and records."""
    many: bool
    """Whether it is a tuple of such."""
    optional: bool
    """Whether it, or an item of it, may be None."""
    default: Any

    @property
    def type(self) -> Any:
        """What it holds, when that is no union."""
        (only,) = self.types
        return only


def is_record(kind: Any) -> bool:
    """Whether a type has fields of its own: a message, or a part of one."""
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or hasattr(kind, "_fields"))


@cache
def fields_of(record: Any) -> tuple[Field, ...]:
    """The fields of a struct or a NamedTuple, in order."""
    if issubclass(record, msgspec.Struct):
        defaults = {field.name: field.default for field in msgspec.structs.fields(record)}
    else:
        defaults = {name: record._field_defaults.get(name, REQUIRED) for name in record._fields}
    hints = get_type_hints(record, include_extras=True)
    return tuple(_field(name, hints[name], default) for name, default in defaults.items())


def _field(name: str, hint: Any, default: Any) -> Field:
    many = get_origin(hint) is tuple
    if many:
        hint, _ = get_args(hint)
    kind = None
    if get_origin(hint) is Annotated:
        hint, kind = get_args(hint)
    hint = getattr(hint, "__supertype__", hint)  # of a NewType
    types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    some = tuple(each for each in types if each is not NoneType)
    return Field(name, some, kind, many, len(some) < len(types), default)
