"""The table of messages between nodes: one row for each, in the order in which a frame is read.

A row is declared at its struct (kvstore.protocol.row), the kinds of its fields with the fields; what follows
from them is asked here. Codec (kvstore.wire.peer) and checks (kvstore.node.frame_check) are derived as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, get_args

from kvstore.config import KIB
from kvstore.protocol.gossip import GossipMessage
from kvstore.protocol.instant import Instant
from kvstore.protocol.paxos import PaxosMessage
from kvstore.protocol.peer import QuorumMessage
from kvstore.protocol.row import ROWS, Row
from kvstore.protocol.spread import SpreadMessage

PeerMessage: TypeAlias = QuorumMessage | GossipMessage | PaxosMessage | SpreadMessage
Handler: TypeAlias = Callable[[str, Any, Instant], None]
"""Takes a message of one type with its sender."""
PEER_TABLE: dict[type[PeerMessage], Row] = {struct: ROWS[struct] for struct in get_args(PeerMessage)}

ANSWERS: dict[type[PeerMessage], type] = {s: row.answers for s, row in PEER_TABLE.items() if row.answers}
"""By answer the question that it answers; every question may be refused instead."""

_BULK_MESSAGE = 64 * KIB
_QUESTIONS = frozenset(struct for struct, row in PEER_TABLE.items() if row.question)
_WAITS = {struct: row.waits for struct, row in PEER_TABLE.items() if row.waits}
_TIMES_LEFT = {struct: row.time_left for struct, row in PEER_TABLE.items() if row.time_left}


def is_bulk(message: PeerMessage, size: int) -> bool:
    """Whether a message of `size` bytes goes by the stream for bulk, so that probes do not wait behind it."""
    if size > _BULK_MESSAGE:
        return True
    waits = _WAITS.get(type(message))
    return waits is not None and waits(message)


def awaited(message: PeerMessage) -> int | None:
    """The number of the operation that waits for an answer to this message, when there is one."""
    if type(message) not in _QUESTIONS:
        return None
    number: int = message.number  # type: ignore[union-attr]  # questions have one: a test sees to it
    return number


def expired(message: PeerMessage, delay: float) -> bool:
    """Whether the asker's time was over before the message arrived, `delay` seconds after it was sent."""
    time_left = _TIMES_LEFT.get(type(message))
    return time_left is not None and 0 < time_left(message) < delay
