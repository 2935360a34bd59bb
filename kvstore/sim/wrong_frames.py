"""Frames that are well formed and wrong: one field of one message has a value that it should never have.

What a defect of a peer, or one of another version, sends. A value that could be right is not among them (an
acknowledgement of another write, say): against that nobody has a remedy.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from kvstore.errors import Corruption
from kvstore.hlc import MAX_TIME
from kvstore.protocol.client import ClientRequest, Get
from kvstore.protocol.fields import Field, Kind, fields_of
from kvstore.protocol.gossip import Update
from kvstore.protocol.paxos import Ballot, Vote
from kvstore.protocol.peer import Candidate, KeyVersion, NodeHash, TreeNode
from kvstore.protocol.table import PeerMessage
from kvstore.ring import ClusterState, Ring, Since
from kvstore.versions import (
    MAX_COUNTER,
    Dot,
    EncodedVersion,
    InternalKey,
    Sibling,
    Version,
    decode_version,
    encode_version,
)
from kvstore.wire.peer import decode_timed_frame, encode_frame

_LAST_32, _LAST_64 = 2**32 - 1, 2**64 - 1
_ENDS_64 = (0, 1, 2**63 - 1, 2**63, _LAST_64 - 1, _LAST_64)
_NAMES = ("nobody", "N1", "n1\0", "n" * 300)

Change = Callable[[Any, random.Random], Any]


def make_wrong(frame: bytes, rng: random.Random) -> bytes:
    """The same frame but for one value."""
    sent_ms, messages = decode_timed_frame(frame)
    if not messages or rng.random() < 0.05:
        return encode_frame(messages, rng.choice(_ENDS_64))
    i = rng.randrange(len(messages))
    messages[i] = wrong_message(messages[i], rng)
    return encode_frame(messages, sent_ms)


def wrong_message(message: PeerMessage, rng: random.Random) -> PeerMessage:
    """The same message but for one field; the same if there is nothing to be made wrong about it."""
    able = [
        (field.name, change)
        for field in fields_of(type(message))
        if (change := change_of(field)) and getattr(message, field.name) not in ((), "")
    ]
    if not able:
        return message
    name, change = rng.choice(able)
    return msgspec.structs.replace(message, **{name: change(getattr(message, name), rng)})


def change_of(field: Field) -> Change | None:
    """What is done to a field, by its kind or by the records that it has; None: any value is right."""
    change = CHANGES.get(field.kind or field.types[0])
    return _one_item(change) if change is not None and field.many else change


def _one_of(values: tuple[object, ...]) -> Change:
    return lambda _, rng: rng.choice(values)


def _one_item(change: Change) -> Change:
    """Of several the change of one."""

    def changed(items: tuple[object, ...], rng: random.Random) -> tuple[object, ...]:
        i = rng.randrange(len(items))
        return (*items[:i], change(items[i], rng), *items[i + 1 :])

    return changed


def _wrong_key(key: bytes, rng: random.Random) -> bytes:
    return rng.choice(
        (
            b"",
            b"d",
            b"h" + key[1:],
            key[:12],
            key.replace(b"\0", b""),
            key[:1] + bytes(8) + key[9:],
            key + b"x",
            key + bytes(5000),
        )
    )


def _wrong_version(encoded: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return rng.choice((b"", b"\1", b"\2" + encoded[1:], encoded[:-1], encoded + b"\0", b"\xff" * 40))
    try:
        version = decode_version(EncodedVersion(encoded))
    except Corruption:  # of no version: a reply that there is none
        return b"\1\1"
    return encode_version(rng.choice(_VERSIONS)(version))


def _with_sibling(version: Version, **changes: object) -> Version:
    first = version.siblings[0] if version.siblings else Sibling(Dot("a", 1), b"")
    return Version(version.context, (msgspec.structs.replace(first, **changes), *version.siblings[1:]))


_VERSIONS: tuple[Callable[[Version], Version], ...] = (
    lambda v: Version((*v.context, Dot("~", MAX_COUNTER + 1)), v.siblings),
    lambda v: Version((*v.context, Dot("~", 0)), v.siblings),
    lambda v: Version((Dot("~", 5), *v.context), v.siblings),
    lambda v: Version((*v.context, *v.context[-1:]), v.siblings),
    lambda v: Version((), v.siblings or (Sibling(Dot("a", 1), b""),)),
    lambda v: Version(v.context, (*v.siblings, *v.siblings)),
    lambda v: Version((*v.context, Dot("~" * 1000, 5)), v.siblings),
    lambda v: _with_sibling(v, time=-1),
    lambda v: _with_sibling(v, time=MAX_TIME + 1),
    lambda v: _with_sibling(v, expiry=-1),
    lambda v: _with_sibling(v, expiry=_LAST_64),
    lambda v: _with_sibling(v, content_type="x" * 100_000),
)
"""What is wrong in a way that only decoding it shows."""


def _wrong_call(call: ClientRequest, rng: random.Random) -> ClientRequest:
    name, value = rng.choice(
        (
            ("key", b""),
            ("key", bytes(5000)),
            ("bucket", "No Name"),
            ("w" if hasattr(call, "w") else "r", _LAST_32),
            ("seen" if hasattr(call, "seen") else "context", b"rubbish"),
        )
    )
    return msgspec.structs.replace(call, **{name: value})


def _wrong_state(state: ClusterState, rng: random.Random) -> ClusterState:
    """One that can be the state of a cluster, and of which nobody has decided that it is that of this one."""
    larger = Ring(state.ring.replica_lists * 2)
    return rng.choice(
        (replace(state, cluster_id="another"), replace(state, ring=larger, moves=(), since=Since()))
    )


def _wrong_update(update: Update, rng: random.Random) -> Update:
    if rng.random() < 0.3:
        return Update(rng.choice(_NAMES), update.status, update.incarnation)
    return Update(update.node, update.status, rng.choice(_ENDS_64))


def _wrong_key_version(pair: KeyVersion, rng: random.Random) -> KeyVersion:
    if rng.random() < 0.5:
        return pair._replace(key=InternalKey(_wrong_key(pair.key, rng)))
    return pair._replace(version=EncodedVersion(_wrong_version(pair.version, rng)))


CHANGES: dict[Any, Change] = {
    Kind.NUMBER: _one_of(_ENDS_64),
    Kind.EPOCH: _one_of((0, 2, _LAST_64)),
    Kind.INTERNAL_KEY: _wrong_key,
    Kind.KEY_BOUND: _wrong_key,
    Kind.VERSION: _wrong_version,
    Kind.VERSION_OR_NONE: _wrong_version,
    Kind.DIGEST: _one_of((b"", bytes(15), bytes(17))),
    Kind.HINT_TARGET: _one_of(_NAMES),
    Kind.NODE: _one_of(_NAMES),
    Kind.PARTITION: _one_of((_LAST_32, 2**16)),
    Kind.TREE_N: _one_of((0, _LAST_32)),
    Kind.LEAVES: _one_of((b"\xff" * 300, b"\5\1")),
    Kind.ITEMS: lambda items, _: items + b"\0",
    Kind.ITEM_COUNT: _one_of((0, _LAST_64)),
    Kind.COUNT: _one_of((0, _LAST_32)),
    Kind.POSITION: _one_of((_LAST_32,)),
    Kind.CONTEXT_KEY: _one_of((b"short",)),
    Kind.PRINCIPAL: _one_of(("x" * 300,)),
    Kind.TIME_LEFT: _one_of((0, 1, _LAST_32)),
    Kind.CLUSTER_STATE: _wrong_state,
    Ballot: lambda ballot, rng: rng.choice((Ballot(_LAST_64, ballot.node), Ballot(ballot.round, "n" * 300))),
    Vote: lambda vote, _: vote and msgspec.structs.replace(vote, ballot=Ballot(_LAST_64, "n1")),
    Kind.BUCKET: _one_of(("", "No Name", "x" * 1000)),
    Kind.KEY: _one_of((b"", bytes(5000))),
    TreeNode: lambda node, rng: rng.choice(
        (node._replace(partition=_LAST_32), TreeNode(0, _LAST_32, 1), TreeNode(0, 3, 273))
    ),
    NodeHash: lambda _, rng: rng.choice((None, NodeHash(_LAST_64, _LAST_64))),
    KeyVersion: _wrong_key_version,
    Candidate: lambda candidate, rng: candidate._replace(key=_wrong_key(candidate.key, rng)),
    Update: _wrong_update,
    Get: _wrong_call,
}
"""By the kind of a field, or by the first type that it may have."""
