"""The record of an acceptor as a node keeps it on its disk: a byte for the format, then msgpack."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kvstore.errors import Corruption
from kvstore.membership.acceptor import NOTHING, Record
from kvstore.protocol.paxos import Ballot, Vote
from kvstore.ring import decode_state, encode_state

PAXOS_RECORD = b"n/paxos"
"""Where the engine keeps it; `n` is the keyspace of node-local records."""
_FORMAT = b"\1"


class _Document(msgspec.Struct, frozen=True, array_like=True):
    epoch: int
    promised: Ballot
    voted: Ballot | None
    value: bytes


def entry(record: Record) -> tuple[bytes, bytes]:
    """What is to be written to keep it."""
    vote = record.vote
    voted, value = (vote.ballot, encode_state(vote.value)) if vote else (None, b"")
    document = _Document(record.epoch, record.promised, voted, value)
    return PAXOS_RECORD, _FORMAT + msgspec.msgpack.encode(document)


def kept(get: Callable[[bytes], bytes | None]) -> Record:
    """The record on the disk; NOTHING if there is none. Raises Corruption for one that cannot be read."""
    stored = get(PAXOS_RECORD)
    if stored is None:
        return NOTHING
    if stored[:1] != _FORMAT:
        raise Corruption("paxos", f"is of format {stored[:1].hex() or 'none'}, not {_FORMAT.hex()}")
    try:
        document = msgspec.msgpack.decode(stored[1:], type=_Document)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corruption("paxos", str(error)) from error
    vote = Vote(document.voted, decode_state(document.value)) if document.voted else None
    return Record(document.epoch, document.promised, vote)
