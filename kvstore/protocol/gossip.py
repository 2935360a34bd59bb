"""What failure detectors send to each other. `updates` is gossip that rides along."""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

import msgspec

from kvstore.protocol.fields import Incarnation, NodeId, Number
from kvstore.protocol.row import peer_message


class Status(Enum):
    """What is believed of a member; within one incarnation it only gets worse (SWIM section 4.2)."""

    ALIVE = 1
    SUSPECT = 2
    DEAD = 3


class Update(msgspec.Struct, frozen=True, gc=False):
    """A claim about `node`, valid for one of its incarnations (0: it was never heard of)."""

    node: NodeId
    status: Status
    incarnation: Incarnation

    def supersedes(self, other: Update) -> bool:
        """Whether this claim about the same node replaces `other`.

        The higher incarnation wins, then the worse status. It is a total order, so that tables
        which have seen the same claims are equal, whatever the order they came in.
        """
        return (self.incarnation, self.status.value) > (other.incarnation, other.status.value)


@peer_message("pings")
class Ping(msgspec.Struct, frozen=True, gc=False):
    """Answer with an Ack of this sequence number, if you are `target`."""

    sequence: Number
    target: NodeId
    updates: tuple[Update, ...]


@peer_message("ping_requests")
class PingRequest(msgspec.Struct, frozen=True, gc=False):
    """Ping `target` for me (indirect probe) and answer with an Ack, or a Nack if it stays silent."""

    sequence: Number
    target: NodeId
    updates: tuple[Update, ...]


@peer_message("acks")
class Ack(msgspec.Struct, frozen=True, gc=False):
    """The target of the Ping or PingRequest with this sequence number has answered."""

    sequence: Number
    updates: tuple[Update, ...]


@peer_message("nacks")
class Nack(msgspec.Struct, frozen=True, gc=False):
    """The target was asked and is silent, but this helper is well (Lifeguard section IV-A)."""

    sequence: Number
    updates: tuple[Update, ...]


@peer_message("push_pulls")
class PushPull(msgspec.Struct, frozen=True, gc=False):
    """Rows of the sender's table, all if it is small; with `reply` it wants the receiver's in return."""

    updates: tuple[Update, ...]
    reply: bool


GossipMessage: TypeAlias = Ping | PingRequest | Ack | Nack | PushPull
