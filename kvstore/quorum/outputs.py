"""Outputs as values: a message to another node, or this node's own answer to one of its questions."""

from __future__ import annotations

import msgspec

from kvstore.protocol.peer import ReadSame, WriteAck
from kvstore.protocol.table import PeerMessage


class Send(msgspec.Struct, frozen=True, gc=False):
    """A message to another node."""

    to: str
    message: PeerMessage


class Own(msgspec.Struct, frozen=True, gc=False):
    """What this node itself answers to the question `number`, as any other replica would."""

    number: int
    answer: WriteAck | ReadSame


class OwnAcks(msgspec.Struct, frozen=True, gc=False):
    """This node's own acknowledgement of what it was to write under these numbers."""

    numbers: tuple[int, ...]


Output = Send | Own | OwnAcks

ACK = WriteAck(())
"""This node's own: what was to be written is on its disk."""
SAME = ReadSame(())
"""This node's own: what it has read here is on its disk."""
