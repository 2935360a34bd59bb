"""Strategies for everything that travels between nodes, and between nodes and clients."""

from __future__ import annotations

from enum import Enum
from typing import Any, get_args

from hypothesis import strategies as st

from kvstore.errors import (
    Corruption,
    InternalError,
    InvalidRequest,
    KVError,
    NodeStopping,
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
from kvstore.membership import transitions
from kvstore.protocol.client import CLIENT_REQUESTS, ClientRequest, Failed, Found, Reply
from kvstore.protocol.fields import MAX_INCARNATION, Field, Kind, fields_of, is_record
from kvstore.protocol.peer import ForwardReply, ReadSame, Refusal, WriteAck
from kvstore.protocol.table import PEER_TABLE, PeerMessage
from kvstore.ring import ClusterState, initial_state, parse_members

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
texts = st.text(max_size=20)
data = st.binary(max_size=40)
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
    st.builds(NodeStopping),
    st.builds(StaleRing, u64),
    st.builds(Corruption, texts, texts),
    st.builds(StorageFull, texts),
    st.builds(InternalError, texts),
)

_WIDE = {
    Kind.NUMBER,
    Kind.EPOCH,
    Kind.TREE_HASH,
    Kind.ITEM_COUNT,
    Kind.TIME,
}
"""Kinds of numbers that have 64 bits on the wire."""


_STATE = initial_state("c", parse_members("n1=h:1,n2=h:2,n3=h:3"), 4, 3, [])
_MOVING = transitions.begin(_STATE, {1: _STATE.ring.replica_lists[1][::-1]})
states = st.sampled_from([_STATE, _MOVING, transitions.advance(_MOVING, [1])])


def messages_of(record: Any) -> st.SearchStrategy[Any]:
    """Any values in the fields of a message: what its types allow, not what makes sense."""
    return st.builds(record, *[_values(field, record) for field in fields_of(record)])


def _values(field: Field, record: Any) -> st.SearchStrategy[Any]:
    one = st.one_of([_one(kind, field) for kind in field.types])
    if field.optional:
        one = st.none() | one
    if not field.many:
        return one
    # of acks without any number nothing arrives
    return st.lists(one, min_size=record in (ReadSame, WriteAck), max_size=4).map(tuple)


def _one(kind: Any, field: Field) -> st.SearchStrategy[Any]:
    if is_record(kind):
        return messages_of(kind)
    if kind is KVError:
        return errors
    if kind is ClusterState:
        return states
    if issubclass(kind, Enum):
        return st.sampled_from(kind)
    if field.kind is Kind.INCARNATION:
        return st.integers(0, MAX_INCARNATION)
    numbers = u64 if field.kind in _WIDE else u32
    return {bool: st.booleans(), bytes: data, str: texts, float: milliseconds, int: numbers}[kind]


requests: st.SearchStrategy[ClientRequest] = st.one_of([messages_of(struct) for struct in CLIENT_REQUESTS])
founds = messages_of(Found)
replies: st.SearchStrategy[Reply] = st.one_of([messages_of(struct) for struct in get_args(Reply)])
peer_messages: st.SearchStrategy[PeerMessage] = st.one_of([messages_of(struct) for struct in PEER_TABLE])


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
