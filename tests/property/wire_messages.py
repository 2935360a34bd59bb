"""Strategies for everything that travels between nodes, and between nodes and clients."""

from __future__ import annotations

from hypothesis import strategies as st

from kvstore.config import QuorumMode
from kvstore.errors import (
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    Overloaded,
    ReadTimeout,
    StaleRead,
    StaleRing,
    StorageFull,
    TooManySiblings,
    Unavailable,
    UnverifiedContext,
    VersionTooLarge,
    WriteTimeout,
)
from kvstore.gossip import MAX_INCARNATION, Status, Update
from kvstore.gossip.messages import Ack, Nack, Ping, PingRequest, PushPull
from kvstore.node.outbox import PeerMessage
from kvstore.protocol.messages import (
    Candidate,
    ClientRequest,
    Delete,
    Explain,
    Failed,
    Forward,
    ForwardReply,
    Found,
    Get,
    KeyOffer,
    NodeHash,
    Put,
    RangeDifference,
    RangeItems,
    ReadReply,
    ReadSame,
    ReapCheck,
    ReapConfirm,
    Refusal,
    RepairWanted,
    ReplicaRead,
    ReplicaWrite,
    Reply,
    Stored,
    TreeHashes,
    TreeNode,
    TreeRead,
    Value,
    WriteAck,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
texts = st.text(max_size=20)
data = st.binary(max_size=40)
modes = st.sampled_from([None, *QuorumMode])
milliseconds = u32.map(lambda ms: ms / 1000)

errors: st.SearchStrategy[KVError] = st.one_of(
    st.builds(InvalidRequest, texts, texts),
    st.builds(Unavailable, u32, u32),
    st.builds(ReadTimeout, u32, u32),
    st.builds(StaleRead, u32),
    st.builds(WriteTimeout, u32, u32),
    st.builds(Overloaded, milliseconds, texts),
    st.builds(TooManySiblings, u32, u32),
    st.builds(VersionTooLarge, u64, u32),
    st.builds(UnverifiedContext),
    st.builds(StaleRing, u64),
    st.builds(Corruption, texts, texts),
    st.builds(StorageFull, texts),
    st.builds(InternalError, texts),
)

requests: st.SearchStrategy[ClientRequest] = st.one_of(
    st.builds(Get, texts, data, u32, modes, milliseconds, st.booleans(), u64, data, st.booleans()),
    st.builds(Put, texts, data, data, data, texts, u32, u32, modes, milliseconds, st.booleans(), u64),
    st.builds(Delete, texts, data, data, u32, u32, modes, milliseconds, st.booleans(), u64),
)

_names = st.lists(texts, max_size=3).map(tuple)
_explains = st.none() | st.builds(Explain, texts, u64, u32, _names, _names, _names, _names, _names)
_values = st.lists(st.builds(Value, data, texts, u64, u64), max_size=3).map(tuple)

founds = st.builds(Found, _values, data, _explains)
storeds = st.builds(Stored, data, u32, _explains, st.just(0) | u32, data)
replies: st.SearchStrategy[Reply] = st.one_of(founds, storeds, st.builds(Failed, errors))

_updates = st.lists(
    st.builds(Update, texts, st.sampled_from(Status), st.integers(0, MAX_INCARNATION)), max_size=3
).map(tuple)

_nodes = st.lists(st.builds(TreeNode, u32, u32, u32), max_size=3).map(tuple)
_hashes = st.lists(st.none() | st.builds(NodeHash, u64, u64), max_size=3).map(tuple)
_versions = st.lists(st.tuples(data, data), max_size=3).map(tuple)
_positions = st.lists(u32, max_size=3).map(tuple)

_candidates = st.lists(st.builds(Candidate, data, data), max_size=3).map(tuple)

peer_messages: st.SearchStrategy[PeerMessage] = st.one_of(
    st.builds(ReplicaWrite, u64, u64, data, data, texts, st.booleans()),
    st.builds(WriteAck, st.lists(u64, min_size=1, max_size=4).map(tuple)),
    st.builds(ReplicaRead, u64, u64, data, data, texts, u32),
    st.builds(ReadSame, u64),
    st.builds(ReadReply, u64, data),
    st.builds(Refusal, u64, errors),
    st.builds(Forward, u64, u64, requests),
    st.builds(ForwardReply, u64, replies),
    st.builds(TreeRead, u64, u64, _nodes),
    st.builds(TreeHashes, u64, _hashes),
    st.builds(RangeItems, u64, u64, u32, u32, data, data, data, data),
    st.builds(RangeDifference, u64, _versions, _positions, data),
    st.builds(RepairWanted, u64, u32, u32, texts),
    st.builds(ReapCheck, u64, u64, _candidates, st.booleans()),
    st.builds(ReapConfirm, u64, _positions),
    st.builds(KeyOffer, st.lists(data, max_size=3).map(tuple)),
    st.builds(Ping, u64, texts, _updates),
    st.builds(PingRequest, u64, texts, _updates),
    st.builds(Ack, u64, _updates),
    st.builds(Nack, u64, _updates),
    st.builds(PushPull, _updates, st.booleans()),
)


def comparable(thing: object) -> object:
    """`thing` in a form that `==` can judge: exceptions compare by identity, their content should count."""
    match thing:
        case KVError():
            return (type(thing), str(thing), thing.outcome, thing.retryable, vars(thing))
        case Failed(error):
            return ("failed", comparable(error))
        case Refusal(request, error):
            return ("refusal", request, comparable(error))
        case ForwardReply(request, reply):
            return ("reply", request, comparable(reply))
        case _:
            return thing


@st.composite
def damaged(draw: st.DrawFn, intact: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were a good message until some were changed, cut off or put in."""
    content = bytearray(draw(intact))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(content)))
        match draw(st.integers(0, 2)):
            case 0:
                del content[place:]
            case 1:
                content[place:place] = draw(st.binary(min_size=1, max_size=4))
            case _:
                content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
    return bytes(content)
